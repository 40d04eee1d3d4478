"""Finds stop strings in text that arrives in pieces, and keeps even their beginnings out of the output."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.text.detokenizer import IncrementalDetokenizer
from triform.runtime.text.tokenizer import Tokenizer


class StopStrings:
    """Passes text on up to the first stop string.

    The first is the one that ends first, and of several that end together the longest, so the result does not depend on
    how the text is cut into pieces. Text at the end that may be the beginning of a stop string is held back.

    Attributes:
        found: whether a stop string has occurred; no more text is passed on.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """Watch for these texts, none of them empty."""
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Add text; return the text that certainly belongs to the answer, possibly empty."""
        if not self._stop:
            return text
        if self.found:
            return ""
        pending = self._held + text
        matches = [(start + len(stop), start) for stop in self._stop if (start := pending.find(stop)) >= 0]
        if matches:
            self.found, self._held = True, ""
            return pending[: min(matches)[1]]
        certain = len(pending) - max(self._beginning(pending, stop) for stop in self._stop)
        self._held = pending[certain:]
        return pending[:certain]

    def completed_by(self, text: str) -> bool:
        """Whether the held text followed by `text` contains a stop string."""
        pending = self._held + text
        return any(stop in pending for stop in self._stop)

    def flush(self) -> str:
        """The text held back at the end; empty after a stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """How many characters at the end of `text` are the beginning of `stop`."""
        longest = min(len(text), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class TextStops:
    """Turns the tokens of one row into text, up to the first stop string.

    The stop string ends the text at the token that completes it, even where a further token could have changed the
    decoded text. A character that may be unfinished is ignored.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        """Watch the decoded text for these texts, none of them empty."""
        self._detokenizer, self._stop = IncrementalDetokenizer(tokenizer), StopStrings(stop)
        self._watches = bool(stop)

    @property
    def found(self) -> bool:
        """Whether a stop string has occurred."""
        return self._stop.found

    def push(self, token: int) -> str:
        """Add a token; return the text that now certainly belongs to the answer, possibly empty."""
        text = self._stop.push(self._detokenizer.push(token))
        if self._watches and not self.found and self._stop.completed_by(_finished(self._detokenizer.held)):
            text += self.flush()
        return text

    def flush(self) -> str:
        """The rest of the text, at the end."""
        return self._stop.push(self._detokenizer.flush()) + self._stop.flush()

    def __call__(self, token: int) -> bool:
        """Add a token; returns whether a stop string has occurred."""
        self.push(token)
        return self.found


def _finished(text: str) -> str:
    return text.rstrip("\N{REPLACEMENT CHARACTER}")
