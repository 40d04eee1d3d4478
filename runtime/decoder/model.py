"""The class for decoder bundles: text in, text out."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, Unpack

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.decoder import scoring
from triform.runtime.decoder.batches import PromptBatches
from triform.runtime.decoder.loops import DecoderLoops
from triform.runtime.decoder.prompt import Prompt, PromptEncoder, PromptInput, PromptOptions
from triform.runtime.decoder.prompt_cache import read_prompt_cache, write_prompt_cache
from triform.runtime.errors import InputError
from triform.runtime.generation.answers import Completion, Generation, Piece, Timings, Watch, pieces_of
from triform.runtime.generation.loop import Token
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.checks import at_least_one
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.setup import Settled, check_length, settle
from triform.runtime.generation.speculation.draft import Draft, same_vocabulary
from triform.runtime.graphs.decoding.branches import HiddenStep
from triform.runtime.graphs.decoding.opening import open_graphs
from triform.runtime.graphs.decoding.step import DecoderStep
from triform.runtime.graphs.session import SessionOptions
from triform.runtime.text.checks import checked
from triform.runtime.text.stop_strings import TextStops
from triform.runtime.text.token_stream import stream_ids
from triform.runtime.text.tokenizer import bundle_tokenizer
from triform.runtime.turns import Turns

if TYPE_CHECKING:
    from triform.runtime.decoder.async_stream import ModelThread

__all__ = ["Completion", "Decoder", "Generation", "Piece", "Prompt", "Timings"]


class Decoder:
    """A loaded decoder bundle. It runs one generation at a time; a new one in the same thread ends the previous one.

    The KV cache of a generation is kept for the next: if a prompt begins with the same tokens, only the rest is run.

    While another thread generates, or has an unfinished stream, a call raises `InUseError`, or waits if the decoder was
    loaded with ``shared=True``. Batches have caches of their own and run at any time: `generate_all`, and `generate`
    with beams.

    Attributes:
        providers: the execution providers in use, most preferred first.

    Example:
        >>> model = triform.load("smollm2-135m")  # doctest: +SKIP
        >>> model.generate("Why is the sky blue?").text  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        shared: bool = False,
        **session_options: Unpack[SessionOptions],
    ) -> None:
        """Open the bundle's graph and tokenizer.

        Args:
            bundle: from `open_bundle`.
            shared: whether calls from several threads wait for each other, rather than raise InUseError.
            session_options: see `SessionOptions`.

        Raises:
            BundleError: a file is damaged, or the graph does not match the manifest.
            ProviderError: the provider cannot be used.
        """
        start, self._bundle = time.perf_counter(), bundle
        # Before the session, which can then reuse the memory that parsing the tokenizer took.
        self._tokenizer = bundle_tokenizer(bundle)
        self._prompts = PromptEncoder(bundle, self._tokenizer)
        session, cache, graphs = open_graphs(bundle, **session_options)
        self.providers: list[str] = session.get_providers()
        self._step = DecoderStep(session, bundle.manifest, cache, prompts=graphs)
        self._loops = DecoderLoops(self._step, partial(HiddenStep, session, bundle.manifest, cache), bundle.manifest)
        self._batches = PromptBatches(session, bundle.manifest, cache, self._prompts, graphs)
        self._thread: ModelThread | None = None
        self._draft: Decoder | None = None
        self._turns = Turns(shared=shared)
        # The number of uses of the cache so far, by which a generation notices that another one took the cache over.
        self._begun = 0
        self._load_seconds = time.perf_counter() - start

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    def generate(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        *,
        beams: Beams | None = None,
        **prompt_options: Unpack[PromptOptions],
    ) -> Generation:
        """Generate a whole answer.

        Args:
            prompt: a text, or messages with "role" and "content". With a chat template, a text is the user's message.
            options: None for the model's defaults, or greedy decoding if it has none.
            beams: settings of a search for several answers; None for the model's defaults.
            prompt_options: `system`, `raw`, `tools`, `template`, `template_vars` and `prefill`; see `PromptInput`.

        Returns:
            the answer; with a search, the best one.

        Raises:
            InputError: the prompt is empty, or needs a chat template that the bundle does not have; two options
                conflict.
            ContextError: the prompt does not fit the model's context.
            UnsupportedError: an option needs something that the bundle or this installation does not have.
            InUseError: another thread uses the decoder.
        """
        watch, settled = Watch(), self.settle(options, beams=beams)
        prompt_input = PromptInput(prompt, **prompt_options)
        if settled.search is None:
            return watch.finished(list(self._pieces(prompt_input, settled, watch)), self._load_seconds)
        row = settled.row(self._prompts.prompt_ids(prompt_input))
        watch.prompt_tokens = len(row.ids)
        return watch.searched(self._batches.best(row, settled, watch), self._load_seconds)

    def generate_all(
        self,
        prompts: Iterable[Prompt],
        options: GenerationOptions | None = None,
        *,
        beams: Beams | None = None,
        batch: int = 8,
        **prompt_options: Unpack[PromptOptions],
    ) -> Iterator[list[Completion]]:
        """Answer any number of prompts, several at a time, in bounded memory.

        A prefix that a prompt shares with one in the batch is not run again. Without beams, the next prompt starts as
        soon as an answer ends.

        Several threads may call this at the same time as any other method; each iterator is for one thread at a time.

        Args:
            prompts: texts or messages, see `generate`; read lazily.
            options: for every answer, see `generate`. With a seed, random numbers depend on a prompt's position, too.
            beams: see `generate`.
            batch: number of prompts to run at once.
            prompt_options: for every prompt, see `generate`.

        Yields:
            the answers to each prompt, in the order of the prompts: as many as `beams` asks for, the best first.

        Raises:
            InputError: see `generate`, with the prompt's number; or an option does not work in batches.
            UnsupportedError: see `generate`.
        """
        at_least_one().judge("batch", batch)
        settled = self._settled(options, beams or Beams(), several=True)
        inputs = (PromptInput(prompt, **prompt_options) for prompt in checked(prompts))
        return self._batches.answers(inputs, settled, batch)

    def settle(self, options: GenerationOptions | None = None, *, beams: Beams | None = None) -> Settled:
        """The settings that `generate` would use. If their `search` is None, the answer can be streamed.

        Arguments and errors as `generate`.
        """
        return self._settled(options, beams or Beams())

    def count_tokens(self, prompt: Prompt, **prompt_options: Unpack[PromptOptions]) -> int:
        """The number of tokens of a prompt, chat template included. Arguments as `generate`.

        Raises:
            InputError: the prompt is empty.
            ContextError: it leaves no room for an answer in the model's context.
        """
        ids = self._prompts.prompt_ids(PromptInput(prompt, **prompt_options))
        check_length(len(ids), self.manifest.max_length, room=1)
        return len(ids)

    def stream(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        **prompt_options: Unpack[PromptOptions],
    ) -> Iterator[Piece]:
        """Generate one answer piece by piece, without beams. The joined texts are what `generate` returns.

        The call checks the prompt; the model runs while the iterator is read. Close the iterator, or stop reading it,
        to stop the model; the decoder stays usable. Arguments and errors as `generate`.

        Returns:
            an iterator of at least one `Piece`; the last has a finish_reason.

        Raises:
            InputError: while iterating, another generation was started in the same thread.
            InUseError: while iterating, another thread uses the decoder.
        """
        return self._stream(PromptInput(prompt, **prompt_options), options, Watch())

    def stream_async(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        **prompt_options: Unpack[PromptOptions],
    ) -> AsyncGenerator[Piece]:
        """As `stream`, for event loops: the decoder's own worker thread checks the prompt and runs the model.

        Close the iterator, or cancel the task that awaits it, to stop the model after its current run; the decoder
        stays usable. Tasks may stream concurrently, but a new generation ends the previous one.

        Until a stream has ended, calls from other threads are refused or wait, see `Decoder`. This includes the event
        loop's own thread: with ``shared=True``, `generate` or `stream` called there would wait forever.

        Arguments as `generate`.

        Returns:
            an asynchronous iterator of the pieces of `stream`.

        Raises:
            TriformError: while iterating, whatever `stream` raises.
        """
        # Imported here because asyncio is slow to import.
        from triform.runtime.decoder.async_stream import ModelThread

        self._thread = self._thread or ModelThread()
        return self._thread.pieces(partial(self.stream, prompt, options, **prompt_options))

    def stream_to(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        *,
        show: Callable[[str], None],
        **prompt_options: Unpack[PromptOptions],
    ) -> Generation:
        """As `stream`, but call `show` with each piece's text, and return the whole answer."""
        watch, pieces = Watch(), []
        for piece in self._stream(PromptInput(prompt, **prompt_options), options, watch):
            show(piece.text)
            pieces.append(piece)
        return watch.finished(pieces, self._load_seconds)

    def use_draft(self, draft: Decoder) -> None:
        """Speculative decoding: a smaller model proposes tokens, and this one checks several of them in one run.

        Each token is still chosen from this model's own logits, and the draft runs only while it saves time. If
        activations are rounded to 8 bits, the logits of a run of several tokens may differ in their last digits from
        those of single steps.

        Args:
            draft: a model with the same vocabulary; while this decoder generates, the draft is in use, too.

        Raises:
            InputError: the vocabularies differ, or this model has states of fixed size.
        """
        if not same_vocabulary(draft.manifest, draft._tokenizer, self.manifest, self._tokenizer):
            raise InputError(
                f"{draft._bundle.folder} cannot be the draft model of {self._bundle.folder}: their vocabularies "
                "differ; use a smaller model of the same family"
            )
        self._loops.use_draft(Draft(draft._step, draft.manifest.max_length, self.manifest.vocab_size))
        self._draft = draft

    def forget(self) -> None:
        """Empty the KV cache, so that the next generation runs its whole prompt."""
        with self._turns.call():
            self._begin()
            self._step.reset()

    def save_prompt_cache(self, path: str | Path, tokens: int) -> None:
        """Write what the model keeps of the first part of the last generation to a file.

        Args:
            path: a safetensors file, replaced if it exists.
            tokens: most tokens to keep; the generation's `prompt_tokens` for its prompt. See `DecoderStep.stored`.

        Raises:
            InputError: the file cannot be written, or nothing was generated yet.
        """
        with self._turns.call():
            ids, arrays = self._step.stored(tokens)
            if not ids:
                raise InputError(f"there is no prompt to save in {path}; generate first")
            write_prompt_cache(Path(path), self.manifest, ids, arrays)

    def load_prompt_cache(self, path: str | Path) -> int:
        """Load a file from `save_prompt_cache`, for prompts that begin with the same tokens.

        Returns:
            the number of tokens in the file.

        Raises:
            InputError: the file cannot be read, is damaged, or was made with another bundle.
        """
        ids, arrays = read_prompt_cache(Path(path), self.manifest)
        with self._turns.call():
            self._begin()
            self._step.adopt(ids, arrays)
        return len(ids)

    def logits(self, text: str) -> NDArray[np.float32]:
        """Logits after each token of `text`, float32 (tokens, vocab_size).

        Raises:
            InputError: the text is empty.
            ContextError: it is longer than the model's context.
        """
        ids = self._prompts.text_ids(text)
        check_length(len(ids), self.manifest.max_length, room=0)
        result, done = np.empty((len(ids), self.manifest.vocab_size), np.float32), 0
        with self._turns.call():
            self.forget()
            for logits in self._step.logits_in_chunks(ids):
                result[done : done + len(logits)] = logits
                done += len(logits)
        return result

    def perplexity(self, text: str) -> float:
        """Exponential of the mean negative log-likelihood of each token given the tokens before it.

        A text longer than the model's context is read in windows that overlap by half; each token counts once.

        Raises:
            InputError: the text has fewer than two tokens.
        """
        ids = self._prompts.text_ids(text)
        with self._turns.call():
            self.forget()
            return scoring.perplexity(self._step, ids, self.manifest.max_length, self._tokenizer).perplexity

    def file_perplexity(self, file: TextIO) -> scoring.Perplexity:
        """Perplexity of a file of any length, in bounded memory; see `perplexity`.

        Args:
            file: open for reading text.

        Raises:
            InputError: the text has fewer than two tokens.
        """
        ids = map(self._prompts.known, stream_ids(self._tokenizer, file))
        with self._turns.call():
            self.forget()
            return scoring.perplexity(self._step, ids, self.manifest.max_length, self._tokenizer)

    def score(self, text: str, *, window: int | None = None) -> scoring.TextScore:
        """The log-probability of each token of a text given the tokens before it; long texts as in `perplexity`.

        Args:
            text: of any length.
            window: tokens to read at once; as many as the model can read when None.

        Raises:
            InputError: the text is empty, or the model cannot read such a window.
        """
        ids = self._prompts.text_ids(text)
        with self._turns.call():
            self.forget()
            return scoring.text_score(self._step, ids, window, self.manifest.max_length, self._tokenizer)

    def continuation_losses(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[scoring.Losses, bool]:
        """See `scoring.continuation_losses`."""
        with self._turns.call():
            self._begin()
            return scoring.continuation_losses(self._step, context, continuation)

    def _settled(self, options: GenerationOptions | None, beams: Beams | None, *, several: bool = False) -> Settled:
        return settle(options or GenerationOptions(), self.manifest, self._tokenizer, beams=beams, several=several)

    def _stream(self, prompt: PromptInput, options: GenerationOptions | None, watch: Watch) -> Iterator[Piece]:
        return self._pieces(prompt, self._settled(options, None), watch)

    def _pieces(self, prompt: PromptInput, settled: Settled, watch: Watch) -> Iterator[Piece]:
        """Check the prompt now; return an iterator that runs the model."""
        row = settled.row(self._prompts.prompt_ids(prompt))
        watch.prompt_tokens = len(row.ids)
        tokens = self._loops.tokens(row, watch)
        pieces = self._turns.iterate(partial(self._run, tokens, settled.options.stop, watch))
        return pieces if self._draft is None else self._draft._turns.iterate(lambda: pieces)

    def _run(self, tokens: Iterator[Token], stop: Sequence[str], watch: Watch) -> Iterator[Piece]:
        begun = self._begin()
        for piece in pieces_of(tokens, TextStops(self._tokenizer, stop), watch):
            yield piece
            if piece.finish_reason is None and self._begun != begun:
                raise InputError("this generation ended when another one with the same decoder began")

    def _begin(self) -> int:
        """Take over the cache; return the number of this use."""
        self._begun += 1
        return self._begun
