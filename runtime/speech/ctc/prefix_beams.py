"""Decodes frames of log-probabilities by prefix beam search.

Source: Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs"
(2014), algorithm 1, without a language model. The probability of a text is the sum over all paths through the frames
that give it; a beam keeps apart the paths that end in a blank, because only those may be followed by the last token
again. The times of a text's tokens are those of its most likely path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from triform.runtime.arithmetic import Array
from triform.runtime.speech.ctc.decoding import FramedToken

_NEVER = -math.inf
# Frames after which tokens that all beams share are given away, which keeps beams short.
_SETTLED_EVERY = 64

Prefix = tuple[int, ...]
Path = tuple[FramedToken, ...]


@dataclass(slots=True)
class _Paths:
    """The paths that give one text and end in the same way.

    Attributes:
        total: logarithm of the sum of their probabilities.
        best: of the most likely one.
        tokens: of the most likely one.
    """

    total: float = _NEVER
    best: float = _NEVER
    tokens: Path = ()

    def add(self, total: float, best: float, tokens: Path) -> None:
        """Add paths, of which `tokens` is the most likely."""
        self.total = _log_sum(self.total, total)
        if best > self.best:
            self.best, self.tokens = best, tokens


@dataclass(slots=True)
class _Beam:
    """The paths of one text, by whether they end in a blank or in its last token."""

    blank: _Paths
    token: _Paths

    @property
    def total(self) -> float:
        return _log_sum(self.blank.total, self.token.total)

    @property
    def likeliest(self) -> _Paths:
        return self.blank if self.blank.best >= self.token.best else self.token


class PrefixBeamDecoder:
    """Keeps the `num_beams` most likely texts; see `CtcDecoder`."""

    def __init__(self, blank: int, num_beams: int) -> None:
        self._blank = blank
        self._num_beams = num_beams
        self._frame = 0
        self._beams: dict[Prefix, _Beam] = {(): _Beam(_Paths(0.0, 0.0), _Paths())}

    def feed(self, log_probs: Array) -> list[FramedToken]:
        """See `CtcDecoder`."""
        tokens: list[FramedToken] = []
        for row in log_probs:
            self._beams = self._next(row)
            self._frame += 1
            if self._frame % _SETTLED_EVERY == 0:
                tokens += self._settle()
        return tokens

    def finish(self) -> list[FramedToken]:
        """See `CtcDecoder`."""
        best = max(self._beams.values(), key=lambda beam: beam.total)
        self._beams = {(): _Beam(_Paths(0.0, 0.0), _Paths())}
        return list(best.likeliest.tokens)

    def _next(self, row: Array) -> dict[Prefix, _Beam]:
        """The beams after one more frame, the most likely first."""
        candidates: dict[Prefix, _Beam] = {}
        # More new tokens than beams cannot win: each is less likely than as many others after the same text.
        count = min(self._num_beams + 2, len(row))
        likely = np.argpartition(-row, count - 1)[:count].tolist()
        for prefix, beam in self._beams.items():
            whole = beam.likeliest
            own = _at(candidates, prefix)
            own.blank.add(beam.total + float(row[self._blank]), whole.best + float(row[self._blank]), whole.tokens)
            last = prefix[-1] if prefix else None
            if last is not None:
                self._repeat(own, beam, float(row[last]))
            for token in {*likely, *self._children(prefix)} - {self._blank}:
                self._extend(candidates, prefix, beam, token, float(row[token]), again=token == last)
        best = sorted(candidates.items(), key=lambda item: -item[1].total)
        return dict(best[: self._num_beams])

    def _children(self, prefix: Prefix) -> Iterator[int]:
        """The tokens after a text in other beams, which gain from its paths however unlikely they are."""
        return (other[-1] for other in self._beams if other and other[:-1] == prefix)

    def _repeat(self, own: _Beam, beam: _Beam, logprob: float) -> None:
        """The last token goes on for one more frame."""
        paths = beam.token
        if paths.total > _NEVER:
            *before, last = paths.tokens
            longer = last._replace(end=self._frame + 1, logprob=max(last.logprob, logprob))
            own.token.add(paths.total + logprob, paths.best + logprob, (*before, longer))

    def _extend(
        self, candidates: dict[Prefix, _Beam], prefix: Prefix, beam: _Beam, token: int, logprob: float, *, again: bool
    ) -> None:
        """A token follows the text; the same token `again` needs a blank before it."""
        total = beam.blank.total if again else beam.total
        paths = beam.blank if again else beam.likeliest
        if total > _NEVER:
            new = FramedToken(token, self._frame, self._frame + 1, logprob)
            _at(candidates, (*prefix, token)).token.add(total + logprob, paths.best + logprob, (*paths.tokens, new))

    def _settle(self) -> list[FramedToken]:
        """Take away the tokens that all beams begin with, but the last one, which the next frame may still repeat."""
        prefixes = list(self._beams)
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*prefixes, strict=False))) - 1
        if shared < 1:
            return []
        best = next(iter(self._beams.values())).likeliest.tokens[:shared]
        self._beams = {prefix[shared:]: _without(beam, shared) for prefix, beam in self._beams.items()}
        return list(best)


def _at(candidates: dict[Prefix, _Beam], prefix: Prefix) -> _Beam:
    beam = candidates.get(prefix)
    if beam is None:
        beam = candidates[prefix] = _Beam(_Paths(), _Paths())
    return beam


def _without(beam: _Beam, count: int) -> _Beam:
    """A beam without the first tokens of its paths."""
    for paths in (beam.blank, beam.token):
        paths.tokens = paths.tokens[count:]
    return beam


def _log_sum(first: float, second: float) -> float:
    """The logarithm of the sum of two numbers, of their logarithms."""
    high, low = max(first, second), min(first, second)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))
