"""Single operations in forms that are faster on one backend."""
