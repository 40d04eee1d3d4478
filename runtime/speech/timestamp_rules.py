"""Restricts where Whisper may predict a timestamp, and where it must."""

from __future__ import annotations

import numpy as np

from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.generation.processors.contract import NEVER
from triform.runtime.generation.steps import Ids, Logits


class TimestampRules:
    """A processor that keeps timestamps in order, as transformers' WhisperTimeStampLogitsProcessor does.

    Timestamps come in pairs, one that ends a segment and one that begins the next, or singly before the end. They never
    decrease, and no segment is empty. The first token is a timestamp, up to a maximum. If all timestamps together are
    more likely than any other token, one of them is chosen. Stateless.
    """

    def __init__(self, info: SpeechInfo, begin: int, eos: int) -> None:
        """Make the rules for one window.

        Args:
            info: the timestamp tokens.
            begin: length of the prompt.
            eos: the end-of-text token; everything before it in the vocabulary is text.
        """
        self._first = info.timestamp_begin
        self._never = info.no_timestamps
        self._latest = info.max_initial_timestamp_index
        self._begin = begin
        self._eos = eos

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """Return logits with minus infinity for the tokens that the rules forbid."""
        generated = ids[self._begin :]
        result = logits.copy()
        result[self._never] = NEVER
        if not len(generated):
            self._begin_with_time(result)
        else:
            self._keep_order(result, generated)
        if _times_are_likelier(result, self._first):
            result[: self._first] = NEVER
        return result

    def _begin_with_time(self, result: Logits) -> None:
        result[: self._first] = NEVER
        if self._latest is not None:
            result[self._first + self._latest + 1 :] = NEVER

    def _keep_order(self, result: Logits, generated: Ids) -> None:
        after_time = generated[-1] >= self._first
        after_pair = after_time and (len(generated) < 2 or generated[-2] >= self._first)
        if after_pair:
            result[self._first :] = NEVER
        elif after_time:
            result[: self._eos] = NEVER
        times = generated[generated >= self._first]
        if len(times):
            # A segment may begin at the time that the previous one ends; every other timestamp is later.
            earliest = int(times[-1]) + (after_pair or not after_time)
            result[self._first : earliest] = NEVER


def _times_are_likelier(logits: Logits, first: int) -> bool:
    """Whether all timestamps together are more likely than the most likely other token."""
    times = logits[first:]
    maximum = times.max(initial=NEVER)
    if maximum == NEVER:
        return False
    total = maximum + np.log(np.exp(times - maximum).sum())
    return bool(total > logits[:first].max(initial=NEVER))
