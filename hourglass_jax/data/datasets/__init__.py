"""One file per dataset, with its annotations."""
