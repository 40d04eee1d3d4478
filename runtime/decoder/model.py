"""The decoder form in a user's hands: text in, text out."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, Unpack

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.decoder.batches import PromptBatches
from triform.runtime.decoder.loops import DecoderLoops
from triform.runtime.decoder.prompt import Prompt, PromptEncoder, PromptInput, PromptOptions
from triform.runtime.decoder.prompt_cache import read_prompt_cache, write_prompt_cache
from triform.runtime.decoder.scoring import Perplexity, TextScore, losses_of, perplexity
from triform.runtime.errors import InputError
from triform.runtime.generation.answers import Generation, Piece, Timings, Watch, Written, pieces_of
from triform.runtime.generation.loop import Token
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.checks import at_least_one
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.setup import Settled, check_length, settle
from triform.runtime.generation.speculation.draft import Draft
from triform.runtime.graphs.decoder_branches import HiddenStep
from triform.runtime.graphs.decoder_step import DecoderStep
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder
from triform.runtime.text.stop_strings import TextStops
from triform.runtime.text.token_stream import stream_ids
from triform.runtime.text.tokenizer import bundle_tokenizer
from triform.runtime.turns import Turns

if TYPE_CHECKING:
    from triform.runtime.decoder.async_stream import ModelThread

__all__ = ["Decoder", "Generation", "Perplexity", "Piece", "Prompt", "TextScore", "Timings", "Written"]


class Decoder:
    """A decoder bundle, loaded. Reusable: one generation at a time; a new one of the same thread ends the one before.

    What one generation read and wrote is kept for the next: of a prompt that begins with the same tokens only the rest
    is run.

    A call while another thread generates, or has a stream that has not ended, is refused, or waits for its turn if the
    decoder was loaded with ``shared=True``. Batches need no turn: `generate_all`, and `generate` with beams.

    Attributes:
        providers: the execution providers in use, the first choice first.

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
        shared: bool = False,
    ) -> None:
        """Open the bundle's graph and tokenizer.

        Args:
            bundle: from `open_bundle`.
            provider: see `open_session`.
            provider_options: see `open_session`.
            threads: see `open_session`.
            shared: let the calls of other threads wait for their turn, rather than refuse them.

        Raises:
            BundleError: a file is damaged, or the graph is not what the manifest says.
            ProviderError: the named provider cannot be used.
        """
        start = time.perf_counter()
        self._bundle = bundle
        path, _ = bundle.graph("decoder")
        # First, so that the memory its file is parsed in serves the session again.
        self._tokenizer = bundle_tokenizer(bundle)
        session = open_session(path, provider=provider, provider_options=provider_options, threads=threads)
        self.providers: list[str] = session.get_providers()
        cache = check_decoder(session, bundle.manifest, path)
        self._step = DecoderStep(session, bundle.manifest, cache)
        make_hidden_step = partial(HiddenStep, session, bundle.manifest, cache)
        self._loops = DecoderLoops(self._step, make_hidden_step, bundle.manifest)
        self._prompts = PromptEncoder(bundle, self._tokenizer)
        self._batches = PromptBatches(session, bundle.manifest, cache, self._prompts)
        self._thread: ModelThread | None = None
        self._draft: Decoder | None = None
        self._turns = Turns(shared=shared)
        # Counts what has used the cache, so that a generation notices when another took it over.
        self._begun = 0
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
        beams: Beams | None = None,
        **prompt_options: Unpack[PromptOptions],
    ) -> Generation:
        """Generate a whole answer.

        Args:
            prompt: a text, or messages with "role" and "content". With a chat template a text is the user's message.
            options: greedy or the model's own defaults when None.
            beams: how many answers to follow at once; the model's own defaults when None.
            prompt_options: `system`, `raw`, `tools`, `template`, `template_vars` and `prefill`; see `PromptInput`.

        Returns:
            the answer, of a search the best one.

        Raises:
            InputError: an empty prompt, or one that does not fit the model's context, or no template for messages or
                tools; two options that do not go together.
            UnsupportedError: an option needs what the bundle or this device does not have.
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
    ) -> Iterator[list[Written]]:
        """Answer any number of prompts, several at once, in bounded memory.

        Prompts that begin with the same tokens as one that is being answered are read from where they part. Without
        beams a prompt is read as soon as another one's answer has ended.

        Several threads may do this at once, beside any other call; an iterator is for one thread at a time.

        Args:
            prompts: texts or messages, see `generate`; taken as there is room for them.
            options: see `generate`; of every answer. With a seed, what is drawn depends on a prompt's place among all.
            beams: see `generate`.
            batch: prompts to run at once.
            prompt_options: see `generate`.

        Yields:
            the answers to each prompt, in the order of the prompts: as many as `beams` asks for, the best first.

        Raises:
            InputError: as `generate`, the line naming the prompt; or an option that batches do not have.
        """
        at_least_one().judge("batch", batch)
        settled = self._settled(options, beams or Beams(), several=True)
        inputs = (PromptInput(prompt, **prompt_options) for prompt in prompts)
        return self._batches.answers(inputs, settled, batch)

    def settle(self, options: GenerationOptions | None = None, *, beams: Beams | None = None) -> Settled:
        """What `generate` would do: `search` is None where one answer is followed, and could be streamed.

        Args:
            options: see `generate`.
            beams: see `generate`.

        Raises:
            InputError: options that do not go together, or do not fit the model.
            UnsupportedError: see `generate`.
        """
        return self._settled(options, beams or Beams())

    def count_tokens(self, prompt: Prompt, **prompt_options: Unpack[PromptOptions]) -> int:
        """How many tokens a prompt has. Arguments as `generate`.

        Raises:
            InputError: it is empty, or leaves no room for an answer in the model's context.
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
        """Generate one answer piece by piece, without beams; joined texts equal what `generate` then returns.

        The prompt is checked at once, the model runs as pieces are asked for. Stop asking, or close the iterator, to
        stop the model; the decoder stays usable. Arguments and errors as `generate`.

        Returns:
            an iterator of at least one `Piece`; the last has a finish_reason.

        Raises:
            InputError: while iterating: another generation of the same thread has begun.
            InUseError: while iterating: another thread uses the decoder.
        """
        return self._stream(PromptInput(prompt, **prompt_options), options, Watch())

    def stream_async(
        self,
        prompt: Prompt,
        options: GenerationOptions | None = None,
        **prompt_options: Unpack[PromptOptions],
    ) -> AsyncGenerator[Piece]:
        """As `stream`, for event loops: the prompt is read and the model runs in a thread of the decoder's own.

        Close the iterator, or cancel what awaits it, to stop the model: it ends its present run, and the decoder stays
        usable. Tasks of an event loop may stream side by side: a generation that begins ends the one before. Until a
        stream has ended, other threads are refused or wait, see `Decoder`, the event loop's own too: there, `generate`
        and `stream` of a shared decoder would wait for ever.

        Args:
            prompt: see `generate`.
            options: see `generate`.
            prompt_options: see `generate`.

        Returns:
            an asynchronous iterator of what `stream` gives. What `stream` raises comes with the first piece.
        """
        # Here, because asyncio takes a while to import.
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
        """As `stream`, calling `show` with each piece's text as it comes; returns the whole."""
        watch, pieces = Watch(), []
        for piece in self._stream(PromptInput(prompt, **prompt_options), options, watch):
            show(piece.text)
            pieces.append(piece)
        return watch.finished(pieces, self._load_seconds)

    def use_draft(self, draft: Decoder) -> None:
        """Let a smaller model propose tokens, several of which this one then checks in one run.

        Each token is still chosen from this model's own logits, and the draft is asked only while it pays. Where
        activations are rounded to 8 bits the last digits of these logits differ between one token in a run and several.

        Args:
            draft: of the same vocabulary; while this decoder generates, the draft is in use, too.

        Raises:
            InputError: its vocabulary is another, or this model has states of fixed size.
        """
        known = range(max(self.manifest.vocab_size, draft.manifest.vocab_size))
        if any(draft._tokenizer.id_to_token(token) != self._tokenizer.id_to_token(token) for token in known):
            raise InputError(
                f"{draft._bundle.folder} cannot be the draft of {self._bundle.folder}: its vocabulary is another; "
                "take a smaller model of the same family"
            )
        self._loops.use_draft(Draft(draft._step, draft.manifest.max_length, self.manifest.vocab_size))
        self._draft = draft

    def forget(self) -> None:
        """Forget what earlier generations left, so that the next one reads its whole prompt."""
        with self._turns.call():
            self._begin()
            self._step.reset()

    def save_prompt_cache(self, path: str | Path, tokens: int) -> None:
        """Write what the model keeps of the first tokens that the last generation read and wrote.

        Args:
            path: a safetensors file, replaced if it exists.
            tokens: how many at most; a generation's `prompt_tokens` for its prompt. See `DecoderStep.stored`.

        Raises:
            InputError: it cannot be written, or nothing was generated yet.
        """
        with self._turns.call():
            ids, arrays = self._step.stored(tokens)
            if not ids:
                raise InputError(f"there is no prompt to keep in {path}; generate first")
            write_prompt_cache(Path(path), self.manifest, ids, arrays)

    def load_prompt_cache(self, path: str | Path) -> int:
        """Take what `save_prompt_cache` wrote, for prompts that begin with the same tokens.

        Returns:
            how many tokens there are.

        Raises:
            InputError: it cannot be read, is damaged, or was made with another bundle.
        """
        ids, arrays = read_prompt_cache(Path(path), self.manifest)
        with self._turns.call():
            self._begin()
            self._step.adopt(ids, arrays)
        return len(ids)

    def logits(self, text: str) -> NDArray[np.float32]:
        """Logits after each token of `text`, float32 (tokens, vocab_size).

        Raises:
            InputError: the text is empty or longer than the model's context.
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
        """Exponential of the mean negative log-likelihood of each token given those before it.

        A text longer than the model's context is read in windows that overlap by half, each token counted once.

        Raises:
            InputError: the text has fewer than two tokens.
        """
        ids = self._prompts.text_ids(text)
        with self._turns.call():
            self.forget()
            return perplexity(self._step, ids, self.manifest.max_length, self._tokenizer).perplexity

    def file_perplexity(self, file: TextIO) -> Perplexity:
        """Perplexity of a text of any length, of which only a part is in memory at a time.

        Args:
            file: open for reading text.

        Raises:
            InputError: the text has fewer than two tokens.
        """
        ids = map(self._prompts.known, stream_ids(self._tokenizer, file))
        with self._turns.call():
            self.forget()
            return perplexity(self._step, ids, self.manifest.max_length, self._tokenizer)

    def score(self, text: str) -> TextScore:
        """The log-probability of each token of a text given those before it; long texts as in `perplexity`.

        Raises:
            InputError: the text is empty.
        """
        ids = self._prompts.text_ids(text)
        with self._turns.call():
            self.forget()
            losses = losses_of(self._step, ids, self.manifest.max_length, self._tokenizer) if len(ids) > 1 else ()
            logprobs = [-float(loss) for part in losses for loss in part]
        texts = tuple(self._tokenizer.decode([token], skip_special_tokens=False) for token in ids)
        return TextScore(tuple(ids), texts, (None, *logprobs))

    def _settled(self, options: GenerationOptions | None, beams: Beams | None, *, several: bool = False) -> Settled:
        chosen = options or GenerationOptions()
        return settle(chosen, self.manifest, self._tokenizer, beams=beams, several=several)

    def _stream(self, prompt: PromptInput, options: GenerationOptions | None, watch: Watch) -> Iterator[Piece]:
        return self._pieces(prompt, self._settled(options, None), watch)

    def _pieces(self, prompt: PromptInput, settled: Settled, watch: Watch) -> Iterator[Piece]:
        """Check everything that can be wrong with a prompt now; return what will run the model."""
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
        """Take over the cache; return the number of this use of it."""
        self._begun += 1
        return self._begun
