"""Data: joint sets, datasets, crops, the pipeline to the device and the augmentation on it."""
