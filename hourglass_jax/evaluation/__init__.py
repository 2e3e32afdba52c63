"""Metrics, the papers' tables, and annotations to score against."""
