"""Chooses the graph that reads a prompt: the decoder's own, or for long prompts one that reads them faster.

That graph takes and gives the same as the decoder's. Its matrices are in 8-bit columns, whose products of many rows are
several times as fast as those of blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from triform.runtime.graphs.binding import DecoderMemory
from triform.runtime.graphs.protocols import BindableSession

# Opening the graph costs about as much time as it saves in one prompt of so many tokens: of SmolLM2-135M half a second.
LONG = 256


class PromptGraphs:
    """The graphs that read prompts, for all steps of a model. Several threads may use it."""

    def __init__(self, open_long: Callable[[], BindableSession] | None = None) -> None:
        """Take what opens the graph for long prompts.

        Args:
            open_long: called once, for the first long prompt; None if there is no such graph.
        """
        self._open_long, self._lock = open_long, Lock()
        self._long: BindableSession | None = None

    def differ(self, one: int, other: int) -> bool:
        """Whether prompts of these lengths, in tokens, are read by different graphs."""
        return self.is_long(one) != self.is_long(other)

    def memory(self, own: DecoderMemory, length: int) -> DecoderMemory:
        """What reads a prompt.

        Args:
            own: the memory of the decoder's own graph.
            length: of the prompt, in tokens, with those that are in the cache.

        Raises:
            BundleError: the graph for long prompts is damaged.
        """
        if self._open_long is None or length < LONG:
            return own
        with self._lock:
            self._long = self._long or self._open_long()
        return own.on(self._long)

    def is_long(self, length: int) -> bool:
        """Whether a prompt of this length, in tokens, is read by the graph for long prompts."""
        return self._open_long is not None and length >= LONG
