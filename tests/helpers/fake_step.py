"""A model that is a few lines of arithmetic: logits are a function of the ids, whatever the batch."""

from __future__ import annotations

import numpy as np


class FakeStep:
    """An `OpenBatchStep` that keeps whole rows of ids and remembers how many there were."""

    def __init__(self, vocab_size, seed=0, spread=2.0):
        self.vocab_size, self.seed, self.spread = vocab_size, seed, spread
        self.rows, self.sizes = [], []

    def logits(self, ids):
        generator = np.random.default_rng([self.seed, *(int(token) for token in ids)])
        return (self.spread * generator.normal(size=self.vocab_size)).astype(np.float32)

    def log_probabilities(self, ids):
        logits = self.logits(ids).astype(np.float64)
        return logits - np.log(np.exp(logits).sum())

    def prefill(self, rows):
        self.rows = [tuple(row) for row in rows]
        return self._run()

    def select(self, parents):
        self.rows = [self.rows[parent] for parent in parents]

    def join(self, rows):
        self.rows += map(tuple, rows)
        return np.stack([self.logits(ids) for ids in rows])

    def next(self, tokens, parents):
        self.select(parents)
        self.rows = [(*row, token) for row, token in zip(self.rows, tokens, strict=True)]
        return self._run()

    def _run(self):
        self.sizes.append(len(self.rows))
        return np.stack([self.logits(row) for row in self.rows])
