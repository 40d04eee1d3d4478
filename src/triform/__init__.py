"""Triform: trained transformers as small ONNX bundles, run offline.

Everything that a program needs to run bundles is here, and is imported when it is first used: `import triform` itself
imports neither numpy nor onnxruntime. Making bundles from Python is `triform.export`'s.

    model = triform.load_decoder("my-bundle")
    print(model.generate("Why is the sky blue?").text)
"""

from __future__ import annotations

import os
from importlib import import_module

# From 1.32 on ONNX Runtime writes a number for the device into the user's cache and sends events to its maker, on Linux
# too, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What checks types takes it for True. The module `typing` takes longer to import than all that is done here, and until
# that is over the command line cannot answer Ctrl-C.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triform.runtime.batch.encoder_tasks import ClassifyTask, EmbedTask, TagTask
    from triform.runtime.batch.predictor import Predictor
    from triform.runtime.batch.text_tasks import RewriteTask, SummarizeTask, TranslateTask, Writing
    from triform.runtime.batch.writer_tasks import GenerateTask, TranscribeTask
    from triform.runtime.decoder.conversation import Conversation
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.decoder.scoring import Perplexity, TextScore
    from triform.runtime.encoder.answering import Answer
    from triform.runtime.encoder.fill_mask import Filling, Target
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.encoder.tagging import Tag
    from triform.runtime.encoder.vectors.quantization import quantize
    from triform.runtime.encoder.vectors.search_index import Document, Hit, SearchIndex
    from triform.runtime.encoder.vectors.token_vectors import TokenVectors
    from triform.runtime.encoder_decoder.ask import Ask
    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.errors import (
        BundleError,
        ContextError,
        ExportError,
        InputError,
        InUseError,
        OutOfMemoryError,
        ProviderError,
        TriformError,
        UnsupportedError,
    )
    from triform.runtime.generation.answers import Completion, Generation, Piece, Timings
    from triform.runtime.generation.logprobs import TokenLogprobs
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
    from triform.runtime.graphs.preparation import Preparation, prepare, unprepare
    from triform.runtime.media.audio import Audio, open_audio
    from triform.runtime.media.voice_activity import VoiceActivityOptions
    from triform.runtime.opening import load, load_decoder, load_encoder, load_encoder_decoder, load_speech
    from triform.runtime.speech.model import CtcModel, SpeechModel
    from triform.runtime.speech.options import TranscribeOptions
    from triform.runtime.speech.transcript import Segment, Word
    from triform.runtime.speech.transcription import transcribe
    from triform.runtime.text.pages import Page
    from triform.runtime.text.token_view import TokenView

    __version__: str

__all__ = [
    "Answer",
    "Ask",
    "Audio",
    "Beams",
    "BundleError",
    "ClassifyTask",
    "Completion",
    "Constraints",
    "ContextError",
    "Conversation",
    "CtcModel",
    "Decoder",
    "Document",
    "EmbedTask",
    "Encoder",
    "EncoderDecoder",
    "ExportError",
    "Filling",
    "GenerateTask",
    "Generation",
    "GenerationOptions",
    "Hit",
    "InUseError",
    "InputError",
    "OutOfMemoryError",
    "Page",
    "Penalties",
    "Perplexity",
    "Piece",
    "Predictor",
    "Preparation",
    "ProviderError",
    "RewriteTask",
    "SearchIndex",
    "Segment",
    "SpeechModel",
    "SummarizeTask",
    "Tag",
    "TagTask",
    "Target",
    "TextScore",
    "Timings",
    "TokenLogprobs",
    "TokenVectors",
    "TokenView",
    "TranscribeOptions",
    "TranscribeTask",
    "TranslateTask",
    "TriformError",
    "Truncation",
    "UnsupportedError",
    "VoiceActivityOptions",
    "Word",
    "Writing",
    "__version__",
    "load",
    "load_decoder",
    "load_encoder",
    "load_encoder_decoder",
    "load_speech",
    "open_audio",
    "prepare",
    "quantize",
    "transcribe",
    "unprepare",
]

# Where each name is, as type checkers read it above.
_MODULES = {
    "batch.encoder_tasks": ("ClassifyTask", "EmbedTask", "TagTask"),
    "batch.predictor": ("Predictor",),
    "batch.text_tasks": ("RewriteTask", "SummarizeTask", "TranslateTask", "Writing"),
    "batch.writer_tasks": ("GenerateTask", "TranscribeTask"),
    "decoder.conversation": ("Conversation",),
    "decoder.model": ("Decoder",),
    "decoder.scoring": ("Perplexity", "TextScore"),
    "encoder.answering": ("Answer",),
    "encoder.fill_mask": ("Filling", "Target"),
    "encoder.model": ("Encoder",),
    "encoder.tagging": ("Tag",),
    "encoder.vectors.quantization": ("quantize",),
    "encoder.vectors.search_index": ("Document", "Hit", "SearchIndex"),
    "encoder.vectors.token_vectors": ("TokenVectors",),
    "encoder_decoder.ask": ("Ask",),
    "encoder_decoder.model": ("EncoderDecoder",),
    "errors": (
        "BundleError", "ContextError", "ExportError", "InUseError", "InputError", "OutOfMemoryError",
        "ProviderError", "TriformError", "UnsupportedError",
    ),
    "generation.answers": ("Generation", "Piece", "Timings", "Completion"),
    "generation.logprobs": ("TokenLogprobs",),
    "generation.options.beams": ("Beams",),
    "generation.options.generation": ("GenerationOptions",),
    "generation.options.groups": ("Constraints", "Penalties", "Truncation"),
    "graphs.preparation": ("Preparation", "prepare", "unprepare"),
    "media.audio": ("Audio", "open_audio"),
    "media.voice_activity": ("VoiceActivityOptions",),
    "opening": ("load", "load_decoder", "load_encoder", "load_encoder_decoder", "load_speech"),
    "speech.model": ("CtcModel", "SpeechModel"),
    "speech.options": ("TranscribeOptions",),
    "speech.transcript": ("Segment", "Word"),
    "speech.transcription": ("transcribe",),
    "text.pages": ("Page",),
    "text.token_view": ("TokenView",),
}  # fmt: skip
_HOMES = {name: f"triform.runtime.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("triform")
    raise AttributeError(f"module 'triform' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
