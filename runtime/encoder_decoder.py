"""The encoder-decoder form in a user's hands: a source in, text out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.batch import Hypothesis, Request
from triform.runtime.beam_options import Beams
from triform.runtime.beam_search import BeamOptions, beam_sample, beam_search
from triform.runtime.bundle import Bundle
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.generation import Generation, Piece, Timings
from triform.runtime.generation_setup import RowSetup, set_up_row
from triform.runtime.loop import FinishReason, decode_loop
from triform.runtime.manifest import EncoderDecoderInfo, Manifest
from triform.runtime.options import GenerationOptions
from triform.runtime.sampled import sample
from triform.runtime.session import open_session
from triform.runtime.signature import check_decoder_of
from triform.runtime.source_step import SourceReader
from triform.runtime.source_text import SourceText
from triform.runtime.stop_strings import StopStrings
from triform.runtime.text import IncrementalDetokenizer

__all__ = ["Ask", "EncoderDecoder", "Written"]

# Sources read ahead, to put those of like length together.
_WINDOW = 256
# Source texts of models without a limit of their own are cut here.
_LONGEST = 2**14


@dataclass(frozen=True)
class Ask:
    """What is to be done with a text.

    Attributes:
        task: one of the model's, by name: its prefix is put before the text, and its settings are the defaults.
        prefix: put before the text instead.
        source_lang: what the text is in, as the model or a person calls it; the model's default when None.
        target_lang: what to write in; the model's default when None.
    """

    task: str | None = None
    prefix: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None


@dataclass(frozen=True)
class Written:
    """One answer of a beam search, or the only one.

    Attributes:
        text: special tokens left out.
        token_ids: an end-of-sequence token included.
        finish_reason: "stop" at an end-of-sequence token or a stop string, "length" at the limit.
        score: of a beam search; None otherwise.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    score: float | None = None


