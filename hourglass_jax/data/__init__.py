"""Data: datasets, their preparation, and the pipeline to the devices."""
