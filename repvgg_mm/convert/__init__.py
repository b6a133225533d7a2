"""Converting checkpoint files: read, convert, prove, write."""
