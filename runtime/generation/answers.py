"""What a generation gives back: pieces while it runs, one record when it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from triform.runtime.generation.logprobs import TokenLogprobs
from triform.runtime.generation.search.batch import Hypothesis
from triform.runtime.generation.speculation.pace import Pace
from triform.runtime.generation.steps import FinishReason
from triform.runtime.text.stop_strings import StopStrings
from triform.runtime.text.tokenizer import Tokenizer


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
        tokens: each further token; of several that one run gave, the first has its time.
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
    """Counts and seconds of one generation.

    Attributes:
        prompt_tokens: of the prompt.
        cached_tokens: of these, those that the cache held.
        prefill: seconds up to the first token.
        tokens: seconds of each further token.
        pace: of speculation.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill: float = 0.0
    tokens: list[float] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    _started: bool = False

    def note(self, since: float) -> float:
        """Note the time a token took; return the time now."""
        now = time.perf_counter()
        if self._started:
            self.tokens.append(now - since)
        else:
            self._started, self.prefill = True, now - since
        return now

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
            timings=Timings(load, self.prefill, tuple(self.tokens)),
            logprobs=tuple(logprobs) if logprobs else None,
            cached_tokens=self.cached_tokens,
            proposed_tokens=self.pace.proposed,
            accepted_tokens=self.pace.accepted,
        )


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


def written(hypothesis: Hypothesis, tokenizer: Tokenizer, stops: Sequence[str], scored: bool) -> Written:
    """A hypothesis as text.

    Args:
        hypothesis: what a search found.
        tokenizer: decodes it.
        stops: texts at which it ends.
        scored: whether its score means anything.
    """
    stop = StopStrings(stops)
    text = stop.push(tokenizer.decode(list(hypothesis.token_ids), skip_special_tokens=True)) + stop.flush()
    reason: FinishReason = "stop" if stop.found else hypothesis.finish_reason
    return Written(text, hypothesis.token_ids, reason, hypothesis.score if scored else None)
