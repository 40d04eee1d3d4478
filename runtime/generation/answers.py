"""The results of a generation: pieces of text while it runs, a record when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from triform.runtime.generation.logprobs import TokenLogprobs
from triform.runtime.generation.loop import Token
from triform.runtime.generation.search.batch import Hypothesis
from triform.runtime.generation.search.choice import run_search
from triform.runtime.generation.setup import Row, Settled
from triform.runtime.generation.speculation.pace import Pace
from triform.runtime.generation.steps import BatchStep, FinishReason, Logits
from triform.runtime.likeliest import Table
from triform.runtime.text.stop_strings import StopStrings, TextStops


@dataclass(frozen=True)
class Piece:
    """A piece of generated text, always whole characters.

    Attributes:
        text: empty when a token ends within a character or in what may become a stop string.
        token_ids: the tokens since the previous piece.
        finish_reason: on the last piece, "stop" or "length".
        logprobs: of these tokens, if requested.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds.

    Attributes:
        load: opening the bundle.
        prefill: from the call to the first token.
        tokens: for each further token; of several tokens from one run, the first has the run's time. Of a search, for
            each further step.
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
        text: the generated text up to a stop string, without special tokens.
        token_ids: all generated tokens, an end-of-sequence token and those of a stop string included.
        finish_reason: "stop" at an end-of-sequence token or a stop string, "length" at the limit.
        prompt_tokens: length of the prompt after the chat template.
        timings: in seconds.
        logprobs: of all generated tokens, if requested.
        cached_tokens: number of prompt tokens that were not run, because they were in the KV cache.
        proposed_tokens: number of tokens proposed by speculative decoding; see `GenerationOptions.speculate`.
        accepted_tokens: number of these that are part of the answer.
        copied_bytes: of a model on a GPU, bytes copied between host and device for all of it; few where the device
            chooses the tokens, 4 times the vocabulary for each token where an option needs all logits. None on the CPU.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    timings: Timings
    logprobs: tuple[TokenLogprobs, ...] | None = None
    cached_tokens: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    copied_bytes: int | None = None

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens that were run, per second until the first generated token."""
        return (self.prompt_tokens - self.cached_tokens) / self.timings.prefill


@dataclass
class Watch:
    """Counts and times of one generation, which starts when this is made.

    Attributes:
        prompt_tokens: length of the prompt.
        cached_tokens: number of these that were in the KV cache.
        times: seconds until the first token, and for each further one.
        pace: of speculative decoding.
        copied_bytes: see `Generation`.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    times: list[float] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    copied_bytes: int | None = None
    _last: float = field(default_factory=lambda: time.perf_counter())

    def note(self) -> None:
        """Record the time of a token."""
        now = time.perf_counter()
        self.times.append(now - self._last)
        self._last = now

    def finished(self, pieces: Sequence[Piece], load: float) -> Generation:
        """The record of a whole generation.

        Args:
            pieces: all of them.
            load: seconds it took to open the bundle.
        """
        logprobs = [logprob for piece in pieces for logprob in piece.logprobs or ()]
        return Generation(
            text="".join(piece.text for piece in pieces),
            token_ids=tuple(token for piece in pieces for token in piece.token_ids),
            finish_reason=pieces[-1].finish_reason or "length",
            prompt_tokens=self.prompt_tokens,
            timings=self._timings(load),
            logprobs=tuple(logprobs) if logprobs else None,
            cached_tokens=self.cached_tokens,
            proposed_tokens=self.pace.proposed,
            accepted_tokens=self.pace.accepted,
            copied_bytes=self.copied_bytes,
        )

    def searched(self, best: Completion, load: float) -> Generation:
        """The record of the best answer of a search.

        Args:
            best: the answer.
            load: seconds it took to open the bundle.
        """
        return Generation(best.text, best.token_ids, best.finish_reason, self.prompt_tokens, self._timings(load))

    def _timings(self, load: float) -> Timings:
        first, *further = self.times
        return Timings(load, first, tuple(further))


class WatchedStep:
    """A `BatchStep` that records the time of each run of a search."""

    def __init__(self, step: BatchStep, watch: Watch) -> None:
        self._step, self._watch = step, watch

    def prefill(self, rows: Sequence[Sequence[int]]) -> Logits:
        """See `BatchStep`."""
        return self._step.prefill(rows)

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Table:
        """See `BatchStep`."""
        self._watch.note()
        return self._step.next(tokens, parents)


@dataclass(frozen=True)
class Completion:
    """One answer of a search, or the only one.

    Attributes:
        text: without special tokens.
        token_ids: an end-of-sequence token included.
        finish_reason: "stop" at an end-of-sequence token or a stop string, "length" at the limit.
        score: given by the search; None without one.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    score: float | None = None


def completion_of(hypothesis: Hypothesis, settled: Settled) -> Completion:
    """A hypothesis as text.

    Args:
        hypothesis: from `run_search`.
        settled: the settings of the call.
    """
    stop, tokenizer = StopStrings(settled.options.stop), settled.tokenizer
    text = stop.push(tokenizer.decode(list(hypothesis.token_ids), skip_special_tokens=True)) + stop.flush()
    reason: FinishReason = "stop" if stop.found else hypothesis.finish_reason
    return Completion(text, hypothesis.token_ids, reason, hypothesis.score if settled.search is not None else None)


def pieces_of(tokens: Iterable[Token], stops: TextStops, watch: Watch) -> Iterator[Piece]:
    """Turn tokens into pieces of text, up to a stop string.

    Args:
        tokens: as they are generated.
        stops: decodes them and looks for stop strings.
        watch: records their times.

    Yields:
        a piece for each token; no token is taken after the last piece.
    """
    for token in tokens:
        watch.note()
        text, reason = stops.push(token.id), token.finish_reason
        if reason is not None:
            text += stops.flush()
        if stops.found:
            reason = "stop"
        yield Piece(text, (token.id,), reason, None if token.logprobs is None else (token.logprobs,))
        if reason is not None:
            return


def best_answer(step: BatchStep, row: Row, settled: Settled, watch: Watch) -> Completion:
    """Search for the best answer to one prompt.

    Args:
        step: the model, with room for `rows_of` the search.
        row: the prompt.
        settled: the settings of the call.
        watch: records the time of each step.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    ((best, *_),) = run_search(WatchedStep(step, watch), [row], settled.search)
    watch.note()
    return completion_of(best, settled)
