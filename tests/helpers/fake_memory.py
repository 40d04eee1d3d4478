"""The memory of a decoder that is a few lines of arithmetic: it reads a text's tokens from the keys that it wrote.

So a step that loses, repeats or mixes up tokens, rows or sources gets other logits.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo
from triform.runtime.graphs.buffers.host import HostBuffers
from triform.runtime.likeliest import likeliest_of

VOCABULARY, WIDTH = 11, 2
CACHE = CacheInfo("float32", [LayerCacheInfo(1, 1)])
# The whole text is in a state of fixed size: how many tokens there are, and these.
STATES = CacheInfo("float32", [], [StateInfo("recurrence", "float32", [64])])


def logits_of(ids, source=0):
    """float32 (VOCABULARY,) after these tokens."""
    return np.random.default_rng([source, *map(int, ids)]).normal(size=VOCABULARY).astype(np.float32)


def states_of(ids):
    """The hidden state of the last of these tokens: how many there are, and their sum."""
    return np.array([len(ids), sum(map(int, ids))], np.float32)


def attention_of(ids, heads, length):
    """What each head reads of each position of a source after these tokens."""
    return (sum(map(int, ids)) + np.arange(heads * length).reshape(heads, length)).astype(np.float32)


def manifest_of(max_length):
    hidden = SimpleNamespace(name="last_hidden_state", shape=["batch", "sequence", WIDTH])
    graph = SimpleNamespace(outputs=[hidden])
    return SimpleNamespace(vocab_size=VOCABULARY, max_length=max_length, graphs={"decoder": graph})


class FakeMemory:
    """A `DecoderMemory`.

    Attributes:
        ran: of each run, the numbers of rows and of tokens in a row.
        repeated: the numbers of rows and of tokens of steps that are to run again and again.
        session: has the numbers of the sources that are decoded, if there are any.
    """

    copied_bytes = None
    chunk = 4

    def __init__(self, session=None, together=0, cache=CACHE):
        self.session, self.together, self.cache, self.ran, self.repeated = session, together, cache, [], []

    def buffers(self):
        return HostBuffers(self.cache)

    def on(self, session):
        other = FakeMemory(session, self.together, self.cache)
        other.ran, other.repeated = self.ran, self.repeated
        return other

    def step(self, shape, num_logits, *, repeated=False):
        if repeated:
            self.repeated.append(tuple(shape))
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
        elif past == "past_states.0":
            self._states = value

    def run(self, session):
        batch, _ = self.input_ids.shape
        self._memory.ran.append(self.input_ids.shape)
        for row in range(batch):
            past, new = int(self.past_lengths[row]), int(self.new_lengths[row])
            text = self._text(row, past, self.input_ids[row, :new])
            sources = getattr(session, "sources", [0])
            source = sources[row * len(sources) // batch]
            for place, position in enumerate(self.logits_positions[row].tolist()):
                assert 0 <= position < new
                self.logits[row, place] = logits_of(text[: past + position + 1], source)
            for array in self.outputs.values():
                for position in range(new):
                    if array.ndim == 4:
                        array[row, :, position] = attention_of(text[: past + position + 1], *array.shape[1::2])
                    else:
                        array[row, position] = states_of(text[: past + position + 1])

    def _text(self, row, past, new):
        """The tokens of a row with new ones, which are written to where it is kept."""
        kept = self._states if self._memory.cache is STATES else self._keys
        assert kept.shape[0] == len(self.input_ids)
        if kept.ndim == 2:
            assert kept[row, 0] == past
            kept[row, 0], kept[row, 1 + past : 1 + past + len(new)] = past + len(new), new
            return kept[row, 1 : 1 + past + len(new)].astype(int).tolist()
        kept[row, 0, past : past + len(new), 0] = new
        return kept[row, 0, : past + len(new), 0].astype(int).tolist()

    def scores(self, wanted):
        if wanted is None:
            return self.logits
        return [likeliest_of(row.argmax(-1)) for row in self.logits]
