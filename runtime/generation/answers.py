"""What a generation gives back: pieces while it runs, one record when it is done."""

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
from triform.runtime.text.stop_strings import StopStrings, TextStops


@dataclass(frozen=True)
class Piece:
    """A bit of generated text, always whole characters.

    Attributes:
        text: may be empty, when a token ends inside a character or in what could be a stop string.
        token_ids: the tokens since the previous piece.
        finish_reason: on the last piece, "stop" or "length".
        logprobs: of these tokens, when they were asked for.
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
        tokens: each further token; of several that one run gave, the first has its time. Of a search each further
            step, which makes every answer that it follows a token longer.
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
        text: what was generated, up to a stop string, special tokens left out.
        token_ids: all generated tokens, an end-of-sequence token and those of a stop string included.
        finish_reason: "stop" at an end-of-sequence token or a stop string, "length" at the limit.
        prompt_tokens: length of the prompt after the chat template.
        timings: in seconds.
        logprobs: of all generated tokens, when they were asked for.
        cached_tokens: tokens of the prompt that were not run, because their keys and values were known.
        proposed_tokens: tokens that were tried several in a run; see `GenerationOptions.speculate`.
        accepted_tokens: of these, those that are part of the answer.
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

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens that were run, per second up to the first generated token."""
        return (self.prompt_tokens - self.cached_tokens) / self.timings.prefill


@dataclass
class Watch:
    """Counts and seconds of one generation, from when it is made.

    Attributes:
        prompt_tokens: of the prompt.
        cached_tokens: of these, those that the cache held.
        times: seconds up to the first token, and those of each further one.
        pace: of speculation.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    times: list[float] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    _last: float = field(default_factory=lambda: time.perf_counter())

    def note(self) -> None:
        """Note that a token is there."""
        now = time.perf_counter()
        self.times.append(now - self._last)
        self._last = now

    def finished(self, pieces: Sequence[Piece], load: float) -> Generation:
        """The record of a whole generation.

        Args:
            pieces: all of them.
            load: seconds it took to open the bundle.
        """
        logprobs = [one for piece in pieces for one in piece.logprobs or ()]
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
        )

    def searched(self, best: Written, load: float) -> Generation:
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
    """A `BatchStep` whose runs are noted by a watch: a search chooses tokens between one run and the next."""

    def __init__(self, step: BatchStep, watch: Watch) -> None:
        self._step, self._watch = step, watch

    def prefill(self, rows: Sequence[Sequence[int]]) -> Logits:
        """See `BatchStep`."""
        return self._step.prefill(rows)

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Logits:
        """See `BatchStep`."""
        self._watch.note()
        return self._step.next(tokens, parents)


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


def written(hypothesis: Hypothesis, settled: Settled) -> Written:
    """A hypothesis as text.

    Args:
        hypothesis: from `run_search`.
        settled: what holds for all answers of the call.
    """
    stop, tokenizer = StopStrings(settled.options.stop), settled.tokenizer
    text = stop.push(tokenizer.decode(list(hypothesis.token_ids), skip_special_tokens=True)) + stop.flush()
    reason: FinishReason = "stop" if stop.found else hypothesis.finish_reason
    return Written(text, hypothesis.token_ids, reason, hypothesis.score if settled.search is not None else None)


def pieces_of(tokens: Iterable[Token], stops: TextStops, watch: Watch) -> Iterator[Piece]:
    """Tokens as pieces of text, up to a stop string.

    Args:
        tokens: as they are generated.
        stops: turns them into text.
        watch: notes each of them.

    Yields:
        a piece for each token; nothing is generated after the last.
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


def best_answer(step: BatchStep, row: Row, settled: Settled, watch: Watch) -> Written:
    """Search for the best answer to one prompt.

    Args:
        step: the model, with room for `rows_of` the search.
        row: the prompt.
        settled: what holds for its answers.
        watch: notes each step of the search.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    ((best, *_),) = run_search(WatchedStep(step, watch), [row], settled.search)
    watch.note()
    return written(best, settled)
