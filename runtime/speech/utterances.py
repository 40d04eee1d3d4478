"""Transcribes with models that predict no timestamps (Moonshine, Speech2Text), one utterance after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import BundleError, InputError, option, refuse_unused
from triform.runtime.media.audio_features import audio_features, pad_features
from triform.runtime.media.sound_files import Samples
from triform.runtime.media.voice_activity import SpeechSpan
from triform.runtime.speech.fallback import DecodedWindow, WindowDecoder
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.recording import Recording, no_longer_than, speech_of
from triform.runtime.speech.transcript import Segment

# Shorter audio may not fill a single frame, in seconds.
_SHORTEST = 0.1


def transcribe_utterances(
    model: SourceWriter,
    info: AudioInfo,
    recording: Recording,
    options: TranscribeOptions,
    progress: Callable[[float], None],
) -> Iterator[Segment]:
    """Transcribe a recording, cut at pauses if it is longer than the model reads at once; see `transcribe`.

    Raises:
        InputError: an option that needs a model with timestamps or languages.
        UnsupportedError: the audio must be cut, and the package that finds pauses is missing.
    """
    _check(options)
    decoder = WindowDecoder(model, options)
    prompt = [model.info.decoder_start, *_language(model, options)]
    pieces = _pieces(recording, info, options)
    return _decoded(model, info, decoder, pieces, (prompt, options), progress)


def _language(model: SourceWriter, options: TranscribeOptions) -> list[int]:
    """The token of the language to write, for models that have several."""
    tokens = model.text.forced(options.language)
    languages = model.text.languages.targets
    if languages and not tokens:
        raise InputError(f"this model needs {option('language')}: it writes {', '.join(sorted(languages))}")
    return tokens


def _check(options: TranscribeOptions) -> None:
    unsupported = {
        f"{option('task')} translate": options.task == "translate",
        option("word_timestamps"): options.word_timestamps,
        option("initial_prompt"): options.initial_prompt is not None,
        option("hotwords"): options.hotwords is not None,
    }
    for name, is_set in unsupported.items():
        if is_set:
            raise InputError(f"this model transcribes each utterance by itself: leave out {name}")
    alone = "has no effect with this model, which transcribes each utterance by itself, without times"
    refuse_unused(
        alone,
        condition_on_previous_text=bool(options.condition_on_previous_text),
        timestamps=not options.timestamps,
        no_speech_threshold=options.no_speech_threshold != TranscribeOptions.no_speech_threshold,
    )


def _pieces(recording: Recording, info: AudioInfo, options: TranscribeOptions) -> Iterator[tuple[SpeechSpan, Samples]]:
    rate = info.sampling_rate
    if not options.vad:
        samples = no_longer_than(int(info.longest * rate), recording.blocks(rate))
        if samples is not None:
            return iter([(SpeechSpan(0.0, len(samples) / rate), samples)])
    spans = speech_of(recording, options.voice_activity, info.longest)
    return cut_spans(recording.blocks(rate), spans, rate)


def cut_spans(
    blocks: Iterable[Samples], spans: Iterable[SpeechSpan], rate: int
) -> Iterator[tuple[SpeechSpan, Samples]]:
    """Yield each span with its samples, without the whole recording in memory.

    Args:
        blocks: float32 (samples) each.
        spans: from first to last.
        rate: samples per second.
    """
    waiting = iter(blocks)
    held, offset = np.zeros(0, np.float32), 0
    for span in spans:
        begin, end = round(span.start * rate), round(span.end * rate)
        while offset + len(held) < end and (block := next(waiting, None)) is not None:
            drop = min(len(held), max(0, begin - offset))
            held, offset = np.concatenate([held[drop:], block]), offset + drop
        yield span, held[max(0, begin - offset) : end - offset]


def _decoded(
    model: SourceWriter,
    info: AudioInfo,
    decoder: WindowDecoder,
    pieces: Iterator[tuple[SpeechSpan, Samples]],
    request: tuple[list[int], TranscribeOptions],
    progress: Callable[[float], None],
) -> Iterator[Segment]:
    prompt, options = request
    while group := list(islice(pieces, options.batch)):
        audible = [(span, samples) for span, samples in group if _is_audible(samples, info)]
        if audible:
            encoded = model.reader.read(_arrays(model, info, [samples for _, samples in audible]))
            answers = decoder.decode(encoded, [prompt] * len(audible))
            for (span, _), answer in zip(audible, answers, strict=True):
                if answer.text.strip():
                    yield _segment(span, answer, options.language)
        progress(group[-1][0].end)


def _is_audible(samples: Samples, info: AudioInfo) -> bool:
    return len(samples) >= _SHORTEST * info.sampling_rate and bool(samples.any())


def _arrays(model: SourceWriter, info: AudioInfo, rows: Sequence[Samples]) -> dict[str, NDArray[Any]]:
    """The inputs of the encoder graph by name: the features and their attention mask."""
    features, mask = pad_features(
        [audio_features(samples, info) for samples in rows], info.padding_value, info.multiple
    )
    names = [node.name for node in model.manifest.graphs["encoder"].inputs]
    sound = [name for name in names if name != "attention_mask"]
    if len(sound) != 1:
        raise BundleError(f"the encoder takes {', '.join(names)}, not audio; export the model again")
    return {sound[0]: features, "attention_mask": mask}


def _segment(span: SpeechSpan, answer: DecodedWindow, language: str | None) -> Segment:
    return Segment(
        round(span.start, 2),
        round(span.end, 2),
        answer.text,
        answer.tokens,
        answer.avg_logprob,
        answer.no_speech_prob,
        answer.compression_ratio,
        answer.temperature,
        language=language,
    )
