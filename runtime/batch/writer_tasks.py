"""What models that write do with the rows of a table: answers to prompts, and transcripts of recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from triform.runtime.batch.opened import OpenTask, Values
from triform.runtime.decoder.prompt_input import PromptOptions
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions, values_by_name
from triform.runtime.speech.options import TranscribeOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from triform.runtime.generation.answers import Completion
    from triform.runtime.opening import LoadOptions


@dataclass(frozen=True)
class GenerateTask:
    """Answers each text, as `Decoder.generate_all` does.

    The columns are `generated_text`, `finish_reason` and `generated_tokens`; of a search also `score`, and
    `alternatives` where it returns several answers. With a seed, random numbers depend on the texts that are answered
    together.

    Attributes:
        options: see `GenerationOptions`.
        beams: see `Beams`.
        batch: texts to run at once.
        prompts: how texts become prompts: see `PromptInput`.
    """

    options: GenerationOptions = field(default_factory=GenerationOptions)
    beams: Beams = field(default_factory=Beams)
    batch: int = 8
    prompts: PromptOptions = field(default_factory=PromptOptions)

    reads: ClassVar[Literal["text", "audio"]] = "text"
    rows: ClassVar[int] = 64

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name; the size of a batch is not one."""
        return values_by_name(self.options) | vars(self.beams) | dict(self.prompts)

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the decoder; errors as `load_decoder` and `Decoder.generate_all`."""
        from triform.runtime.opening import load_decoder

        model = load_decoder(bundle, **loading)
        searched = model.settle(self.options, beams=self.beams).search is not None
        several = searched and (self.beams.num_return_sequences or 1) > 1
        # The call itself checks options that do not work in batches.
        model.generate_all((), self.options, beams=self.beams, batch=self.batch, **self.prompts)

        def work(texts: Iterable[str]) -> Iterator[Values]:
            texts = list(texts)
            options = replace(self.options, seed=seed_for(self.options.seed, texts))
            answers = model.generate_all(texts, options, beams=self.beams, batch=self.batch, **self.prompts)
            return map(_row, answers)

        columns = _columns(searched=searched, several=several)
        return OpenTask(columns, work, partial(model.count_tokens, **self.prompts))


def seed_for(seed: int | None, texts: Sequence[str]) -> int | None:
    """A seed for some of a table's texts: with one seed for all, each block would repeat the same random numbers."""
    if seed is None:
        return None
    digest = hashlib.blake2b(repr((seed, texts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _columns(*, searched: bool, several: bool) -> dict[str, pa.DataType]:
    import pyarrow as pa

    columns = {"generated_text": pa.string(), "finish_reason": pa.string(), "generated_tokens": pa.int64()}
    if searched:
        columns["score"] = pa.float64()
    if several:
        alternative = pa.struct([("generated_text", pa.string()), ("score", pa.float64())])
        columns["alternatives"] = pa.list_(alternative)
    return columns


def _row(answers: list[Completion]) -> Values:
    best = answers[0]
    return {
        "generated_text": best.text,
        "finish_reason": best.finish_reason,
        "generated_tokens": len(best.token_ids),
        "score": best.score,
        "alternatives": [{"generated_text": other.text, "score": other.score} for other in answers[1:]],
    }


@dataclass(frozen=True)
class TranscribeTask:
    """Transcribes recordings, as `SpeechModel.transcribe` does; rows are names of audio files.

    The columns are `transcript`, the text without spaces around it; `segments` with their times and words; and
    `warnings`, such as that a file is cut off.

    Attributes:
        options: see `TranscribeOptions`.
    """

    options: TranscribeOptions = field(default_factory=TranscribeOptions)

    reads: ClassVar[Literal["text", "audio"]] = "audio"
    rows: ClassVar[int] = 8

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        return dict(vars(self.options))

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the speech model; errors as `load_speech`."""
        from triform.runtime.media.audio import open_audio, require_audio
        from triform.runtime.opening import load_speech
        from triform.runtime.speech.ctc.recognizer import CtcRecognizer
        from triform.runtime.speech.ctc.transcription import check_ctc_options
        from triform.runtime.speech.transcription import transcribe

        require_audio()
        model = load_speech(bundle, **loading)
        if isinstance(model, CtcRecognizer):
            check_ctc_options(self.options)
        # The call itself checks options that the model does not have.
        transcribe(model, np.zeros(1, np.float32), self.options)

        def work(names: Iterable[str]) -> Iterator[Values]:
            for name in names:
                warnings: list[str] = []
                with open_audio(name, warnings.append) as audio:
                    segments = list(transcribe(model, audio, self.options))
                text = "".join(segment.text for segment in segments).strip()
                yield {"transcript": text, "segments": list(map(asdict, segments)), "warnings": warnings}

        def check(name: str) -> None:
            open_audio(name, lambda warning: None).close()

        return OpenTask(_transcript_columns(), work, check)


def _transcript_columns() -> dict[str, pa.DataType]:
    import pyarrow as pa

    times = [("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())]
    word = pa.struct([*times, ("probability", pa.float64())])
    segment = pa.struct([*times, ("language", pa.string()), ("words", pa.list_(word))])
    return {"transcript": pa.string(), "segments": pa.list_(segment), "warnings": pa.list_(pa.string())}
