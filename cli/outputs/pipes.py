"""The exception for a closed pipe."""


class ReaderGone(Exception):
    """The reader of standard output has closed it (``| head``). Not an OSError: typer would end the process itself."""
