"""Measurements of speed, one file for each question; see `command`."""
