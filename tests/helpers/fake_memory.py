"""The memory of a decoder that is a few lines of arithmetic: it reads a text's tokens from the keys that it wrote.

So a step that loses, repeats or mixes up tokens, rows or sources gets other logits.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.graphs.buffers.host import HostBuffers
from triform.runtime.likeliest import likeliest_of

VOCABULARY, WIDTH = 11, 2
CACHE = CacheInfo("float32", [LayerCacheInfo(1, 1)])


def logits_of(ids, source=0):
    """float32 (VOCABULARY,) after these tokens."""
    return np.random.default_rng([source, *map(int, ids)]).normal(size=VOCABULARY).astype(np.float32)


def states_of(ids):
    """The hidden state of the last of these tokens: how many there are, and their sum."""
    return np.array([len(ids), sum(map(int, ids))], np.float32)


def manifest_of(max_length):
    hidden = SimpleNamespace(name="last_hidden_state", shape=["batch", "sequence", WIDTH])
    graph = SimpleNamespace(outputs=[hidden])
    return SimpleNamespace(vocab_size=VOCABULARY, max_length=max_length, graphs={"decoder": graph})


class FakeMemory:
    """A `DecoderMemory`.

    Attributes:
        ran: of each run, the numbers of rows and of tokens in a row.
        session: has the numbers of the sources that are decoded, if there are any.
    """

    copied_bytes = None
    chunk = 4

    def __init__(self, session=None, together=0):
        self.session, self.together, self.ran = session, together, []

    def buffers(self):
        return HostBuffers(CACHE)

    def on(self, session):
        other = FakeMemory(session, self.together)
        other.ran = self.ran
        return other

    def step(self, shape, num_logits, *, repeated=False):
        return _Arrays(self, shape, num_logits)


class _Arrays:
    def __init__(self, memory, shape, num_logits):
        batch, sequence = shape
        self._memory = memory
        self.input_ids = np.zeros(shape, np.int64)
        self.past_lengths = np.zeros(batch, np.int32)
        self.logits_positions = np.zeros((batch, num_logits), np.int64)
        self.new_lengths = np.full(batch, sequence, np.int32)
        self.logits = np.full((batch, num_logits, VOCABULARY), np.nan, np.float32)
        self.outputs = {}

    def add_output(self, name, shape):
        self.outputs[name] = np.full(shape, np.nan, np.float32)

    def bind_state(self, past, present, value):
        if past.endswith("0.key"):
            self._keys = value

    def run(self, session):
        batch, _ = self.input_ids.shape
        self._memory.ran.append(self.input_ids.shape)
        assert self._keys.shape[0] == batch
        for row in range(batch):
            past, new = int(self.past_lengths[row]), int(self.new_lengths[row])
            self._keys[row, 0, past : past + new, 0] = self.input_ids[row, :new]
            text = self._keys[row, 0, : past + new, 0].astype(int).tolist()
            sources = getattr(session, "sources", [0])
            source = sources[row * len(sources) // batch]
            for place, position in enumerate(self.logits_positions[row].tolist()):
                assert 0 <= position < new
                self.logits[row, place] = logits_of(text[: past + position + 1], source)
            for array in self.outputs.values():
                for position in range(new):
                    array[row, position] = states_of(text[: past + position + 1])

    def scores(self, wanted):
        if wanted is None:
            return self.logits
        return [likeliest_of(row.argmax(-1)) for row in self.logits]
