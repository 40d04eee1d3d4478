"""The method and the command for each task, for error messages."""

from __future__ import annotations

COMMANDS = {
    "feature-extraction": "embed",
    "text-classification": "classify",
    "token-classification": "tag",
    "fill-mask": "fill-mask",
    "question-answering": "answer",
    "next-sentence-prediction": "next-sentence",
    "image-classification": "classify-image",
    "image-feature-extraction": "embed",
    "zero-shot-image-classification": "classify-image",
    "text-generation": "generate",
    "text2text-generation": "rewrite",
    "automatic-speech-recognition": "transcribe",
    "image-to-text": "read-image",
    "audio-classification": "classify-audio",
}

_METHODS = {
    "feature-extraction": "Encoder.embed",
    "text-classification": "Encoder.classify",
    "token-classification": "Encoder.tag",
    "fill-mask": "Encoder.fill_mask",
    "question-answering": "Encoder.answer",
    "next-sentence-prediction": "Encoder.next_sentence",
    "image-classification": "Encoder.classify_images",
    "image-feature-extraction": "Encoder.embed_images",
    "zero-shot-image-classification": "Encoder.match_labels",
    "text-generation": "Decoder.generate",
    "text2text-generation": "EncoderDecoder.generate",
    "automatic-speech-recognition": "SpeechModel.transcribe",
    "image-to-text": "EncoderDecoder.read_images",
    "audio-classification": "Encoder.classify_audio",
}


def method_hint(task: str, otherwise: str) -> str:
    """Return the end of an error message: use the method for this task, or `otherwise` if there is none."""
    return f"use `{_METHODS[task]}`" if task in _METHODS else otherwise
