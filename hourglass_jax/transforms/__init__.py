"""Networks rewritten: less memory, fewer operations, several examples at once."""
