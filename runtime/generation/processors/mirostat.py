"""Mirostat 2: a truncation that keeps the surprise of the tokens near a target (https://arxiv.org/abs/2007.14966)."""

from __future__ import annotations

import math

import numpy as np

from triform.runtime.generation.processors.contract import NEVER
from triform.runtime.generation.processors.ranking import at_least
from triform.runtime.generation.processors.truncation import weights_of
from triform.runtime.generation.steps import Ids, Logits


class Mirostat:
    """Keeps tokens whose surprise is at most mu, and adjusts mu by the surprise of the token that is then sampled.

    A processor with state, for one row: the ids of the next call tell it which token was sampled. It must be the last
    step, since it uses the probabilities that it returned. transformers has no such step.
    """

    def __init__(self, tau: float, eta: float) -> None:
        """Start with mu at twice the target.

        Args:
            tau: the target surprise, in bits per token, above 0.
            eta: the learning rate, above 0.
        """
        self._tau, self._eta = tau, eta
        self.mu = 2 * tau
        self._length = -1
        self._logits: Logits | None = None
        self._log_total = 0.0

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """Logits with minus infinity for tokens whose surprise is above mu; the most likely one is always kept."""
        most = float(logits.max())
        if not math.isfinite(most):
            return logits
        if self._logits is not None and len(ids) == self._length + 1:
            surprise = (self._log_total - float(self._logits[ids[-1]])) / math.log(2)
            if math.isfinite(surprise):
                self.mu -= self._eta * (surprise - self._tau)
        log_total = most + math.log(float(weights_of(logits).sum()))
        kept = at_least(logits, min(log_total - self.mu * math.log(2), most))
        result = np.full_like(logits, NEVER)
        result[kept] = logits[kept]
        self._length, self._logits = len(ids), result
        self._log_total = most + math.log(float(np.exp(logits[kept].astype(np.float64) - most).sum()))
        return result
