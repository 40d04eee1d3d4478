"""Running the two graphs of an encoder-decoder, for measuring them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from triform.export.run_graph import GraphRunner
from triform.export.verify_encoder import Array, EncoderRunner
from triform.runtime.manifest import LayerCacheInfo


class PairRunner:
    """The graphs of one folder. What verifies a graph does not share the runtime's code."""

    def __init__(self, encoder: Path, decoder: Path, layers: list[LayerCacheInfo], threads: int) -> None:
        self.encoder = EncoderRunner(encoder, threads)
        self.decoder = GraphRunner(decoder, layers, threads)

    def read(self, arrays: Mapping[str, Array]) -> GraphRunner:
        """The decoder, about to answer to what `arrays` are: one source, or several of one batch."""
        found = self.encoder.run(arrays)
        self.decoder.given = {name: value for name, value in found.items() if not name.startswith("activation.")}
        return self.decoder


def answer(decoder: GraphRunner, start: int, count: int) -> list[int]:
    """The first tokens of the likeliest answer, the one decoding starts with included; goes on past its end."""
    decoder.start(1, count)
    ids = [start]
    while len(ids) < count:
        logits, _ = decoder.feed(np.array([ids[-1:]]), np.zeros((1, 1)))
        ids.append(int(logits[0, 0].argmax()))
    return ids
