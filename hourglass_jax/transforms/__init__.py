"""Transforms of networks: less memory, fewer operations, several examples at once."""
