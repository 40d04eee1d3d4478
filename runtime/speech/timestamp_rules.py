"""When Whisper may say a time, and when it must."""

from __future__ import annotations

import numpy as np

from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.generation.processors.contract import NEVER
from triform.runtime.generation.steps import Ids, Logits


class TimestampRules:
    """A processor that keeps times in order: transformers' WhisperTimeStampLogitsProcessor, openai/whisper's rules.

    Times come in pairs, one that ends a segment and one that begins the next, or one alone before the end. They never
    go back, and a segment lasts more than nothing. The first token is a time, and not a late one. Where the times
    together are likelier than any other token, one of them is said. Stateless.
    """

    def __init__(self, info: SpeechInfo, begin: int, eos: int) -> None:
        """Make the rules of one window.

        Args:
            info: the tokens of times.
            begin: length of the row when its first free token is chosen.
            eos: the token that ends a row; everything before it in the vocabulary is text.
        """
        self._first = info.timestamp_begin
        self._never = info.no_timestamps
        self._latest = info.max_initial_timestamp_index
        self._begin = begin
        self._eos = eos

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """Logits with minus infinity for what the rules forbid."""
        said = ids[self._begin :]
        result = logits.copy()
        result[self._never] = NEVER
        if not len(said):
            self._begin_with_time(result)
        else:
            self._keep_order(result, said)
        if _times_are_likelier(result, self._first):
            result[: self._first] = NEVER
        return result

    def _begin_with_time(self, result: Logits) -> None:
        result[: self._first] = NEVER
        if self._latest is not None:
            result[self._first + self._latest + 1 :] = NEVER

    def _keep_order(self, result: Logits, said: Ids) -> None:
        after_time = said[-1] >= self._first
        after_pair = after_time and (len(said) < 2 or said[-2] >= self._first)
        if after_pair:
            result[self._first :] = NEVER
        elif after_time:
            result[: self._eos] = NEVER
        times = said[said >= self._first]
        if len(times):
            # Where a segment ends the next one may begin; otherwise time has gone on.
            earliest = int(times[-1]) + (after_pair or not after_time)
            result[self._first : earliest] = NEVER


def _times_are_likelier(logits: Logits, first: int) -> bool:
    """Whether the times' probabilities sum to more than the likeliest other token has."""
    times = logits[first:]
    most = times.max(initial=NEVER)
    if most == NEVER:
        return False
    together = most + np.log(np.exp(times - most).sum())
    return bool(together > logits[:first].max(initial=NEVER))
