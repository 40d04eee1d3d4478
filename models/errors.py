"""Failures of the PyTorch side. `export/` turns them into the errors a user sees."""


class UnsupportedModelError(ValueError):
    """The architecture, or something its config asks for, cannot become one of our graphs."""
