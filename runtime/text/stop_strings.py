"""Stop strings in text that arrives in pieces: found across pieces, and never shown, not even their beginning."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.text.detokenizer import IncrementalDetokenizer
from triform.runtime.text.tokenizer import Tokenizer


class StopStrings:
    """Passes text on up to the first stop string.

    The first is the one that is complete first, as if the text came letter by letter, and of several that end together
    the longest. So the result does not depend on how the text is cut into pieces. Text at the end that could be the
    beginning of a stop string is held back.

    Attributes:
        found: whether a stop string has come; nothing is passed on any more.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """Watch for these texts, none of them empty."""
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Add text; return what is certain to belong to the answer, possibly nothing."""
        if not self._stop:
            return text
        if self.found:
            return ""
        known = self._held + text
        matches = [(start + len(stop), start) for stop in self._stop if (start := known.find(stop)) >= 0]
        if matches:
            self.found, self._held = True, ""
            return known[: min(matches)[1]]
        certain = len(known) - max(self._beginning(known, stop) for stop in self._stop)
        self._held = known[certain:]
        return known[:certain]

    def completed_by(self, text: str) -> bool:
        """Whether a stop string would be complete if this text came, and was all."""
        known = self._held + text
        return any(stop in known for stop in self._stop)

    def flush(self) -> str:
        """What is held back at the end of the text; nothing after a stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """How many letters at the end of `text` are the beginning of `stop`."""
        longest = min(len(text), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class TextStops:
    """Turns the tokens of one row into text, up to the first stop string.

    It is found at the token that completes it: after the fewest tokens whose text as a whole contains it, even where
    another token could have changed that text. What could be an unfinished character is not looked at.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        """Watch the text that a tokenizer makes of the tokens for these, none of them empty."""
        self._detokenizer, self._stop = IncrementalDetokenizer(tokenizer), StopStrings(stop)
        self._watches = bool(stop)

    @property
    def found(self) -> bool:
        """Whether a stop string has come."""
        return self._stop.found

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain to belong to the answer, possibly empty."""
        text = self._stop.push(self._detokenizer.push(token))
        if self._watches and not self.found and self._stop.completed_by(_finished(self._detokenizer.held)):
            text += self.flush()
        return text

    def flush(self) -> str:
        """What is left at the end."""
        return self._stop.push(self._detokenizer.flush()) + self._stop.flush()

    def __call__(self, token: int) -> bool:
        """Add a token; whether a stop string has come."""
        self.push(token)
        return self.found


def _finished(text: str) -> str:
    return text.rstrip("\N{REPLACEMENT CHARACTER}")
