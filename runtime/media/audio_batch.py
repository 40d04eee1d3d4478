"""Runs an encoder graph over rows of audio features of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.manifest import GraphInfo
from triform.runtime.errors import BundleError
from triform.runtime.graphs.encoder_output import run_encoder
from triform.runtime.graphs.protocols import GraphSession
from triform.runtime.media.audio_features import pad_features

# What models call the input that is 1 at audio and 0 at padding.
_MASKS = ("attention_mask", "padding_mask")


class AudioStep:
    """Drives one session of an encoder of audio. It handles arrays only: no samples, no text."""

    def __init__(self, session: GraphSession, graph: GraphInfo, padding_value: float) -> None:
        """Keep a session.

        Args:
            session: of the encoder graph.
            graph: its entry in the manifest.
            padding_value: fills shorter rows.

        Raises:
            BundleError: the graph does not take audio.
        """
        self._session = session
        self._padding_value = padding_value
        self._names = [info.name for info in graph.inputs]
        sounds = [name for name in self._names if name not in _MASKS]
        if len(sounds) != 1:
            raise BundleError(f"the encoder takes {', '.join(self._names)}, not audio; export the model again")
        self._sound = sounds[0]
        self._masked = len(self._names) > 1

    def logits(self, rows: Sequence[Array]) -> list[Array]:
        """Run rows as one batch, or rows of one length together where the graph takes no mask.

        Args:
            rows: float32 (length, …) each, at least one.

        Returns:
            the row of ``logits`` of each, which has more frames than the row's own where the batch is padded.

        Raises:
            TriformError: onnxruntime failed.
        """
        if self._masked:
            return list(self._run(rows))
        results: list[Array] = [np.zeros(0, np.float32)] * len(rows)
        for length in {len(row) for row in rows}:
            chosen = [index for index, row in enumerate(rows) if len(row) == length]
            for index, result in zip(chosen, self._run([rows[index] for index in chosen]), strict=True):
                results[index] = result
        return results

    def _run(self, rows: Sequence[Array]) -> Array:
        batch, mask = pad_features(rows, self._padding_value)
        arrays: dict[str, NDArray[Any]] = {self._sound: batch, **dict.fromkeys(_MASKS, mask)}
        (logits,) = run_encoder(self._session, self._names, ["logits"], arrays)
        return logits
