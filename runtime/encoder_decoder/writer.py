"""Generates text from the encoder's output: the engine below the classes that users hold."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Unpack

from numpy.typing import NDArray

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import EncoderDecoderInfo, Manifest
from triform.runtime.encoder_decoder.ask import Ask, manifest_for, prefix_for
from triform.runtime.encoder_decoder.source_text import SourceText
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.generation.answers import (
    Completion,
    Generation,
    Piece,
    Watch,
    best_answer,
    completion_of,
    pieces_of,
)
from triform.runtime.generation.loop import plain_loop
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.checks import at_least_one
from triform.runtime.generation.options.conflicts import check_conflicts
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.search.choice import run_search
from triform.runtime.generation.setup import Row, Settled, settle
from triform.runtime.graphs.encoder_decoder import SourceReader
from triform.runtime.graphs.encoder_output import EncoderOutput
from triform.runtime.graphs.padding import text_arrays
from triform.runtime.graphs.session import SessionOptions, open_session
from triform.runtime.graphs.signature import check_decoder_of
from triform.runtime.printable import quoted
from triform.runtime.text.checks import checked
from triform.runtime.text.stop_strings import TextStops

# Sources read ahead, to batch those of similar length.
_WINDOW = 256
# Source texts are truncated to this many tokens if the model has no limit of its own.
_LONGEST = 2**14


class SourceWriter:
    """A loaded encoder-decoder bundle. Several threads may use it at once. `EncoderDecoder` adds images.

    Attributes:
        providers: the execution providers in use, the first choice first.
        info: the manifest's encoder-decoder part.
        reader: runs the graphs.
        text: tokenizes source texts, and decodes generated tokens.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        strict: bool = False,
        **session_options: Unpack[SessionOptions],
    ) -> None:
        """Open the bundle's graphs and tokenizers.

        Args:
            bundle: from `open_bundle`.
            strict: refuse texts that are longer than the model can read, instead of truncating them.
            session_options: see `SessionOptions`.

        Raises:
            BundleError: a file is damaged, or a graph does not match the manifest.
            ProviderError: the named provider cannot be used.
        """
        start = time.perf_counter()
        manifest = bundle.manifest
        if manifest.encoder_decoder is None:
            raise BundleError(f"{bundle.folder}: the manifest lacks its encoder-decoder part; export the model again")
        self._bundle = bundle
        self.info: EncoderDecoderInfo = manifest.encoder_decoder
        self.text = SourceText(
            bundle.folder, self.info.text, self.info.max_source_length or _LONGEST, self._source_vocabulary(),
            strict=strict, truncation_side=bundle.tokenizer.truncation_side,
        )  # fmt: skip
        (encoder_path, _), (decoder_path, _) = bundle.graph("encoder"), bundle.graph("decoder")
        encoder = open_session(encoder_path, **session_options)
        # Steps are not recorded: each source has buffers of its own, and threads may run the graph side by side.
        decoder = open_session(decoder_path, **session_options)
        self.providers: list[str] = decoder.get_providers()
        cache = check_decoder_of(encoder, decoder, manifest, bundle.folder)
        self.reader = SourceReader(encoder, decoder, manifest, cache)
        self._load_seconds = time.perf_counter() - start

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    def generate(
        self,
        source: str,
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
    ) -> Generation:
        """Generate from one text: translate it, summarize it, or whatever the model does.

        Args:
            source: the text.
            options: the model's own defaults when None.
            ask: the task and the languages.
            beams: the settings of beam search; the model's own defaults when None.

        Returns:
            the answer; of a search, the best one. Its `prompt_tokens` counts the source's tokens.

        Raises:
            InputError: the text is empty or, if `strict`, too long; the model does not support an option, the task or
                a language; two options contradict each other.
            UnsupportedError: the model does not read texts.
        """
        watch, settled = Watch(), self.settle(options, ask=ask, beams=beams)
        (ids,) = self._ids([source], ask or Ask(), 1)
        watch.prompt_tokens = len(ids)
        row, encoded = self._row(settled, ids, 0), self._read([ids])
        if settled.search is None:
            return watch.finished(list(self.pieces(encoded, row, watch)), self._load_seconds)
        best = best_answer(self.reader.batch_step(encoded), row, settled, watch)
        return watch.searched(best, self._load_seconds)

    def generate_all(
        self,
        sources: Iterable[str],
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
        batch: int = 8,
    ) -> Iterator[list[Completion]]:
        """Generate from any number of texts, in bounded memory. Texts of similar length run together.

        Args:
            sources: the texts.
            options: see `generate`. With a seed, samples depend on a text's position among all.
            ask: see `generate`.
            beams: see `generate`.
            batch: texts to run at once.

        Yields:
            the answers for each text, in the order of the texts: as many as `beams` requests, the best first.

        Raises:
            InputError: see `generate`; or batches do not support an option.
            UnsupportedError: see `generate`.
        """
        at_least_one().judge("batch", batch)
        settled = self._settled(options, ask or Ask(), beams or Beams(), several=True)
        return self._all(checked(sources), settled, ask or Ask(), batch)

    def stream(
        self, source: str, options: GenerationOptions | None = None, *, ask: Ask | None = None
    ) -> Iterator[Piece]:
        """Generate from one text piece by piece, without beams. Arguments and errors as in `generate`.

        Returns:
            an iterator of at least one `Piece`; the last has a finish_reason.
        """
        settled = self._settled(options, ask or Ask(), None)
        (ids,) = self._ids([source], ask or Ask(), 1)
        return self.pieces(self._read([ids]), self._row(settled, ids, 0))

    def settle(
        self,
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
    ) -> Settled:
        """Return the settings that `generate` would use. `search` is None if the answer can be streamed.

        Args:
            options: see `generate`.
            ask: see `generate`.
            beams: see `generate`.

        Raises:
            InputError: the model does not support an option, the task or a language; two options contradict each other.
        """
        return self._settled(options, ask or Ask(), beams or Beams())

    def pieces(self, encoded: EncoderOutput, row: Row, watch: Watch | None = None) -> Iterator[Piece]:
        """Generate from one encoded source, piece by piece.

        Args:
            encoded: from `reader.read`.
            row: the decoder's prompt and the settings.
            watch: times each token.
        """
        step = self.reader.step(encoded)
        step.wanted = row.wanted
        tokens = plain_loop(step, row.ids, row.growing())
        return pieces_of(tokens, TextStops(self.text.target, row.settled.options.stop), watch or Watch())

    def write(
        self,
        arrays: Mapping[str, NDArray[Any]],
        options: GenerationOptions | None = None,
        *,
        ask: Ask | None = None,
        beams: Beams | None = None,
        first: int = 0,
    ) -> list[list[Completion]]:
        """Generate from sources that are not texts, such as images.

        Args:
            arrays: a batch, by the names of the encoder's inputs.
            options: see `generate_all`.
            ask: the language.
            beams: see `generate`.
            first: the position of the first source among all; with a seed, its random numbers depend on it.

        Returns:
            the answers for each source, the best first.

        Raises:
            InputError: see `generate_all`.
            TriformError: onnxruntime failed.
        """
        settled = self._settled(options, ask or Ask(), beams or Beams(), several=True)
        count = len(next(iter(arrays.values())))
        rows = [self._row(settled, None, place) for place in range(first, first + count)]
        return self._write(self.reader.read(arrays), settled, rows)

    def _all(self, sources: Iterable[str], settled: Settled, ask: Ask, batch: int) -> Iterator[list[Completion]]:
        source, first = iter(sources), 1
        while window := list(islice(source, _WINDOW)):
            ids = self._ids(window, ask, first)
            answers_of: list[list[Completion]] = [[]] * len(ids)
            order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                rows = [self._row(settled, ids[index], first + index - 1) for index in chosen]
                answers = self._write(self._read([ids[index] for index in chosen]), settled, rows)
                for index, answer in zip(chosen, answers, strict=True):
                    answers_of[index] = answer
            yield from answers_of
            first += len(window)

    def _write(self, encoded: EncoderOutput, settled: Settled, rows: Sequence[Row]) -> list[list[Completion]]:
        results = run_search(self.reader.batch_step(encoded), rows, settled.search)
        return [[completion_of(hypothesis, settled) for hypothesis in hypotheses] for hypotheses in results]

    def _read(self, rows: Sequence[Sequence[int]]) -> EncoderOutput:
        return self.reader.read(text_arrays(rows, self.manifest.tokens.pad))

    def _row(self, settled: Settled, encoder_ids: Sequence[int] | None, index: int) -> Row:
        return settled.row([self.info.decoder_start], index, encoder_ids=encoder_ids)

    def _settled(
        self, options: GenerationOptions | None, ask: Ask, beams: Beams | None, *, several: bool = False
    ) -> Settled:
        """The user's options completed with those of the task and the language."""
        requested = options or GenerationOptions()
        forced, own = self.text.forced(ask.target_lang), requested.constraints.forced_bos_token_id
        check_conflicts({"target_lang": ask.target_lang if forced else None, "forced_bos_token_id": own})
        if forced and own is None:
            constraints = dataclasses.replace(requested.constraints, forced_bos_token_id=forced[0])
            requested = dataclasses.replace(requested, constraints=constraints)
        return settle(requested, manifest_for(self.manifest, ask), self.text.target, beams=beams, several=several)

    def _ids(self, sources: Sequence[str], ask: Ask, first: int) -> list[list[int]]:
        if self.info.source != "text":
            raise UnsupportedError(f"{self._bundle.folder} reads {self.info.source}, not texts")
        prefix = prefix_for(self.info, ask)
        for number, source in enumerate(sources, first):
            if not isinstance(source, str):
                raise InputError(f"text {number} is {quoted(source)}, which is not a text")
            if not source.strip():
                raise InputError(f"text {number} is empty")
        texts = [prefix + source for source in sources]
        return self.text.read(texts, source_lang=ask.source_lang, target_lang=ask.target_lang, first=first)

    def _source_vocabulary(self) -> int:
        # The encoder's vocabulary may be larger or smaller than the decoder's.
        return max(self.manifest.vocab_size, self.info.text.vocabulary or 0)
