"""Metrics, the papers' tables, and annotations for scoring."""
