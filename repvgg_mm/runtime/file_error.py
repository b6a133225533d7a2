"""The error of everything that is wrong with an exported file."""


class FileError(ValueError):
    """An exported file can't be used; the message is one line that names the file and the reason."""
