"""What a graph for CTC writes, and how far two transcripts are apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from triform.runtime.speech.ctc.decoding import GreedyDecoder


def written(logits: NDArray[Any], blank: int) -> list[int]:
    """The tokens that are likeliest frame by frame.

    Args:
        logits: float (frames, vocab_size).
        blank: the token that stands for none.
    """
    decoder = GreedyDecoder(blank)
    return [item.token for item in [*decoder.feed(logits), *decoder.finish()]]


def token_errors(transcripts: Iterable[tuple[Sequence[object], Sequence[object]]]) -> float:
    """Tokens, or words, to insert, delete or replace (Levenshtein 1966), per one of the expected transcripts.

    Args:
        transcripts: expected and actual ones.

    Returns:
        of all together; the number of edits where nothing is expected.
    """
    pairs = list(transcripts)
    return sum(_edits(*pair) for pair in pairs) / max(1, sum(len(expected) for expected, _ in pairs))


def _edits(expected: Sequence[object], actual: Sequence[object]) -> int:
    row = list(range(len(actual) + 1))
    for first, token in enumerate(expected, 1):
        diagonal, row[0] = row[0], first
        for place, other in enumerate(actual, 1):
            best = min(row[place] + 1, row[place - 1] + 1, diagonal + (token != other))
            diagonal, row[place] = row[place], best
    return row[-1]
