"""Which command is for which task, for messages that send a user to the right one."""

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
}
