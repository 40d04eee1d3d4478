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

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import EncoderDecoderInfo, Manifest
from triform.runtime.encoder_decoder.ask import Ask, manifest_for, prefix_for
from triform.runtime.encoder_decoder.source_text import SourceText
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.generation.answers import Generation, Piece, Timings, Written, written
from triform.runtime.generation.loop import decode_loop
from triform.runtime.generation.options.beams import Beams, Search, check_search
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.search.batch import Hypothesis
from triform.runtime.generation.search.choice import run_search
from triform.runtime.generation.setup import RowSetup, set_up_row
from triform.runtime.graphs.encoder_decoder import SourceReader
from triform.runtime.graphs.encoder_output import EncoderOutput
from triform.runtime.graphs.padding import text_arrays
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder_of
from triform.runtime.text.stop_strings import TextStops

__all__ = ["Ask", "EncoderDecoder", "Written"]

# Sources read ahead, to put those of like length together.
_WINDOW = 256
# Source texts of models without a limit of their own are cut here.
_LONGEST = 2**14


@dataclass(frozen=True)
class _Settled:
    """The user's options, the search to make, and the manifest whose defaults fill in the rest."""

    options: GenerationOptions
    search: Search | None
    manifest: Manifest


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
        (found,) = self._answers([ids], self._settled(options, ask, beams))
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
        settled = self._settled(options, ask, beams)
        source, first = iter(sources), 1
        while window := list(islice(source, _WINDOW)):
            rows = self._ids(window, ask or Ask(), first)
            found: list[list[Written]] = [[]] * len(rows)
            order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                places = [first + index - 1 for index in chosen]
                answers = self._answers([rows[index] for index in chosen], settled, places)
                for index, answer in zip(chosen, answers, strict=True):
                    found[index] = answer
            yield from found
            first += len(window)

    def stream(
        self, source: str, options: GenerationOptions | None = None, *, ask: Ask | None = None
    ) -> Iterator[Piece]:
        """Write about one text piece by piece, without beams. Arguments and errors as `generate`.

        Returns:
            an iterator of at least one `Piece`; the last has a finish_reason.
        """
        ids = self._ids([source], ask or Ask(), 1)[0]
        setup = self._setup(self._settled(options, ask, None), ids, 0)
        return self.pieces(self._read([ids]), [self.info.decoder_start], setup)

    def pieces(self, encoded: EncoderOutput, prompt: Sequence[int], setup: RowSetup) -> Iterator[Piece]:
        """Write about one source that was read.

        Args:
            encoded: from `reader.read`.
            prompt: decoder tokens to begin with.
            setup: from `set_up_row`.
        """
        shown = TextStops(self.text.target, setup.options.stop)
        step = self.reader.step(encoded)
        for token in decode_loop(step, prompt, setup.sampler(), eos=setup.row.eos, max_new_tokens=setup.limit):
            text = shown.push(token.id)
            reason = token.finish_reason
            if reason is not None:
                text += shown.flush()
            if shown.found:
                reason = "stop"
            yield Piece(text, (token.id,), reason)
            if reason is not None:
                return

    def search(
        self,
        encoded: EncoderOutput,
        prompts: Sequence[Sequence[int]],
        setups: Sequence[RowSetup],
        search: Search | None,
    ) -> list[list[Hypothesis]]:
        """Answers about the sources that were read, the best first.

        Args:
            encoded: from `reader.read`, one source a prompt.
            prompts: decoder tokens that each answer begins with.
            setups: one a prompt, from `set_up_row`.
            search: None for one answer each, token by token.
        """
        step = self.reader.batch_step(encoded)
        return run_search(step, prompts, setups, search, self.text.target, eos=self.manifest.tokens.eos)

    def write(
        self,
        arrays: Mapping[str, NDArray[Any]],
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
        first: int = 0,
    ) -> list[list[Written]]:
        """Write about sources that are no texts, such as pictures.

        Args:
            arrays: a batch, by the names of the encoder's inputs.
            options: see `generate`.
            ask: the language.
            beams: see `generate`.
            first: the place of the first source among all; with a seed, its random numbers depend on it.
        """
        count = len(next(iter(arrays.values())))
        places = range(first, first + count)
        return self._write(self.reader.read(arrays), self._settled(options, ask, beams), [[]] * count, places)

    def plan(
        self, options: GenerationOptions | None = None, ask: Ask | None = None, beams: Beams | None = None
    ) -> tuple[Search | None, int]:
        """What `generate` would do: the search, None for one token after another, and the most tokens it would write.

        Raises:
            InputError: an option, a task or a language that the model does not have.
        """
        settled = self._settled(options, ask, beams)
        return settled.search, self._setup(settled, [], 0).limit

    def _answers(
        self, rows: Sequence[Sequence[int]], settled: _Settled, places: Sequence[int] = (0,)
    ) -> list[list[Written]]:
        return self._write(self._read(rows), settled, rows, places)

    def _write(
        self, encoded: EncoderOutput, settled: _Settled, rows: Sequence[Sequence[int]], places: Sequence[int]
    ) -> list[list[Written]]:
        setups = [self._setup(settled, ids, place) for ids, place in zip(rows, places, strict=True)]
        found = self.search(encoded, [[self.info.decoder_start]] * len(setups), setups, settled.search)
        scored, stops = settled.search is not None, setups[0].options.stop
        return [[written(one, self.text.target, stops, scored) for one in hypotheses] for hypotheses in found]

    def _read(self, rows: Sequence[Sequence[int]]) -> EncoderOutput:
        return self.reader.read(text_arrays(rows, self.manifest.tokens.pad))

    def _setup(self, settled: _Settled, ids: Sequence[int], index: int) -> RowSetup:
        read = np.array(ids, np.int64)
        return set_up_row(settled.options, settled.manifest, self.text.target, 1, index=index, encoder_ids=read)

    def _settled(self, options: GenerationOptions | None, ask: Ask | None, beams: Beams | None) -> _Settled:
        """What the user asked for, with what the task and the language asked for add to it."""
        ask, found = ask or Ask(), options or GenerationOptions()
        manifest = manifest_for(self.manifest, ask)
        forced = self.text.forced(ask.target_lang)
        if ask.target_lang is not None and forced and found.constraints.forced_bos_token_id is not None:
            raise InputError("--target-lang already says what the first token is; leave --forced-bos-token-id out")
        if forced and found.constraints.forced_bos_token_id is None:
            constraints = dataclasses.replace(found.constraints, forced_bos_token_id=forced[0])
            found = dataclasses.replace(found, constraints=constraints)
        beams = beams or Beams()
        settled = _Settled(beams.drawing(found), beams.settled(manifest.generation), manifest)
        check_search(settled.search, self._setup(settled, [], 0).options)
        return settled

    def _ids(self, sources: Sequence[str], ask: Ask, first: int) -> list[list[int]]:
        if self.info.source != "text":
            raise UnsupportedError(f"{self._bundle.folder} reads {self.info.source}, not texts")
        prefix = prefix_for(self.info, ask)
        texts = [prefix + source for source in sources]
        for number, source in enumerate(sources, first):
            if not source.strip():
                raise InputError(f"text {number} is empty")
        return self.text.read(texts, source_lang=ask.source_lang, target_lang=ask.target_lang, first=first)

    def _source_vocabulary(self) -> int:
        # What the encoder knows may be more or fewer tokens than what the decoder writes.
        return max(self.manifest.vocab_size, self.info.text.vocabulary or 0)
