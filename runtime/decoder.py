"""The decoder form in a user's hands: text in, text out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle import Bundle
from triform.runtime.chat import Message, render_chat
from triform.runtime.errors import BundleError, InputError
from triform.runtime.loop import FinishReason, decode_loop
from triform.runtime.manifest import Manifest
from triform.runtime.options import GenerationOptions
from triform.runtime.sampling import make_sampler
from triform.runtime.session import open_session
from triform.runtime.step import DecoderStep
from triform.runtime.text import IncrementalDetokenizer, load_tokenizer

Prompt = str | Sequence[Message]


@dataclass(frozen=True)
class Piece:
    """A bit of generated text, always whole characters.

    Attributes:
        text: may be empty, when a token ends inside a character.
        token_ids: the tokens since the previous piece.
        finish_reason: on the last piece, "stop" or "length".
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds.

    Attributes:
        load: opening the bundle.
        prefill: from the call to the first token.
        tokens: each further token.
    """

    load: float
    prefill: float
    tokens: tuple[float, ...] = ()

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first per second; 0 when there are none."""
        return len(self.tokens) / sum(self.tokens) if self.tokens else 0.0


@dataclass(frozen=True)
class Generation:
    """A finished generation.

    Attributes:
        text: what was generated, special tokens left out.
        token_ids: all generated tokens, an end-of-sequence token included.
        finish_reason: "stop" at an end-of-sequence token, "length" at the limit.
        prompt_tokens: length of the prompt after the chat template.
        timings: in seconds.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    timings: Timings


@dataclass
class _Watch:
    """What is noted while pieces flow."""

    prompt_tokens: int = 0
    prefill: float = 0.0
    tokens: list[float] = field(default_factory=list)


class Decoder:
    """A decoder bundle, loaded. Reusable, not thread-safe: one generation at a time.

    Example:
        >>> model = triform.load("smollm2-135m-int4")  # doctest: +SKIP
        >>> model.generate("Why is the sky blue?").text  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: str = "auto",
        provider_options: Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the bundle's graph and tokenizer.

        Args:
            bundle: from `open_bundle`.
            provider: see `open_session`.
            provider_options: see `open_session`.
            threads: see `open_session`.

        Raises:
            BundleError: a file is damaged.
            ProviderError: the named provider cannot be used.
        """
        start = time.perf_counter()
        self._bundle = bundle
        path, _ = bundle.graph("decoder")
        session = open_session(path, provider=provider, provider_options=provider_options, threads=threads)
        self.providers: list[str] = session.get_providers()
        self._step = DecoderStep(session, bundle.manifest)
        self._tokenizer = load_tokenizer(bundle.path(bundle.manifest.tokenizer.file))
        self._load_seconds = time.perf_counter() - start

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._bundle.manifest

    def generate(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        *,
        system: str | None = None,
        raw: bool = False,
    ) -> Generation:
        """Generate a whole answer. Arguments and errors as `stream`."""
        watch = _Watch()
        pieces = list(self._stream(prompt, options or GenerationOptions(), system, raw, watch))
        return self._finished(pieces, watch)

    def stream(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        *,
        system: str | None = None,
        raw: bool = False,
    ) -> Iterator[Piece]:
        """Generate piece by piece; joined texts equal what `generate` returns.

        Args:
            prompt: a text, or messages with "role" and "content". With a chat template a text is the user's message.
            options: greedy or the model's own defaults when None.
            system: a system message to put first; needs a chat template.
            raw: take the text as it is, without the template.

        Yields:
            at least one `Piece`; the last has a finish_reason.

        Raises:
            InputError: an empty prompt, or one that does not fit the model's context, or no template for messages.
        """
        return self._stream(prompt, options or GenerationOptions(), system, raw, _Watch())

    def stream_to(
        self, prompt: Prompt, options: GenerationOptions, *, system: str | None = None, raw: bool = False, show: Any
    ) -> Generation:
        """Generate, calling `show(text)` with each piece as it comes, and return the whole."""
        watch, pieces = _Watch(), []
        for piece in self._stream(prompt, options, system, raw, watch):
            show(piece.text)
            pieces.append(piece)
        return self._finished(pieces, watch)

    def logits(self, text: str) -> NDArray[np.float32]:
        """Logits after each token of `text`, float32 (tokens, vocab_size).

        Raises:
            InputError: the text is empty or longer than the model's context.
        """
        ids = self._encode(text, special=True)
        self._check_length(ids, room=0)
        self._step.cache.reset()
        return self._step.all_logits(ids)

    def perplexity(self, text: str) -> float:
        """Exp of the mean negative log-likelihood of each token given those before it.

        A text longer than the model's context is read in windows that overlap by half, each token counted once.

        Raises:
            InputError: the text has fewer than two tokens.
        """
        ids = self._encode(text, special=True)
        if len(ids) < 2:
            raise InputError("perplexity needs a text of at least two tokens")
        window = self.manifest.max_length
        losses, counted = [], 1
        while counted < len(ids):
            end = min(len(ids), window if counted == 1 else counted + window // 2)
            start = max(0, end - window)
            self._step.cache.reset()
            losses.append(_losses(self._step.all_logits(ids[start:end]), ids[start:end])[counted - start - 1 :])
            counted = end
        return float(np.exp(np.concatenate(losses).mean()))

    def _stream(
        self, prompt: Prompt, options: GenerationOptions, system: str | None, raw: bool, watch: _Watch
    ) -> Iterator[Piece]:
        start = time.perf_counter()
        ids = self._prompt_ids(prompt, system, raw)
        self._check_length(ids, room=1)
        room = self.manifest.max_length - len(ids)
        limit = min(options.max_new_tokens or room, room)
        watch.prompt_tokens = len(ids)
        sampler = make_sampler(options, self.manifest.generation)
        detokenizer = IncrementalDetokenizer(self._tokenizer)
        self._step.cache.reset()
        # With a limit the cache is made once; without one it grows by doubling.
        self._step.cache.reserve(len(ids) + (limit if options.max_new_tokens else min(limit, len(ids), 512)))
        for token in decode_loop(self._step, ids, sampler, eos=self.manifest.tokens.eos, max_new_tokens=limit):
            now = time.perf_counter()
            if watch.prefill:
                watch.tokens.append(now - start)
            else:
                watch.prefill = now - start
            start = now
            text = detokenizer.push(token.id)
            if token.finish_reason is not None:
                text += detokenizer.flush()
            yield Piece(text, (token.id,), token.finish_reason)

    def _finished(self, pieces: list[Piece], watch: _Watch) -> Generation:
        return Generation(
            text="".join(piece.text for piece in pieces),
            token_ids=tuple(token for piece in pieces for token in piece.token_ids),
            finish_reason=pieces[-1].finish_reason or "length",
            prompt_tokens=watch.prompt_tokens,
            timings=Timings(self._load_seconds, watch.prefill, tuple(watch.tokens)),
        )

    def _prompt_ids(self, prompt: Prompt, system: str | None, raw: bool) -> list[int]:
        template = self.manifest.tokenizer.chat_template
        if isinstance(prompt, str) and (raw or template is None):
            if system is not None:
                raise InputError("a system message needs a chat template; this bundle has none, or --raw was given")
            return self._encode(prompt, special=True)
        if template is None:
            raise InputError("messages need a chat template and this bundle has none; give a plain text")
        messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if not messages or (isinstance(prompt, str) and not prompt.strip()):
            raise InputError("the prompt is empty")
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        source = self._read(template)
        text = render_chat(source, messages, self.manifest.tokenizer.special)
        return self._encode(text, special=False)

    def _read(self, name: str) -> str:
        try:
            return self._bundle.path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{self._bundle.folder / name} cannot be read ({error}); copy the bundle again") from None

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        if not text or not ids:
            raise InputError("the prompt is empty")
        return ids

    def _check_length(self, ids: Sequence[int], *, room: int) -> None:
        limit = self.manifest.max_length
        if len(ids) + room > limit:
            raise InputError(f"the prompt has {len(ids)} tokens but this model's context is {limit}; shorten it")


def _losses(logits: NDArray[np.float32], ids: Sequence[int]) -> NDArray[np.float64]:
    """Negative log-likelihood of ids[1:], float64 (len(ids) - 1,)."""
    table = logits[:-1].astype(np.float64)
    table -= table.max(-1, keepdims=True)
    targets = np.asarray(ids[1:])
    result: NDArray[np.float64] = np.log(np.exp(table).sum(-1)) - table[np.arange(len(targets)), targets]
    return result
