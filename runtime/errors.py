"""Everything a user can get wrong, as one root and a few leaves. Messages are one line: what, which, what to do."""

from __future__ import annotations


class TriformError(Exception):
    """Root of every failure with a cause outside the program."""


class BundleError(TriformError):
    """A bundle is missing, damaged, unsafe, or made by an incompatible version."""


class InputError(TriformError):
    """An argument, an option or a prompt cannot be used as given."""


class ContextError(InputError):
    """A prompt does not fit the model's context."""


class UnsupportedError(TriformError):
    """The model or the platform asks for something Triform does not do."""


class ProviderError(TriformError):
    """The execution provider that was named is not available."""


class ExportError(TriformError):
    """A checkpoint could not be turned into a bundle."""
