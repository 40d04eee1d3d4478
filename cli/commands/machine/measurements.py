"""What `triform bench` measures of each kind of model."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.generation.answers import Generation
    from triform.runtime.generation.options.generation import GenerationOptions, Speculate
    from triform.runtime.speech.model import CtcModel, SpeechModel
    from triform.runtime.text.rows import TokenRow

# A text of any length is made of this.
_SENTENCE = "The river rises in the hills, runs past the old mill, and meets the sea below the town. "
_PROMPT, _TEXT = 512, 128

Figures = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """What a model is given.

    Attributes:
        file: a text, an image or a recording; a text is made up when None.
        tokens: the length of the text; a length that suits the model when None.
        new_tokens: tokens to generate.
        batch: texts or images in a batch.
        runs: how often to measure.
    """

    file: Path | None = None
    tokens: int | None = None
    new_tokens: int = 64
    batch: int = 32
    runs: int = 5

    def allow(self, *names: str) -> None:
        """Check that of the sizes only these were given.

        Raises:
            InputError: another one was.
        """
        from triform.runtime.errors import refuse_unused

        others = {field.name: field.default for field in fields(self) if field.name not in ("file", "runs", *names)}
        given = {name: getattr(self, name) != default for name, default in others.items()}
        refuse_unused("does not apply to what this model is given", **given)
        if self.file is not None:
            refuse_unused("is the length of a made-up text, and --file names one", tokens=self.tokens is not None)


def measure(model: Decoder | Encoder | EncoderDecoder | CtcModel, work: Work) -> Figures:
    """Measure a model of any form; names of figures end in their unit.

    Raises:
        InputError: the file is missing or cannot be read, or the text is too long for the model.
        UnsupportedError: a package that reads the file is missing.
    """
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.encoder.model import Encoder

    if isinstance(model, Decoder):
        return _decoder(model, work)
    if isinstance(model, Encoder):
        if model.info.audio is not None:
            return _sounds(model, work)
        return _texts(model, work) if model.rows is not None else _images(model, work)
    from triform.runtime.speech.model import CtcModel, SpeechModel

    if isinstance(model, SpeechModel | CtcModel):
        return _speech(model, work)
    return _image_reading(model, work) if model.info.source == "image" else _text_to_text(model, work)


def _decoder(model: Decoder, work: Work) -> Figures:
    work.allow("tokens", "new_tokens")
    room = model.manifest.max_length - work.new_tokens
    _check_room(work, room, model.manifest.max_length)
    prompt = _text(work, work.tokens or min(_PROMPT, room), lambda text: _count(model, text))
    options = _options(work, speculate="off")

    def generate() -> Generation:
        # What the last run computed of this prompt would be used again.
        model.forget()
        return model.generate(prompt, options, raw=True)

    answers = _repeat(generate, work.runs)
    return {"prompt_tokens": answers[0].prompt_tokens} | _generation(answers)


def _count(model: Decoder, text: str) -> int:
    from triform.runtime.errors import ContextError

    try:
        return model.count_tokens(text, raw=True)
    except ContextError:
        # More than any text that is looked for.
        return model.manifest.max_length + 1


def _check_room(work: Work, room: int, context: int) -> None:
    from triform.runtime.errors import InputError

    if room < 1:
        raise InputError(f"--new-tokens {work.new_tokens} leaves no room for a prompt in a context of {context} tokens")
    if work.tokens is not None and work.tokens > room:
        raise InputError(
            f"--tokens {work.tokens} and --new-tokens {work.new_tokens} are more than this model's context of {context}"
        )


def _text_to_text(model: EncoderDecoder, work: Work) -> Figures:
    from triform.runtime.encoder_decoder.ask import Ask

    work.allow("tokens", "new_tokens")
    languages = model.text.languages
    ask = Ask(
        source_lang=languages.default_source or next(iter(languages.sources), None),
        target_lang=languages.default_target or next(iter(languages.targets), None),
    )

    def count(text: str) -> int:
        return len(model.text.read([text], source_lang=ask.source_lang, target_lang=ask.target_lang)[0])

    source = _text(work, work.tokens or min(_TEXT, model.info.max_source_length or _TEXT), count)
    answers = _repeat(lambda: model.generate(source, _options(work), ask=ask), work.runs)
    return {"source_tokens": answers[0].prompt_tokens} | _generation(answers)


def _generation(answers: Sequence[Generation]) -> Figures:
    timings = [answer.timings for answer in answers]
    steps = [seconds for timing in timings for seconds in timing.tokens]
    return {
        "new_tokens": len(answers[0].token_ids),
        "prefill_tokens_per_second": median(answer.prefill_tokens_per_second for answer in answers),
        "decode_tokens_per_second": median(timing.decode_tokens_per_second for timing in timings),
        "first_token_latency": _percentiles([timing.prefill for timing in timings]),
        "token_latency": _percentiles(steps),
    }


def _texts(model: Encoder, work: Work) -> Figures:
    from triform.runtime.text.pages import laid_out

    work.allow("tokens", "batch")
    rows = model.reader()

    def read(text: str) -> TokenRow:
        return rows.read([text if rows.boxes is None else laid_out(text)])[0]

    text = _text(work, work.tokens or min(_TEXT, model.manifest.max_length), lambda text: len(read(text).ids))
    row, outputs = read(text), list(model.step.outputs)
    positions = [[0]] if "logits_positions" in model.step.inputs else None
    figures = _passes(lambda count: model.step.run([row] * count, outputs, positions and positions * count), work)
    return {"text_tokens": len(row.ids)} | figures


def _images(model: Encoder, work: Work) -> Figures:
    from triform.runtime.encoder.vectors.image_embedding import encoder_pixels
    from triform.runtime.graphs.encoder_batch import EncoderStep

    work.allow("batch")
    step: EncoderStep = model.step
    pixels = encoder_pixels(model, _required(work, "an image"))

    def run(count: int) -> object:
        rows = {name: array[None].repeat(count, axis=0) for name, array in pixels.items()}
        return step.feed(rows, list(step.outputs))

    return _passes(run, work)


def _passes(run: Callable[[int], object], work: Work) -> Figures:
    """The figures of an encoder, of which `run` runs so many inputs at once."""
    single = _seconds(lambda: run(1), work.runs)
    several = _seconds(lambda: run(work.batch), work.runs)
    return {
        "latency": _percentiles(single),
        "batch": work.batch,
        "inputs_per_second": work.batch / median(several),
    }


def _speech(model: SpeechModel | CtcModel, work: Work) -> Figures:
    from triform.runtime.media.audio import open_audio

    work.allow()
    path = _required(work, "a recording")
    with open_audio(path, lambda warning: None) as audio:
        duration = audio.duration
    seconds = median(_seconds(lambda: model.transcribe(path), work.runs))
    speed = None if duration is None else duration / seconds
    return {"recording_seconds": duration, "transcription_seconds": seconds, "times_faster_than_speech": speed}


def _sounds(model: Encoder, work: Work) -> Figures:
    work.allow()
    path = _required(work, "a recording")
    return {"latency": _percentiles(_seconds(lambda: model.classify_audio([path]), work.runs))}


def _image_reading(model: EncoderDecoder, work: Work) -> Figures:
    work.allow("new_tokens")
    path = _required(work, "an image")
    seconds = _seconds(lambda: model.read_images([path], _options(work)), work.runs)
    return {"latency": _percentiles(seconds)}


def _options(work: Work, *, speculate: Speculate = "auto") -> GenerationOptions:
    """Greedy decoding of exactly so many tokens."""
    from triform.runtime.generation.options.generation import GenerationOptions

    tokens = work.new_tokens
    return GenerationOptions(max_new_tokens=tokens, min_new_tokens=tokens, temperature=0, speculate=speculate)


def _text(work: Work, tokens: int, count: Callable[[str], int]) -> str:
    """The text of the file, or one of at most so many tokens."""
    from triform.cli.inputs.whole_text import read_text_file

    if work.file is not None:
        return read_text_file("--file", work.file)
    # A word is at least one token.
    text = _SENTENCE * (tokens // len(_SENTENCE.split()) + 1)
    return text[: bisect_right(range(1, len(text)), tokens, key=lambda most: count(text[:most]))]


def _required(work: Work, what: str) -> Path:
    from triform.runtime.errors import InputError

    if work.file is None:
        raise InputError(f"this model reads {what}: name one with --file")
    return work.file


def _repeat(run: Callable[[], Result], runs: int) -> list[Result]:
    """The results after one that is left out."""
    return [run() for _ in range(runs + 1)][1:]


def _seconds(run: Callable[[], object], runs: int) -> list[float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return _repeat(timed, runs)


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    # Of one measurement there are no quantiles.
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else list(seconds) * 99
    return {f"p{percent}": cuts[percent - 1] for percent in (50, 90, 99)}