class EncoderDecoder:
    """An encoder-decoder bundle, loaded. Reusable, not thread-safe.

    Attributes:
        providers: the execution providers in use, the first choice first.
        info: what the model reads.
        reader: runs the graphs.
        text: turns source texts into ids, and what is written into text.

    Example:
        >>> model = triform.load("opus-mt-en-de-int8")  # doctest: +SKIP
        >>> model.generate("The house is small.").text  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: str = "auto",
        provider_options: Mapping[str, str] | None = None,
        threads: int | None = None,
        strict: bool = False,
    ) -> None:
        """Open the bundle's graphs and tokenizers.

        Args:
            bundle: from `open_bundle`.
            provider: see `open_session`.
            provider_options: see `open_session`.
            threads: see `open_session`.
            strict: refuse texts that are longer than the model can read, rather than cutting them.

        Raises:
            BundleError: a file is damaged, or a graph is not what the manifest says.
            ProviderError: the named provider cannot be used.
        """
        start = time.perf_counter()
        manifest = bundle.manifest
        if manifest.encoder_decoder is None:
            raise BundleError(f"{bundle.folder} does not say what it reads; export the model again")
        self._bundle = bundle
        self.info: EncoderDecoderInfo = manifest.encoder_decoder
        self.text = SourceText(
            bundle.folder, self.info.text, self.info.max_source_length or _LONGEST, self._source_vocabulary(),
            strict=strict,
        )  # fmt: skip
        sessions = {}
        for name in ("encoder", "decoder"):
            path, _ = bundle.graph(name)
            sessions[name] = open_session(path, provider=provider, provider_options=provider_options, threads=threads)
        self.providers: list[str] = sessions["decoder"].get_providers()
        cache = check_decoder_of(sessions["encoder"], sessions["decoder"], manifest, bundle.folder)
        self.reader = SourceReader(sessions["encoder"], sessions["decoder"], manifest, cache)
        self._load_seconds = time.perf_counter() - start

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._bundle.manifest

    def generate(
        self,
        source: str,
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
    ) -> Generation:
        """Write about one text: translate it, sum it up, or whatever the model does.

        Args:
            source: the text.
            options: greedy, or the model's own defaults, when None.
            ask: the task and the languages.
            beams: how many answers to follow at once; the model's own defaults when None.

        Returns:
            the answer, of a beam search the best one; `prompt_tokens` counts the source's.

        Raises:
            InputError: an empty text, or one that is too long for a strict reader; an option, a task or a language
                that the model does not have.
            UnsupportedError: the model reads something else than texts.
        """
        start = time.perf_counter()
        ids = self._ids([source], ask or Ask(), 1)[0]
        (found,) = self._answers([ids], *self._settled(options, ask, beams))
        best = found[0]
        seconds = time.perf_counter() - start
        timings = Timings(self._load_seconds, seconds)
        return Generation(best.text, best.token_ids, best.finish_reason, len(ids), timings)

    def generate_all(
        self,
        sources: Iterable[str],
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
        batch: int = 8,
    ) -> Iterator[list[Written]]:
        """Write about any number of texts, in bounded memory, those of like length together.

        Args:
            sources: the texts.
            options: see `generate`.
            ask: see `generate`.
            beams: see `generate`.
            batch: texts to run at once.

        Yields:
            the answers to each text, in the order of the texts: as many as `beams` asks for, the best first.

        Raises:
            InputError: see `generate`.
            UnsupportedError: see `generate`.
        """
        if batch < 1:
            raise InputError(f"--batch must be at least 1, not {batch}")
        settled, search = self._settled(options, ask, beams)
        source, first = iter(sources), 1
        while window := list(islice(source, _WINDOW)):
            rows = self._ids(window, ask or Ask(), first)
            first += len(window)
            found: list[list[Written]] = [[]] * len(rows)
            order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                answers = self._answers([rows[index] for index in chosen], settled, search)
                for index, answer in zip(chosen, answers, strict=True):
                    found[index] = answer
            yield from found

    def stream(
        self, source: str, options: GenerationOptions | None = None, *, ask: Ask | None = None
    ) -> Iterator[Piece]:
        """Write about one text piece by piece, without beams. Arguments and errors as `generate`.

        Returns:
            an iterator of at least one `Piece`; the last has a finish_reason.
        """
        settled, _ = self._settled(options, ask, None)
        ids = self._ids([source], ask or Ask(), 1)[0]
        setup = self._setup(settled, ids, 0)
        return self.pieces(self.reader.read(self._arrays([ids])), [self.info.decoder_start], setup)

    def pieces(self, given: dict[str, Any], prompt: Sequence[int], setup: RowSetup) -> Iterator[Piece]:
        """Write about one source that was read.

        Args:
            given: from `reader.read`.
            prompt: decoder tokens to begin with.
            setup: from `set_up_row`.
        """
        detokenizer, stop = IncrementalDetokenizer(self.text.target), StopStrings(setup.options.stop)
        step = self.reader.step(given)
        for token in decode_loop(step, prompt, setup.sampler(), eos=setup.row.eos, max_new_tokens=setup.limit):
            text = stop.push(detokenizer.push(token.id))
            reason = token.finish_reason
            if reason is not None:
                text += stop.push(detokenizer.flush()) + stop.flush()
            if stop.found:
                reason = "stop"
            yield Piece(text, (token.id,), reason)
            if reason is not None:
                return

    def search(
        self, given: dict[str, Any], requests: Sequence[Request], setups: Sequence[RowSetup], beams: BeamOptions | None
    ) -> list[list[Hypothesis]]:
        """Answers about the sources that were read, the best first.

        Args:
            given: from `reader.read`, one source a request.
            requests: what each answer begins with, and holds for it.
            setups: one a request, from `set_up_row`.
            beams: None for one answer each, token by token.
        """
        step, eos = self.reader.batch_step(given), self.manifest.tokens.eos
        if beams is None:
            return sample(step, requests, eos=eos)
        if setups[0].row.generator is not None:
            return beam_sample(step, requests, beams, eos=eos, seed=setups[0].options.seed)
        return beam_search(step, requests, beams, eos=eos)

    def _answers(
        self, rows: Sequence[Sequence[int]], options: GenerationOptions, beams: BeamOptions | None
    ) -> list[list[Written]]:
        setups = [self._setup(options, ids, index) for index, ids in enumerate(rows)]
        start = [self.info.decoder_start]
        requests = [Request(start, setup.limit, setup.processors(), setup.sampler()) for setup in setups]
        found = self.search(self.reader.read(self._arrays(rows)), requests, setups, beams)
        scored = beams is not None
        return [[self._written(one, options.stop, scored) for one in hypotheses] for hypotheses in found]

    def _setup(self, options: GenerationOptions, ids: Sequence[int], index: int) -> RowSetup:
        return set_up_row(options, self.manifest, self.text.target, 1, index=index, encoder_ids=np.array(ids, np.int64))

    def _settled(
        self, options: GenerationOptions | None, ask: Ask | None, beams: Beams | None
    ) -> tuple[GenerationOptions, BeamOptions | None]:
        """Options with what the task and the language asked for add to them."""
        ask, found = ask or Ask(), options or GenerationOptions()
        defaults = self.manifest.generation
        if ask.task is not None:
            known = {field.name for field in dataclasses.fields(defaults)}
            asked = {name: value for name, value in self._task(ask.task).generation.items() if name in known}
            defaults = dataclasses.replace(defaults, **asked)
        forced = self.text.forced(ask.target_lang)
        if forced:
            constraints = dataclasses.replace(found.constraints, forced_bos_token_id=forced[0])
            found = dataclasses.replace(found, constraints=constraints)
        return found, (beams or Beams()).settled(defaults)

    def _task(self, name: str) -> Any:
        tasks = self.info.tasks
        if name not in tasks:
            known = ", ".join(tasks) or "none"
            raise InputError(f"this model has no task called {name!r}; it has: {known}")
        return tasks[name]

    def _ids(self, sources: Sequence[str], ask: Ask, first: int) -> list[list[int]]:
        if self.info.source != "text":
            raise UnsupportedError(f"{self._bundle.folder} reads {self.info.source}, not texts")
        prefix = ask.prefix if ask.prefix is not None else self._task(ask.task).prefix if ask.task else ""
        texts = [prefix + source for source in sources]
        for number, source in enumerate(sources, first):
            if not source.strip():
                raise InputError(f"text {number} is empty")
        return self.text.read(texts, source_lang=ask.source_lang, target_lang=ask.target_lang, first=first)

    def _arrays(self, rows: Sequence[Sequence[int]]) -> dict[str, NDArray[Any]]:
        shape = (len(rows), max(map(len, rows)))
        arrays = {
            "input_ids": np.full(shape, self.manifest.tokens.pad or 0, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
        }
        for index, ids in enumerate(rows):
            arrays["input_ids"][index, : len(ids)] = ids
            arrays["attention_mask"][index, : len(ids)] = 1
        return arrays

    def _written(self, hypothesis: Hypothesis, stops: Sequence[str], scored: bool) -> Written:
        text = self.text.target.decode(list(hypothesis.token_ids), skip_special_tokens=True)
        places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
        reason: FinishReason = "stop" if places else hypothesis.finish_reason
        text = text[: min(places)] if places else text
        return Written(text, hypothesis.token_ids, reason, hypothesis.score if scored else None)

    def _source_vocabulary(self) -> int:
        # What the encoder knows may be more or fewer tokens than what the decoder writes.
        return max(self.manifest.vocab_size, self.info.text.vocabulary or 0)
