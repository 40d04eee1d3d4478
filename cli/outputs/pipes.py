"""Standard output that nobody reads any more."""


class ReaderGone(Exception):
    """Whoever read standard output has left (``| head``). Not an OSError: typer would end the process itself."""
