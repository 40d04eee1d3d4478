"""Which of several tries at a window is kept: what each try gives is given here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.fake_step import FakeStep
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.manifest import Tokens
from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.beams import beam_search
from triform.runtime.speech.fallback import DecodedWindow, WindowDecoder, compression_ratio
from triform.runtime.speech.options import TEMPERATURES, TranscribeOptions
from triform.runtime.speech.timestamp_rules import TimestampRules

MANIFEST = SimpleNamespace(
    generation=GenerationDefaults(), tokens=Tokens(None, [2], None), vocab_size=9, max_length=20, encoder_decoder=None,
    cache=None,
)  # fmt: skip
MODEL = SimpleNamespace(
    info=SimpleNamespace(speech=None), manifest=MANIFEST, text=SimpleNamespace(target=None), reader=None
)
# Unlikely below -1, repetitive above 2.4, silence above 0.6.
GOOD, UNLIKELY, LESS, REPEATED = (-0.9, 2.4, 0.1), (-1.1, 1.0, 0.1), (-1.5, 1.0, 0.1), (-0.2, 2.5, 0.1)
SILENT, LIKELY_SILENT, REPEATED_SILENT = (-1.1, 1.0, 0.7), (-0.9, 1.0, 0.7), (-0.2, 2.5, 0.7)


def decoded(temperature, logprob, ratio, silence):
    return DecodedWindow([], "", logprob, silence, ratio, temperature)


class Scripted(WindowDecoder):
    """Gives in each try what is listed for each window; remembers which windows were tried."""

    def __init__(self, tries, **options):
        super().__init__(MODEL, TranscribeOptions(**options))
        self.tries, self.tried = tries, []

    def _try(self, encoded, prompts, temperature):
        self.tried.append(list(encoded))
        return [decoded(temperature, *self.tries[window][len(self.tried) - 1]) for window in encoded]


class Encoded(list):
    """Some windows by their numbers."""

    def only(self, places):
        return [self[place] for place in places]


def results(*tries, **options):
    decoder = Scripted(tries, **{"temperatures": (0.0, 0.2, 0.4), **options})
    return [one.temperature for one in decoder.decode(Encoded(range(len(tries))), [[1]] * len(tries))], decoder.tried


@pytest.mark.parametrize(
    ("tries", "kept", "count"),
    [
        ([GOOD], 0.0, 1),
        ([UNLIKELY, GOOD], 0.2, 2),
        ([REPEATED, UNLIKELY, GOOD], 0.4, 3),
        # All failed: the likeliest of those that do not repeat themselves.
        ([UNLIKELY, LESS, REPEATED], 0.0, 3),
        ([REPEATED, LESS, UNLIKELY], 0.4, 3),
        ([LESS, UNLIKELY, REPEATED], 0.2, 3),
        ([REPEATED, REPEATED, REPEATED], 0.0, 3),
        # What counts as silence is not tried again.
        ([SILENT], 0.0, 1),
        ([REPEATED_SILENT], 0.0, 1),
        ([UNLIKELY, SILENT], 0.2, 2),
    ],
)
def test_a_window_is_tried_until_its_text_is_good(tries, kept, count):
    found, tried = results(tries)
    assert (found, len(tried)) == ([kept], count)


def test_only_windows_that_failed_are_tried_again():
    found, tried = results([GOOD], [UNLIKELY, UNLIKELY, GOOD], [GOOD], [REPEATED, GOOD])
    assert found == [0.0, 0.4, 0.0, 0.2]
    assert tried == [[0, 1, 2, 3], [1, 3], [1]]


@pytest.mark.parametrize(
    ("result", "changes", "silent"),
    [
        (SILENT, {}, True),
        (REPEATED_SILENT, {}, True),
        (LIKELY_SILENT, {}, False),
        (UNLIKELY, {}, False),
        ((-1.1, 1.0, None), {}, False),
        # At the thresholds themselves.
        ((-1.1, 1.0, 0.6), {}, False),
        ((-1.0, 2.4, 0.7), {}, False),
        # Without one or the other check.
        (LIKELY_SILENT, {"logprob_threshold": None}, True),
        (SILENT, {"no_speech_threshold": None}, False),
        (REPEATED_SILENT, {"compression_ratio_threshold": None}, False),
    ],
)
def test_silence(result, changes, silent):
    assert Scripted([], **changes).is_silence(decoded(0.0, *result)) == silent


def test_checks_may_be_left_out():
    off = {"compression_ratio_threshold": None, "logprob_threshold": None}
    # Of the temperatures, those that are tried by default, the first is enough.
    assert results([(-9.0, 9.0, 0.1)], temperatures=TEMPERATURES, **off) == ([0.0], [[0]])


def test_a_text_that_repeats_itself_is_compressed():
    """zlib adds a few bytes to what it cannot shorten, and letters that are all the same shrink to a hundredth."""
    assert 0.3 < compression_ratio("abcdefgh") < 0.9
    assert compression_ratio("a" * 2000) > 80
    # In bytes of UTF-8, of which these letters have two.
    assert compression_ratio("\u00e4" * 1000) > 60


class SourceStep(FakeStep):
    """A `FakeStep` whose prompts give logits after several of their tokens."""

    def prefill_at(self, rows, positions):
        self.prefill(rows)
        table = [
            [self.logits(ids[: place + 1]) for place in places] for ids, places in zip(rows, positions, strict=True)
        ]
        return np.array(table)


# What was said before stands in front of the start, which is 1; 2 is the end, 3 says that nobody speaks, 8 is a time.
PROMPTS, SAID_BEFORE = [[5, 1, 7], [1, 7]], [[5, 1], [1]]
SPEECH = SpeechInfo(8, 6, no_speech=3)


class Text:
    def decode(self, ids, skip_special_tokens):
        return "".join(f" {token}" for token in ids)


def heard(manifest=None, **options):
    reader = SimpleNamespace(batch_step=lambda encoded: SourceStep(9, seed=4, spread=1.0))
    model = SimpleNamespace(
        info=SimpleNamespace(speech=SPEECH, decoder_start=1),
        manifest=manifest or MANIFEST,
        text=SimpleNamespace(target=Text()),
        reader=reader,
    )
    never = {"compression_ratio_threshold": None, "logprob_threshold": None}
    decoder = WindowDecoder(model, TranscribeOptions(timestamps=False, max_new_tokens=6, **never, **options))
    return decoder.decode(Encoded(range(2)), PROMPTS)


def scored(ids, tokens):
    """The mean log-probability of tokens after ids."""
    step, total = SourceStep(9, seed=4, spread=1.0), 0.0
    for token in tokens:
        total += step.log_probabilities(ids)[token]
        ids = [*ids, token]
    return total / len(tokens)


def test_what_a_window_says_and_how_likely_it_is():
    step = SourceStep(9, seed=4, spread=1.0)
    for prompt, said_before, found in zip(PROMPTS, SAID_BEFORE, heard(temperatures=(0.0,)), strict=True):
        tokens = []
        while len(tokens) < 6 and 2 not in tokens:
            tokens.append(int(step.logits([*prompt, *tokens]).argmax()))
        assert found.tokens == [token for token in tokens if token != 2]
        # Times are no text.
        assert found.text == "".join(f" {token}" for token in found.tokens if token < 8)
        assert found.avg_logprob == pytest.approx(scored(prompt, tokens), rel=1e-4)
        assert found.no_speech_prob == pytest.approx(np.exp(step.log_probabilities(said_before)[3]), rel=1e-4)
        assert found.temperature == 0


def test_beams_are_the_model_s_own_where_none_are_given():
    defaults = GenerationDefaults(num_beams=3, length_penalty=-2.0, early_stopping=True)
    manifest, step = SimpleNamespace(**{**vars(MANIFEST), "generation": defaults}), SourceStep(9, seed=4, spread=1.0)

    def searched(*settings):
        ranked = beam_search(step, [Request(prompt, 6) for prompt in PROMPTS], BeamOptions(*settings), eos=(2,))
        return [[token for token in best.token_ids if token != 2] for best, *_ in ranked]

    results = heard(manifest, temperatures=(0.0,))
    own = [found.tokens for found in results]
    assert own == searched(3, -2.0, True)
    for prompt, found in zip(PROMPTS, results, strict=True):
        # Whatever the penalty is, a mean over the tokens, of which an end is one.
        means = [scored(prompt, [*found.tokens, *end]) for end in ([], [2]) if found.tokens or end]
        assert any(found.avg_logprob == pytest.approx(mean, rel=1e-4) for mean in means)
    # Which the penalty changes.
    assert own != searched(3, 1.0)
    greedy = [found.tokens for found in heard(temperatures=(0.0,))]
    assert [found.tokens for found in heard(manifest, temperatures=(0.0,), num_beams=1)] == greedy


def test_beams_without_a_temperature_and_the_best_of_several_samples_with_one():
    step = SourceStep(9, seed=4, spread=1.0)
    expected = beam_search(step, [Request(prompt, 6) for prompt in PROMPTS], BeamOptions(4), eos=(2,))
    for (best,), found in zip(expected, heard(temperatures=(0.0,), num_beams=4), strict=True):
        assert found.tokens == [token for token in best.token_ids if token != 2]
    many = [heard(temperatures=(0.9,), best_of=count, seed=3) for count in (1, 2, 9)]
    # The first window's samples are among those of a larger number.
    scores = [found[0].avg_logprob for found in many]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    assert [one.temperature for found in many for one in found] == [0.9] * 6
    for prompt, found in zip(PROMPTS, many[-1], strict=True):
        # An end is one of the tokens that count.
        scores = [scored(prompt, [*found.tokens, *end]) for end in ([], [2])]
        assert any(found.avg_logprob == pytest.approx(score, rel=1e-4) for score in scores)
    # Another seed draws other numbers, and the same one the same.
    assert heard(temperatures=(0.9,), best_of=2, seed=3) == many[1]
    assert heard(temperatures=(0.9,), best_of=2, seed=4) != many[1]


@pytest.mark.parametrize(
    ("speech", "timestamps", "ruled"),
    [(SpeechInfo(5, 4), True, True), (SpeechInfo(5, 4), False, False), (None, True, False), (None, False, False)],
)
def test_rules_are_for_models_with_tokens_for_times(speech, timestamps, ruled):
    model = SimpleNamespace(**vars(MODEL) | {"info": SimpleNamespace(speech=speech)})
    request = WindowDecoder(model, TranscribeOptions(timestamps=timestamps))._request([1, 3])
    assert [isinstance(step, TimestampRules) for step in request.processors] == [True] * ruled
    assert list(request.ids) == [1, 3]
