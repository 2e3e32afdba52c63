"""Networks rewritten: less memory, fewer operations, examples side by side."""
