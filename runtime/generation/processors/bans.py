"""Processors that ban tokens, force them, or add a fixed bias to their logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from triform.runtime.generation.processors.contract import NEVER, Processor, ban, only
from triform.runtime.generation.steps import Ids, Logits


def sequence_bias(biases: Mapping[tuple[int, ...], float]) -> Processor:
    """Bias the last token of each sequence when the row ends with the tokens before it.

    A sequence of one token is always biased, as by OpenAI's logit_bias. transformers: SequenceBiasLogitsProcessor.

    Args:
        biases: the bias of each sequence of at least one token id.
    """
    singles = [sequence[0] for sequence in biases if len(sequence) == 1]
    values = np.array([bias for sequence, bias in biases.items() if len(sequence) == 1], np.float32)
    longer = [(list(sequence[:-1]), sequence[-1], bias) for sequence, bias in biases.items() if len(sequence) > 1]

    def process(ids: Ids, logits: Logits) -> Logits:
        due = [(last, bias) for before, last, bias in longer if _ends_with(ids, before)]
        if not singles and not due:
            return logits
        result = logits.copy()
        result[singles] += values
        for last, bias in due:
            result[last] += np.float32(bias)
        return result

    return process


def _ends_with(ids: Ids, tokens: list[int]) -> bool:
    # Usually comparing the last token is enough, which makes no list.
    return len(ids) >= len(tokens) and ids[-1] == tokens[-1] and ids[-len(tokens) :].tolist() == tokens


def bad_words(sequences: Collection[Sequence[int]], eos: Collection[int]) -> Processor:
    """Never complete any of these token sequences. transformers: NoBadWordsLogitsProcessor.

    Args:
        sequences: token ids, at least one each.
        eos: ids that end the row; a sequence of one of them alone is ignored, since a generation must be able to end.
    """
    words = (tuple(sequence) for sequence in sequences)
    return sequence_bias({word: float(NEVER) for word in words if len(word) > 1 or word[0] not in eos})


def suppress(tokens: Collection[int]) -> Processor:
    """Never generate these tokens. transformers: SuppressTokensLogitsProcessor."""
    listed = list(tokens)
    return lambda ids, logits: ban(logits, listed)


def suppress_at_begin(tokens: Collection[int], begin: int) -> Processor:
    """Do not start with these tokens. transformers: SuppressTokensAtBeginLogitsProcessor.

    Args:
        tokens: ids.
        begin: length of the row when its first unforced token is chosen.
    """
    listed = list(tokens)
    return lambda ids, logits: ban(logits, listed) if len(ids) == begin else logits


def min_length(length: int, eos: Collection[int]) -> Processor:
    """Do not end before the row has `length` ids, its prompt included.

    transformers: MinLengthLogitsProcessor; with the prompt's length added, MinNewTokensLengthLogitsProcessor.
    """
    listed = list(eos)
    return lambda ids, logits: ban(logits, listed) if len(ids) < length else logits


def forced_bos(token: int) -> Processor:
    """Force `token` as the second of the row. transformers: ForcedBOSTokenLogitsProcessor."""
    return forced_tokens({1: token})


def forced_eos(tokens: Collection[int], length: int) -> Processor:
    """Force one of `tokens` as the last of `length` ids. transformers: ForcedEOSTokenLogitsProcessor."""
    listed = list(tokens)
    return lambda ids, logits: only(logits, listed) if len(ids) == length - 1 else logits


def forced_tokens(tokens: Mapping[int, int]) -> Processor:
    """Force tokens at some positions of the row, as transformers' ForceTokensLogitsProcessor did for Whisper's prompt.

    Args:
        tokens: by position in the row, counted from 0.
    """
    by_position = dict(tokens)

    def process(ids: Ids, logits: Logits) -> Logits:
        token = by_position.get(len(ids))
        return logits if token is None else only(logits, token)

    return process
