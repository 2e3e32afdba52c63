"""Pictures and films in and out, and drawing."""
