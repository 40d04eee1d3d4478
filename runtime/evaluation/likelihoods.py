"""Likelihoods of continuations, tokenized and cut as lm-eval does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.decoder.model import Decoder
from triform.runtime.errors import BundleError
from triform.runtime.graphs.session import SessionOptions
from triform.runtime.text.token_stream import ids_around
from triform.runtime.text.tokenizer import bundle_tokenizer


class Likelihoods:
    """Computes log-likelihoods with a decoder.

    Args:
        path: the decoder's bundle.
        session_options: see `SessionOptions`.

    Attributes:
        model: the decoder.

    Raises:
        BundleError: the bundle is damaged, or has no token to begin a text with.
        ProviderError: the provider cannot be used.
    """

    def __init__(self, path: str | Path, **session_options: Unpack[SessionOptions]) -> None:
        bundle = open_bundle(path)
        self.model = Decoder(bundle, **session_options)
        self._tokenizer = bundle_tokenizer(bundle)
        self._before = ids_around(self._tokenizer)[0]
        tokens = bundle.manifest.tokens
        start = tokens.bos if tokens.bos is not None else next(iter(tokens.eos), None)
        if start is None:
            raise BundleError(f"{path} names neither a beginning nor an end of texts, one of which comes first here")
        self._start = start

    def of_continuation(self, context: str, continuation: str) -> tuple[float, bool]:
        """The log-likelihood of a continuation in nats, and whether greedy decoding would choose it.

        Args:
            context: the text before it; when empty, the token that begins texts takes its place.
            continuation: a text that is not empty, with the space before it.
        """
        before, after = self._split(context, continuation)
        if not after:
            return 0.0, True
        most = self.model.manifest.max_length
        # What is left out of a text that is too long are its first tokens.
        kept = (before + after)[-(most + 1) :]
        split = max(len(kept) - len(after), 1)
        losses, greedy = self.model.continuation_losses(kept[:split], kept[split:])
        return -float(losses.sum()), greedy

    def of_text(self, text: str) -> float:
        """The log-likelihood of a whole text, in nats, after the token that begins texts.

        A text that is longer than the model's context is cut into windows; the last one is whole, too, but each token
        counts once.
        """
        ids, most, total = [self._start, *self._ids(text)], self.model.manifest.max_length, 0.0
        for start in range(1, len(ids), most):
            end = min(start + most, len(ids))
            losses, _ = self.model.continuation_losses(ids[max(end - 1 - most, 0) : start], ids[start:end])
            total -= float(losses.sum())
        return total

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The two as token ids. They are tokenized as one text, and spaces between them go with the continuation."""
        if not context:
            return [self._start], self._ids(continuation)
        kept = context.rstrip()
        whole, first = self._with_start(context + continuation), self._with_start(kept)
        return (first, whole[len(first) :]) if kept else ([self._start], self._ids(context + continuation))

    def _with_start(self, text: str) -> list[int]:
        ids = self._ids(text)
        return ids if ids[: len(self._before)] == self._before else [*self._before, *ids]

    def _ids(self, text: str) -> list[int]:
        ids: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return list(ids)
