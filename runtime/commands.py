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
    "zero-shot-image-classification": "classify-image",
    "text-generation": "generate",
}
