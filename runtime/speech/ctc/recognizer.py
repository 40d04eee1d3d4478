"""Opens a bundle of a model for CTC and runs its graph: from samples to log-probabilities of tokens in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from triform.runtime.arithmetic import Array, log_softmax
from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import EncoderInfo, Manifest
from triform.runtime.bundle.media_info import AudioInfo, CtcInfo
from triform.runtime.errors import BundleError
from triform.runtime.graphs.session import SessionOptions, open_session
from triform.runtime.media.audio_batch import AudioStep
from triform.runtime.media.audio_features import audio_features
from triform.runtime.media.sound_files import Samples
from triform.runtime.speech.ctc.words import Pieces
from triform.runtime.text.tokenizer import bundle_tokenizer


class CtcRecognizer:
    """A loaded bundle of a model for CTC. Several threads may use it at once.

    Attributes:
        providers: the execution providers in use, the first choice first.
        info: the manifest's encoder part.
        audio: how audio becomes the model's input.
        ctc: what the frames of logits mean.
        pieces: the texts of tokens.
    """

    def __init__(self, bundle: Bundle, **session_options: Unpack[SessionOptions]) -> None:
        """Open the bundle's graph and tokenizer.

        Args:
            bundle: from `open_bundle`.
            session_options: see `SessionOptions`.

        Raises:
            BundleError: a file is damaged, or the bundle is for another task.
            ProviderError: the named provider cannot be used.
        """
        info = bundle.manifest.encoder
        if info is None or info.audio is None or info.ctc is None:
            raise BundleError(f"{bundle.folder} does not say how its logits become text; export the model again")
        self._bundle = bundle
        self.info: EncoderInfo = info
        self.audio: AudioInfo = info.audio
        self.ctc: CtcInfo = info.ctc
        self.pieces = Pieces(bundle_tokenizer(bundle), bundle.manifest.vocab_size)
        path, graph = bundle.graph("encoder")
        session = open_session(path, **session_options)
        self.providers: list[str] = session.get_providers()
        self._step = AudioStep(session, graph, info.audio.padding_value)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def frame_step(self) -> int:
        """Samples from one frame of logits to the next."""
        return self.ctc.stride * self.audio.step

    def log_probs(self, rows: Sequence[Samples]) -> list[Array]:
        """Log-probabilities of tokens in each frame, float32 (frames, vocab_size) for each row.

        Args:
            rows: float32 (samples) each. One that is too short for a frame has none.

        Raises:
            BundleError: the model's outputs are not finite.
            TriformError: onnxruntime failed.
        """
        features = [audio_features(row, self.audio) if len(row) else np.zeros(0, np.float32) for row in rows]
        heard = [index for index, row in enumerate(features) if len(row) >= self.info.min_length]
        results = [np.zeros((0, self.manifest.vocab_size), np.float32)] * len(rows)
        if heard:
            for index, logits in zip(heard, self._step.logits([features[index] for index in heard]), strict=True):
                count = max(0, (len(features[index]) + self.ctc.offset) // self.ctc.stride)
                results[index] = log_softmax(logits[:count])
        return results
