"""What the replaced functions of transformers share during one forward pass of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Pass = TypeVar("Pass")


class CurrentPass(Generic[Pass]):
    """Holds the state of the forward pass that runs, for functions whose signatures have no place for it."""

    def __init__(self, name: str) -> None:
        """Take what needs the state, for the error that tells that there is none."""
        self._name = name
        self._state: Pass | None = None

    @contextmanager
    def running(self, state: Pass) -> Iterator[Pass]:
        """While the block runs, replaced functions read and write `state`."""
        previous, self._state = self._state, state
        try:
            yield state
        finally:
            self._state = previous

    def get(self) -> Pass:
        """The state of the pass that runs.

        Raises:
            RuntimeError: none runs.
        """
        if self._state is None:
            raise RuntimeError(f"{self._name} called outside of a forward pass")
        return self._state
