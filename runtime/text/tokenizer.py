"""Loads the tokenizer of a bundle, and turns its failures into errors that name its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from triform.runtime.bundle.folder import Bundle
from triform.runtime.errors import BundleError, InputError
from triform.runtime.panics import failures_as
from triform.runtime.printable import quoted, shortened
from triform.runtime.text.checks import invalid_at
from triform.runtime.text.code_points import CodePointTokenizer

# How many characters of an error from tokenizers are quoted.
_LONGEST = 200


class Tokenizer(Protocol):
    """The part of tokenizers.Tokenizer that is used."""

    def encode(self, sequence: str, *, add_special_tokens: bool = True) -> Any:
        """The encoding of a text; its `ids` are the token ids."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`."""

    def id_to_token(self, id: int) -> str | None:
        """The vocabulary's string for a token."""


def bundle_tokenizer(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle.

    Raises:
        BundleError: there is none, or its file is damaged.
    """
    info = bundle.tokenizer
    if info.code_points is not None:
        return CodePointTokenizer(info.code_points)
    return load_tokenizer(bundle.path(info.file or ""))


class JsonTokenizer:
    """A tokenizer from tokenizer.json; each of its failures is a `BundleError` that names the file."""

    def __init__(self, backend: Any, path: Path) -> None:
        """Keep a tokenizers.Tokenizer.

        Args:
            backend: the tokenizer.
            path: the file that it was read from.
        """
        self.backend = backend
        self._path = path

    def encode(self, sequence: Any, **options: bool) -> Any:
        """The encoding of a text, or of words with ``is_pretokenized``. Options as of tokenizers.

        Raises:
            BundleError: the tokenizer fails.
            InputError: a text is not valid Unicode, such as a prompt or a stop sequence that nobody looked at before.
        """
        place = invalid_at(sequence) if isinstance(sequence, str) else None
        if place is not None:
            raise InputError(f"the text {quoted(sequence)} is not valid Unicode at character {place}")
        with failures_as(self._unusable):
            return self.backend.encode(sequence, **options)

    def encode_batch(self, sequences: list[Any], **options: bool) -> list[Any]:
        """The encodings of texts or pairs. Options and errors as `encode`."""
        with failures_as(self._unusable):
            encodings: list[Any] = self.backend.encode_batch(sequences, **options)
        return encodings

    def encode_batch_fast(self, sequences: list[Any], **options: bool) -> list[Any]:
        """As `encode_batch`, without the places of tokens in their texts."""
        with failures_as(self._unusable):
            encodings: list[Any] = self.backend.encode_batch_fast(sequences, **options)
        return encodings

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`.

        Raises:
            BundleError: the tokenizer fails.
        """
        with failures_as(self._unusable):
            text: str = self.backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def surround(self, before: Sequence[int], after: Sequence[int]) -> None:
        """Put only these ids around texts from now on; truncation leaves room for them.

        Raises:
            BundleError: an id is not in the vocabulary.
        """
        from tokenizers import processors

        around = {name: list(ids) for name, ids in (("before", before), ("after", after)) if ids}
        with failures_as(self._unusable):
            self.backend.post_processor = processors.TemplateProcessing(
                single=[name for name in ("before", "$A", "after") if name == "$A" or name in around],
                special_tokens=[
                    {"id": name, "ids": ids, "tokens": [self.backend.id_to_token(token) for token in ids]}
                    for name, ids in around.items()
                ],
            )

    def __getattr__(self, name: str) -> Any:
        # Lookups and settings, which do not fail.
        return getattr(self.backend, name)

    def _unusable(self, reason: str) -> BundleError:
        return BundleError(f"{self._path} fails ({shortened(reason, _LONGEST)}); export the model again")


def load_tokenizer(path: Path) -> JsonTokenizer:
    """Read tokenizer.json.

    Raises:
        BundleError: the file is damaged.
    """
    from tokenizers import Tokenizer as Backend

    def damaged(reason: str) -> BundleError:
        reason = shortened(reason, _LONGEST)
        return BundleError(f"{path} cannot be read as a tokenizer ({reason}); copy the bundle again")

    with failures_as(damaged):
        backend = Backend.from_file(str(path))
        # The file may contain settings from training, which would silently truncate or pad prompts.
        backend.no_truncation()
        backend.no_padding()
    return JsonTokenizer(backend, path)
