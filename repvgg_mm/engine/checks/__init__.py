"""What is checked before a training starts. Each check yields one line for every problem that it finds."""
