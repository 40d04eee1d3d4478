"""Decodes windows at rising temperatures, until the text is neither repetitive nor unlikely.

Source: openai/whisper's ``decode_with_fallback``. If every try fails, it keeps the last, most random one; here the most
likely of those that are not repetitive is kept. A repetitive text where the model predicts that nobody speaks counts as
silence at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.generation.options.beams import BeamOptions, Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.processors.contract import Processor
from triform.runtime.generation.sampling import row_generator
from triform.runtime.generation.search.batch import Hypothesis, Request
from triform.runtime.generation.search.beams import beam_search
from triform.runtime.generation.search.draws import allowed_by, best_of
from triform.runtime.generation.setup import settle
from triform.runtime.graphs.encoder_decoder import SourceBatchStep
from triform.runtime.graphs.encoder_output import EncoderOutput
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.timestamp_rules import TimestampRules


@dataclass(frozen=True)
class DecodedWindow:
    """The text decoded from a window.

    Attributes:
        tokens: without the prompt and the end-of-text token.
        text: without timestamps.
        avg_logprob: mean log-probability of the tokens and the end-of-text token, in nats.
        no_speech_prob: the probability that nobody speaks; None if the model has no token for that.
        compression_ratio: of the text.
        temperature: at which it was sampled; 0 when greedy.
    """

    tokens: list[int]
    text: str
    avg_logprob: float
    no_speech_prob: float | None
    compression_ratio: float
    temperature: float


class WindowDecoder:
    """Decodes windows that the encoder has read."""

    def __init__(self, model: SourceWriter, options: TranscribeOptions) -> None:
        self._model = model
        self._options = options
        self._speech = model.info.speech
        self._eos = model.manifest.tokens.eos
        # Greedy: this class samples by itself, because it needs the log-probability of each token.
        generation = GenerationOptions(temperature=0, max_new_tokens=options.max_new_tokens)
        self._settled = settle(generation, model.manifest, model.text.target, beams=Beams(options.num_beams))
        # Numbers the samples, so that no two use the same random numbers.
        self._draws = count()

    def decode(self, encoded: EncoderOutput, prompts: Sequence[Sequence[int]]) -> list[DecodedWindow]:
        """Decode windows in one batch.

        Args:
            encoded: from `SourceReader.read`, one window per prompt.
            prompts: the tokens that each begins with; all have the same number of tokens after the start token.

        Returns:
            one result per window.

        Raises:
            InputError: a prompt leaves no room for an answer.
            TriformError: onnxruntime failed, or the logits are not numbers.
        """
        tries: list[list[DecodedWindow]] = [[] for _ in prompts]
        pending = list(range(len(prompts)))
        for temperature in self._options.temperatures:
            answers = self._try(encoded.only(pending), [prompts[i] for i in pending], temperature)
            for index, result in zip(pending, answers, strict=True):
                tries[index].append(result)
            pending = [index for index in pending if self._failed(tries[index][-1])]
            if not pending:
                break
        return [self._best(attempts) for attempts in tries]

    def is_silence(self, result: DecodedWindow) -> bool:
        """Whether the model predicts that nobody speaks, and its text is unlikely or repetitive."""
        limit = self._options.no_speech_threshold
        if limit is None or result.no_speech_prob is None or result.no_speech_prob <= limit:
            return False
        return self._options.logprob_threshold is None or self._is_unlikely(result) or self._repeats(result)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without timestamps."""
        first_time = self._speech.timestamp_begin if self._speech else self._model.manifest.vocab_size
        spoken = [token for token in tokens if token < first_time]
        return self._model.text.target.decode(spoken, skip_special_tokens=True)

    def _failed(self, result: DecodedWindow) -> bool:
        return (self._repeats(result) or self._is_unlikely(result)) and not self.is_silence(result)

    def _is_unlikely(self, result: DecodedWindow) -> bool:
        threshold = self._options.logprob_threshold
        return threshold is not None and result.avg_logprob < threshold

    def _repeats(self, result: DecodedWindow) -> bool:
        threshold = self._options.compression_ratio_threshold
        return threshold is not None and result.compression_ratio > threshold

    def _best(self, tries: Sequence[DecodedWindow]) -> DecodedWindow:
        if not self._failed(tries[-1]):
            return tries[-1]
        return max(tries, key=lambda result: (not self._repeats(result), result.avg_logprob))

    def _try(self, encoded: EncoderOutput, prompts: Sequence[Sequence[int]], temperature: float) -> list[DecodedWindow]:
        requests = [self._request(prompt) for prompt in prompts]
        step = _Watched(self._model.reader.batch_step(encoded), self._starts(prompts))
        beams = self._settled.search
        if temperature == 0 and isinstance(beams, BeamOptions):
            ranked = beam_search(step, requests, beams, eos=self._eos)
            hypotheses = [_scored_by_mean(best, beams.length_penalty) for best, *_ in ranked]
        else:
            answers = self._options.best_of if temperature else 1
            choices = [
                [
                    allowed_by(request.processors, temperature, row_generator(self._options.seed, next(self._draws)))
                    for _ in range(answers)
                ]
                for request in requests
            ]
            hypotheses = [best for best, *_ in best_of(step, requests, choices, eos=self._eos)]
        silence = self._no_speech(step.first)
        return [self._decoded(*pair, temperature) for pair in zip(hypotheses, silence, strict=True)]

    def _request(self, prompt: Sequence[int]) -> Request:
        row = self._settled.row(prompt)
        rules: list[Processor] = []
        if self._speech and self._options.timestamps:
            rules = [TimestampRules(self._speech, len(prompt), self._eos[0])]
        return Request(prompt, row.limit, [*row.processors(), *rules])

    def _starts(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """The position of the start token in each prompt; the text of earlier windows comes before it."""
        return [list(prompt).index(self._model.info.decoder_start) for prompt in prompts]

    def _no_speech(self, logits: NDArray[np.float32]) -> list[float | None]:
        token = self._speech.no_speech if self._speech else None
        if token is None:
            return [None] * len(logits)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return [float(row[token] / row.sum()) for row in weights]

    def _decoded(self, hypothesis: Hypothesis, no_speech_prob: float | None, temperature: float) -> DecodedWindow:
        tokens = [token for token in hypothesis.token_ids if token not in self._eos]
        text = self.text(tokens)
        return DecodedWindow(tokens, text, hypothesis.score, no_speech_prob, compression_ratio(text), temperature)


def _scored_by_mean(hypothesis: Hypothesis, length_penalty: float) -> Hypothesis:
    """With the mean log-probability of its tokens, which thresholds are for, in place of the score for ranking."""
    # The score is the sum, divided by their number to the power of the penalty.
    return replace(hypothesis, score=hypothesis.score * len(hypothesis.token_ids) ** (length_penalty - 1.0))


class _Watched:
    """A `BatchStep` that keeps the logits after the start token.

    Attributes:
        first: those logits, float32 (rows, vocab_size).
        wanted: see `BatchStep`; all logits.
    """

    wanted: int | None = None

    def __init__(self, step: SourceBatchStep, starts: Sequence[int]) -> None:
        self.first = np.zeros((0, 0), np.float32)
        self._step = step
        self._starts = starts
        self.next = step.next

    def prefill(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See `BatchStep`."""
        positions = np.array([[start, len(ids) - 1] for start, ids in zip(self._starts, rows, strict=True)])
        logits = self._step.prefill_at(rows, positions)
        self.first = logits[:, 0]
        result: NDArray[np.float32] = logits[:, 1]
        return result


def compression_ratio(text: str) -> float:
    """The size of a text in bytes divided by its size compressed by zlib; below 1 for short texts."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))
