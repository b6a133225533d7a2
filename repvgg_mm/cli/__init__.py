"""Command lines: parse, call, say. Exit codes: 0 done, 1 a check failed, 2 bad input."""
