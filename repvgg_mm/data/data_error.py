"""Errors that tell what is wrong with the data from what is wrong with the code."""


class DataError(ValueError):
    """The files of a data set are not what they should be; the message is one line that names the file and the fix.

    Raised in a worker process it keeps its kind, and gets the worker's traceback as its message: see `data_message`.
    """


class UnreadableDataError(DataError):
    """A file can't be read at all; such files can be left out (``broken='skip'``)."""


def data_message(error: DataError) -> str:
    """Return the line that an error was raised with, without what a worker process put around it.

    Args:
        error: as it was caught.

    Returns:
        The line.
    """
    return str(error).rsplit("DataError: ", 1)[-1].strip()
