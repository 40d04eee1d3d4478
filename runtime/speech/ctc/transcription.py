"""Transcribes recordings of any length with models for CTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from triform.runtime.errors import refuse_unused
from triform.runtime.speech.ctc.chunks import Chunk, chunks
from triform.runtime.speech.ctc.decoding import CtcDecoder, FramedToken, GreedyDecoder
from triform.runtime.speech.ctc.prefix_beams import PrefixBeamDecoder
from triform.runtime.speech.ctc.recognizer import CtcRecognizer
from triform.runtime.speech.ctc.words import segments
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.recording import Recording, speech_of
from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.utterances import cut_spans

# Options that mean something here; all others are for models that write token after token.
_SUPPORTED = {"word_timestamps", "vad", "voice_activity", "batch", "num_beams"}


def transcribe_ctc(
    model: CtcRecognizer, recording: Recording, options: TranscribeOptions, progress: Callable[[float], None]
) -> Iterator[Segment]:
    """Transcribe a recording, segment by segment; see `transcribe`.

    Recordings longer than the model reads at once are run in overlapping chunks; with `vad`, each stretch of speech is
    run by itself.

    Raises:
        InputError: an option is for models that write token after token.
        UnsupportedError: a package that finds speech is missing.
    """
    check_ctc_options(options)
    if options.vad:
        return _of_speech(model, recording, options, progress)
    rate = model.audio.sampling_rate
    parts = chunks(recording.blocks(rate), rate, model.frame_step, model.audio.longest)
    return _segments(model, _decoded(model, parts, options, progress), 0.0, options)


def check_ctc_options(options: TranscribeOptions) -> None:
    """Refuse options that mean nothing for CTC.

    Raises:
        InputError: names the first of them.
    """
    others = [item for item in dataclasses.fields(options) if item.name not in _SUPPORTED]
    given = {item.name: getattr(options, item.name) != item.default for item in others}
    refuse_unused("is for models with a prompt and sampling, and this one hears all tokens at once (CTC)", **given)
    refuse_unused("is of `vad`, which is off", voice_activity=options.voice_activity is not None and not options.vad)


def _of_speech(
    model: CtcRecognizer, recording: Recording, options: TranscribeOptions, progress: Callable[[float], None]
) -> Iterator[Segment]:
    rate = model.audio.sampling_rate
    spans = cut_spans(recording.blocks(rate), speech_of(recording, options.voice_activity, model.audio.longest), rate)
    while group := list(islice(spans, options.batch)):
        results = model.log_probs([samples for _, samples in group])
        for (span, _), log_probs in zip(group, results, strict=True):
            decoder = _decoder(model, options)
            yield from _segments(model, [*decoder.feed(log_probs), *decoder.finish()], span.start, options)
        progress(group[-1][0].end)


def _decoded(
    model: CtcRecognizer, parts: Iterator[Chunk], options: TranscribeOptions, progress: Callable[[float], None]
) -> Iterator[FramedToken]:
    decoder = _decoder(model, options)
    while group := list(islice(parts, options.batch)):
        for part, log_probs in zip(group, model.log_probs([part.samples for part in group]), strict=True):
            own = log_probs[part.skipped :]
            yield from decoder.feed(own if part.kept is None else own[: part.kept])
        progress(group[-1].end)
    yield from decoder.finish()


def _decoder(model: CtcRecognizer, options: TranscribeOptions) -> CtcDecoder:
    count = options.num_beams or 1
    return GreedyDecoder(model.ctc.blank) if count == 1 else PrefixBeamDecoder(model.ctc.blank, count)


def _segments(
    model: CtcRecognizer, tokens: Iterable[FramedToken], start: float, options: TranscribeOptions
) -> Iterator[Segment]:
    frame = model.frame_step / model.audio.sampling_rate
    return segments(tokens, model.pieces, frame, start, words=options.word_timestamps)
