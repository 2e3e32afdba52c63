"""Geometry of people: joint sets, crops, heatmaps and augmentation."""
