"""Contrastive search (https://arxiv.org/abs/2202.06417): likely tokens that do not resemble the text before them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import log_sum_exp, unit
from triform.runtime.generation.processors.contract import Processor
from triform.runtime.generation.sampling import greedy, process
from triform.runtime.generation.steps import BranchingStep, Ids, Logits
from triform.runtime.likeliest import Scores, all_logits


class ContrastiveSearch:
    """A `Step` for `plain_loop`, and its `Sampler`, `choose`: choosing a token runs the model.

    Chooses, of the `top_k` most likely tokens, the one that maximizes (1 - penalty_alpha) * probability -
    penalty_alpha * the largest cosine similarity of its last hidden state to that of any token before it, the prompt's
    included.
    """

    def __init__(
        self, step: BranchingStep, processors: Sequence[Processor], *, top_k: int, penalty_alpha: float, room: int
    ) -> None:
        """Keep the model and the settings.

        Args:
            step: the model.
            processors: applied to the logits before the candidates are selected.
            top_k: number of candidates per step.
            penalty_alpha: between 0 and 1.
            room: the most tokens that will be chosen.
        """
        self._step, self._processors = step, processors
        self._top_k, self._alpha, self._room = top_k, penalty_alpha, room
        self._logits = np.empty((0, 0), np.float32)
        # Directions of the hidden states so far, in one array for the whole generation, and how many there are.
        self._seen, self._length = np.empty((0, 0), np.float32), 0
        # The index of the candidate that was chosen last.
        self._row = 0

    def prefill(self, ids: Sequence[int]) -> Logits:
        """Start with a prompt of at least one token. Result and errors as `BranchingStep.prefill`."""
        logits, states = self._step.prefill(ids)
        self._seen = np.empty((len(ids) + self._room, states.shape[1]), np.float32)
        self._seen[: len(ids)] = unit(states)
        self._length, self._row = len(ids), 0
        return logits

    def choose(self, ids: Ids, scores: Scores) -> int:
        """The next token.

        Args:
            ids: the sequence so far.
            scores: logits after it, from `prefill` or `next`.

        Raises:
            InputError: every token is banned.
            TriformError: onnxruntime failed, or the logits are not numbers.
        """
        tokens, probabilities = likeliest(process(self._processors, ids, all_logits(scores)), self._top_k)
        self._logits, states = self._step.branch(tokens, self._row)
        directions = unit(states)
        resemblance = (directions @ self._seen[: self._length].T).max(-1)
        self._row = int(((1 - self._alpha) * probabilities - self._alpha * resemblance).argmax())
        self._seen[self._length] = directions[self._row]
        self._length += 1
        return int(tokens[self._row])

    def next(self, token: int) -> Logits:
        """The logits after the token that was chosen last, computed by `choose`."""
        # A copy: the next choice runs the model into the same buffer, and log-probabilities are read after it.
        logits: Logits = self._logits[self._row].copy()
        return logits


def likeliest(logits: Logits, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The tokens with the largest logits, the most likely first; fewer where others are banned.

    Args:
        logits: float32 (vocab_size,).
        count: at least 1.

    Returns:
        tokens, int64 (at most count,), and their probabilities over the whole vocabulary.

    Raises:
        BundleError: the logits hold NaN or an infinity.
        InputError: every token is banned.
    """
    # Only for the errors that it raises.
    greedy(logits)
    kept = np.argpartition(-logits, min(count, len(logits)) - 1)[:count]
    kept = kept[logits[kept] > -math.inf]
    tokens = kept[np.lexsort((kept, -logits[kept]))]
    return tokens, np.exp(logits[tokens] - log_sum_exp(logits)).astype(np.float32)
