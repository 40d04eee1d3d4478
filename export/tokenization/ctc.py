"""Writes the tokenizer of a model for CTC, which only decodes, and checks that it decodes as transformers' does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models

from triform.export.tokenization import conversion
from triform.runtime.errors import ExportError

# Random answers to decode, and their length in frames.
_ANSWERS, _FRAMES = 64, 24


def save_ctc_tokenizer(tokenizer: Any, vocab_size: int, folder: Path, name: str) -> int:
    """Write tokenizer.json.

    Args:
        tokenizer: of transformers; one in Python has a token for the end of a word.
        vocab_size: number of logits.
        folder: to write into.
        name: of the model, for messages.

    Returns:
        the token that stands for none (blank).

    Raises:
        ExportError: there is no blank, a logit has no token, or tokenizer.json decodes to other texts.
    """
    blank = tokenizer.pad_token_id
    if blank is None or not 0 <= blank < vocab_size:
        raise ExportError(
            f"the tokenizer of {name} has no padding token among the logits, which CTC needs as its blank"
        )
    backend = getattr(tokenizer, "backend_tokenizer", None) or _vocabulary(tokenizer, vocab_size, name)
    unnamed = next((index for index in range(vocab_size) if backend.id_to_token(index) is None), None)
    if unnamed is not None:
        raise ExportError(f"the tokenizer of {name} has no token for logit {unnamed} of {vocab_size}")
    written = conversion.write(backend, folder / "tokenizer.json")
    _check(tokenizer, written, vocab_size, name)
    return int(blank)


def _vocabulary(tokenizer: Any, vocab_size: int, name: str) -> Tokenizer:
    """A tokenizer that joins the strings of its tokens, with spaces in place of the ends of words."""
    strings = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(vocab_size)))]
    if getattr(tokenizer, "do_lower_case", False):
        strings = [string.lower() for string in strings]
    vocabulary = {string: index for index, string in enumerate(strings)}
    if len(vocabulary) < vocab_size:
        raise ExportError(f"the tokenizer of {name} has {len(vocabulary)} different tokens for {vocab_size} logits")
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=str(tokenizer.unk_token)))
    steps: list[Any] = [decoders.Fuse()]
    delimiter = getattr(tokenizer, "word_delimiter_token", None)
    if delimiter:
        steps.append(decoders.Replace(delimiter, getattr(tokenizer, "replace_word_delimiter_char", " ")))
    backend.decoder = decoders.Sequence(steps)
    return backend


def _check(tokenizer: Any, written: Tokenizer, vocab_size: int, name: str) -> None:
    generator = np.random.default_rng(0)
    blank = tokenizer.pad_token_id
    for _ in range(_ANSWERS):
        # Tokens repeat and blanks lie between them, as they do in frames.
        frames = np.repeat(generator.integers(0, vocab_size, _FRAMES), generator.integers(1, 3, _FRAMES))
        frames[generator.random(len(frames)) < 0.2] = blank
        expected = tokenizer.decode(frames.tolist())
        ids = [token for token, _ in itertools.groupby(frames.tolist()) if token != blank]
        if written.decode(ids, skip_special_tokens=False).strip() != expected.strip():
            raise ExportError(
                f"the tokenizer of {name}, {type(tokenizer).__name__}, decodes the frames of CTC in a way that is not "
                f"supported: {expected[:40]!r} is not {written.decode(ids, skip_special_tokens=False)[:40]!r}"
            )
