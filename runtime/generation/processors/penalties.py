"""Processors that penalize repetition, or favor the end of the sequence."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from triform.runtime.generation.processors.contract import Processor, ban
from triform.runtime.generation.steps import Ids, Logits

# DRY looks no further back than this: longer repetitions are penalized like one of this length.
_LONGEST_MATCH = 50
# Larger than any logit, and far from overflowing float32.
_LARGEST = 1e30


def repetition_penalty(penalty: float) -> Processor:
    """Divide positive logits of tokens seen so far, and multiply negative ones (CTRL, https://arxiv.org/abs/1909.05858).

    transformers: RepetitionPenaltyLogitsProcessor.

    Args:
        penalty: above 0; above 1 discourages, below 1 encourages.
    """
    return lambda ids, logits: _scaled(ids, logits, penalty)


def encoder_repetition_penalty(penalty: float, encoder_ids: Ids) -> Processor:
    """Encourage the tokens of an encoder's input. transformers: EncoderRepetitionPenaltyLogitsProcessor.

    Args:
        penalty: above 0; above 1 encourages.
        encoder_ids: int64 (length,).
    """
    tokens = np.unique(encoder_ids)
    return lambda ids, logits: _scaled(tokens, logits, 1 / penalty)


def _scaled(tokens: Ids, logits: Logits, penalty: float) -> Logits:
    # An embedding table may be longer than the head; the tokens beyond it have no logit.
    tokens = tokens[tokens < len(logits)]
    if not len(tokens):
        return logits
    values = logits[tokens]
    result = logits.copy()
    result[tokens] = np.where(values < 0, values * penalty, values / penalty)
    return result


def frequency_penalty(penalty: float, prompt_length: int) -> Processor:
    """Subtract `penalty` once for each time a token was generated, as OpenAI's parameter of that name does.

    Args:
        penalty: positive discourages, negative encourages.
        prompt_length: number of prompt ids, which do not count.
    """

    def process(ids: Ids, logits: Logits) -> Logits:
        if len(ids) <= prompt_length:
            return logits
        tokens, counts = np.unique(ids[prompt_length:], return_counts=True)
        result = logits.copy()
        result[tokens] -= penalty * counts.astype(np.float32)
        return result

    return process


def presence_penalty(penalty: float, prompt_length: int) -> Processor:
    """Subtract `penalty` from every token generated before, as OpenAI's parameter of that name does.

    Args:
        penalty: positive discourages, negative encourages.
        prompt_length: number of prompt ids, which do not count.
    """

    def process(ids: Ids, logits: Logits) -> Logits:
        if len(ids) <= prompt_length:
            return logits
        tokens = ids[prompt_length:]
        result = logits.copy()
        # Assigned, not subtracted in place, so that a token that occurs twice is penalized once.
        result[tokens] = logits[tokens] - np.float32(penalty)
        return result

    return process


def no_repeat_ngram(size: int) -> Processor:
    """Ban every token that would repeat an n-gram of `size` tokens (https://arxiv.org/abs/1705.04304).

    transformers: NoRepeatNGramLogitsProcessor.
    """

    def process(ids: Ids, logits: Logits) -> Logits:
        return _without_followers(ids, ids, size, logits)

    return process


def encoder_no_repeat_ngram(size: int, encoder_ids: Ids) -> Processor:
    """Ban every token that would complete an n-gram of `size` tokens of the encoder's input.

    transformers: EncoderNoRepeatNGramLogitsProcessor.
    """

    def process(ids: Ids, logits: Logits) -> Logits:
        return _without_followers(encoder_ids, ids, size, logits)

    return process


def _without_followers(text: Ids, ids: Ids, size: int, logits: Logits) -> Logits:
    """Ban every token that follows the last `size - 1` of `ids` anywhere in `text`."""
    starts = len(text) - size + 1
    if starts < 1 or len(ids) < size - 1:
        return logits
    matches = np.ones(starts, bool)
    for offset in range(size - 1):
        matches &= text[offset : offset + starts] == ids[len(ids) - size + 1 + offset]
    followers = text[size - 1 :][matches]
    followers = followers[followers < len(logits)]
    return ban(logits, followers) if len(followers) else logits


def dry(multiplier: float, base: float, allowed_length: int, breakers: Collection[int]) -> Processor:
    """Penalize tokens that would repeat a sequence, longer ones more (DRY, "don't repeat yourself").

    A token that followed an earlier occurrence of the last n tokens loses ``multiplier * base ** (n - allowed_length)``
    for the largest such n, at most 50, if that is at least `allowed_length`. Breakers are neither penalized nor part of
    a match. Reference: p-e-w's description in text-generation-webui, pull request 5677.

    Args:
        multiplier: above 0.
        base: at least 1.
        allowed_length: repetitions shorter than this are not penalized; at least 1.
        breakers: token ids that end a sequence, such as line breaks and quotation marks.
    """
    breaking = frozenset(breakers)

    def process(ids: Ids, logits: Logits) -> Logits:
        lengths = _longest_matches(ids, breaking)
        tokens = [token for token, length in lengths.items() if length >= allowed_length and token < len(logits)]
        if not tokens:
            return logits
        # An exponent of at most 49 keeps even large bases within float64.
        penalties = [min(multiplier * base ** (lengths[token] - allowed_length), _LARGEST) for token in tokens]
        result = logits.copy()
        result[tokens] -= np.array(penalties, np.float32)
        return result

    return process


def _longest_matches(ids: Ids, breakers: frozenset[int]) -> dict[int, int]:
    """For each token that followed an earlier occurrence of the end of `ids`, the length of the longest such match."""
    if not len(ids) or int(ids[-1]) in breakers:
        return {}
    # Positions before the last at which a match of the current length ends.
    ends = np.flatnonzero(ids[:-1] == ids[-1])
    lengths: dict[int, int] = {}
    length = 1
    while len(ends):
        lengths.update(dict.fromkeys(ids[ends + 1].tolist(), length))
        if length == _LONGEST_MATCH or length == len(ids) or int(ids[-1 - length]) in breakers:
            break
        ends = ends[ends >= length]
        ends = ends[ids[ends - length] == ids[-1 - length]]
        length += 1
    return {token: length for token, length in lengths.items() if token not in breakers}


def exponential_decay_length_penalty(start: int, factor: float, eos: Collection[int], prompt_length: int) -> Processor:
    """Raise the end-of-sequence logits by ``abs(logit) * (factor ** n - 1)``, n tokens after `start` generated ones.

    transformers: ExponentialDecayLengthPenalty.
    """
    tokens, free = list(eos), start + prompt_length

    def process(ids: Ids, logits: Logits) -> Logits:
        over = len(ids) - free
        if over <= 0 or not tokens:
            return logits
        values = logits[tokens].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            raised = np.clip(values + np.abs(values) * (np.float64(factor) ** over - 1), -_LARGEST, _LARGEST)
        result = logits.copy()
        result[tokens] = np.where(np.isfinite(values), raised, values)
        return result

    return process
