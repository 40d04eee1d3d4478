"""What a generation gives back: pieces while it runs, one record when it is done."""

from __future__ import annotations

from dataclasses import dataclass

from triform.runtime.logprobs import TokenLogprobs
from triform.runtime.loop import FinishReason


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
