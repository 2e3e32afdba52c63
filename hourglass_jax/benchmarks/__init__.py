"""Where speed is measured, one file for each question; see `command`."""
