"""The error of everything that is wrong with a checkpoint file."""


class CheckpointError(ValueError):
    """A checkpoint can't be used; the message is one line that names the file or key and the fix."""
