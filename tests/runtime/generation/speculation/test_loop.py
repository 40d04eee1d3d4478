"""Speculation chooses the very tokens that plain decoding chooses, in fewer runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import triform
from tests.helpers.fake_step import FakeStep
from triform.runtime.bundle.manifest import Quantization
from triform.runtime.decoder.loops import DecoderLoops
from triform.runtime.generation.loop import GrowingRow, plain_loop
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Penalties, Truncation
from triform.runtime.generation.processors.mirostat import Mirostat
from triform.runtime.generation.sampling import make_sampler, row_generator
from triform.runtime.generation.setup import settle
from triform.runtime.generation.speculation.lookup import look_up
from triform.runtime.generation.speculation.loop import speculative_loop
from triform.runtime.generation.speculation.pace import SIZES, Pace
from triform.runtime.graphs.decoding.branches import HiddenStep

REPEATING = "The ferry left the harbor. The ferry left the island. The ferry left the harbor. " * 3


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        # The last three, 1 2 3, were followed by 4 5 6.
        ([1, 2, 3, 4, 5, 6, 9, 1, 2, 3], [4, 5, 6]),
        # Twice before: the latest counts.
        ([1, 2, 3, 4, 1, 2, 3, 5, 7, 7, 1, 2, 3], [5, 7, 7]),
        # Three are better than two, though two are later.
        ([1, 2, 3, 4, 4, 4, 9, 2, 3, 8, 8, 8, 1, 2, 3], [4, 4, 4]),
        ([9, 2, 3, 8, 6, 5, 1, 2, 3], [8, 6, 5]),
        # What follows runs into the end, and repeats.
        ([5, 6, 5, 6], [5, 6, 5]),
        ([7, 7, 7, 7], [7, 7, 7]),
        ([1, 2, 3], []),
        ([1, 2, 9, 2], []),
        ([4], []),
    ],
)
def test_look_up(ids, expected):
    assert look_up(np.array(ids), 3).tolist() == expected


class Speculative:
    """A `SpeculativeStep` whose logits are a function of the last `order` ids, so that what was said comes again."""

    def __init__(self, vocab_size=12, order=2, context=10_000, spread=2.0):
        self.model = FakeStep(vocab_size, spread=spread)
        self.ids, self.order, self.context, self.runs = [], order, context, []

    @property
    def room(self):
        return self.context - len(self.ids)

    def prefill(self, ids):
        self.ids = []
        return self.extend(ids)[-1]

    def next(self, token):
        return self.extend([token])[0]

    def extend(self, tokens):
        assert len(tokens) <= self.room
        self.runs.append(len(tokens))
        first = len(self.ids) + 1
        self.ids += [int(token) for token in tokens]
        return np.stack(
            [self.model.logits(self.ids[max(0, n - self.order) : n]) for n in range(first, len(self.ids) + 1)]
        )

    def trim(self, count):
        del self.ids[len(self.ids) - count :]


class Ticking:
    """A clock that advances by the tokens of the latest run: a run of n takes 1 + slope * (n - 1)."""

    def __init__(self, step, slope):
        self.step, self.slope, self.now, self.seen = step, slope, 0.0, 0

    def __call__(self):
        self.now += sum(1 + self.slope * (n - 1) for n in self.step.runs[self.seen :])
        self.seen = len(self.step.runs)
        return self.now


class Always(Pace):
    """Tries two tokens whenever there is room."""

    def wanted(self, most):
        return 2 if most >= 2 else 0


def both(sampler, count, *, eos=(), slope=0.25, context=10_000, prompt=(1, 2, 3)):
    """Tokens without and with speculation, and the step that speculated."""
    plain = Speculative(context=context)
    expected = list(plain_loop(plain, prompt, GrowingRow(prompt, sampler(), eos=eos, max_new_tokens=count)))
    step = Speculative(context=context)
    row = GrowingRow(prompt, sampler(), eos=eos, max_new_tokens=count)
    found = list(speculative_loop(step, prompt, row, pace=Pace(), propose=look_up, clock=Ticking(step, slope)))
    return expected, found, step


def greedy():
    return make_sampler([], None)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17, 400])
def test_the_same_tokens_in_fewer_runs(count):
    expected, found, step = both(greedy, count)
    assert found == expected
    # The last token is not fed.
    assert step.ids[3:] == [one.id for one in expected][: len(step.ids) - 3]
    assert len(step.ids) == 3 + count - 1
    if count == 400:
        # With 12 tokens and an order of two the greedy row soon goes around.
        assert len(step.runs) < 400 / 5
        assert set(step.runs[1:]) <= {1, *(1 + size for size in SIZES)}


def test_an_end_in_the_middle_of_a_run_is_the_end():
    expected, _, _ = both(greedy, 60)
    # Whatever token ends it, the first of that kind does.
    for eos in {one.id for one in expected}:
        without, found, _ = both(greedy, 60, eos=(eos,))
        assert found == without
        assert found[-1].finish_reason == "stop"


def test_it_stays_within_the_context():
    expected, found, step = both(greedy, 47, context=50)
    assert found == expected
    assert len(step.ids) == 49


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_draws_the_same_tokens(seed):
    def sampler():
        return make_sampler([], row_generator(seed, 0))

    expected, found, step = both(sampler, 300)
    assert found == expected
    assert max(step.runs[1:]) > 1


def test_a_processor_with_a_state_sees_each_token_once():
    made = []

    def sampler():
        made.append(Mirostat(2.0, 0.1))
        return make_sampler([made[-1]], row_generator(3, 0))

    expected, found, step = both(sampler, 200)
    assert found == expected
    assert made[0].mu == made[1].mu
    assert max(step.runs[1:]) > 1


def test_the_distribution_is_the_models():
    """Chi-square of what follows a proposal, in 2000 draws of two tokens; the proposal is what the lookup would say."""
    prompt, guesses, rows = (1, 2, 3), np.array([5, 1]), 2000
    counts = np.zeros((12, 12))
    kept = 0
    for seed in range(rows):
        step = Speculative(order=1, spread=1.0)
        row = GrowingRow(prompt, make_sampler([], row_generator(seed, 0)), eos=(), max_new_tokens=4)
        loop = speculative_loop(step, prompt, row, pace=Always(), propose=lambda ids, count: guesses[:count])
        _, second, third, *_ = [token.id for token in loop]
        counts[second, third] += 1
        kept += second == 5
    assert kept > 0
    model = FakeStep(12, spread=1.0)
    after = np.exp([model.log_probabilities([token]) for token in range(12)])
    # The first is drawn after 3, and each after the one before it.
    expected = rows * (after[3] @ after)[:, None] * after
    statistic = ((counts - expected) ** 2 / expected)[expected >= 5].sum()
    # Of so many cells, a chi-square has this mean and standard deviation.
    cells = (expected >= 5).sum()
    assert statistic < cells + 4 * np.sqrt(2 * cells)


def test_guesses_that_are_wrong_cost_little():
    step = Speculative()
    row = GrowingRow([1, 2], make_sampler([], row_generator(1, 0)), eos=(), max_new_tokens=1000)
    wrong = lambda ids, count: np.full(count, 99)  # noqa: E731
    list(speculative_loop(step, [1, 2], row, pace=Pace(), propose=wrong, clock=Ticking(step, 0.3)))
    cost = sum(1 + 0.3 * (n - 1) for n in step.runs[1:])
    assert cost < 1000 / 0.98


def test_runs_that_cost_too_much_are_given_up():
    """Where n tokens take the time of n steps or more, nothing is gained even if every guess is right."""
    expected, found, step = both(greedy, 600, slope=1.5)
    assert found == expected
    tried = [index for index, n in enumerate(step.runs[1:]) if n > 1]
    assert 6 <= len(tried) <= 20
    assert len([index for index in tried if index > 300]) <= 2


@pytest.fixture(scope="module")
def decoder(float_bundle):
    return triform.load(float_bundle)


CHANGES = [
    {},
    {"penalties": Penalties(repetition_penalty=1.3, frequency_penalty=0.2)},
    {"penalties": Penalties(no_repeat_ngram_size=4)},
    {"temperature": 0.4, "seed": 5},
    {"temperature": 0.8, "seed": 6, "truncation": Truncation(mirostat_tau=2.0)},
    {"temperature": 0.8, "seed": 6, "truncation": Truncation(xtc_threshold=0.1, xtc_probability=0.5)},
    {"logprobs": 2},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(changes) or "greedy")
def test_a_bundle_generates_the_same(decoder, changes):
    options = GenerationOptions(**{"max_new_tokens": 250, "temperature": 0, "speculate": "off", **changes})
    expected = decoder.generate(REPEATING, options, raw=True)
    found = decoder.generate(REPEATING, dataclasses.replace(options, speculate="lookup"), raw=True)
    assert found.token_ids == expected.token_ids
    assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason)
    if changes.get("logprobs"):
        ours, theirs = ([one.logprob for one in each.logprobs] for each in (found, expected))
        assert np.abs(np.subtract(ours, theirs)).max() < 1e-4


@pytest.mark.parametrize(("asked", "temperature", "several"), [
    ("auto", 0, True), ("auto", 0.1, False), ("off", 0, False), ("lookup", 0.1, True),
])  # fmt: skip
def test_when_it_speculates(decoder, monkeypatch, asked, temperature, several):
    sizes = set()
    original = decoder._step.extend

    def seen(tokens):
        sizes.add(len(tokens))
        return original(tokens)

    monkeypatch.setattr(decoder._step, "extend", seen)
    seed = 1 if temperature else None
    options = GenerationOptions(max_new_tokens=80, temperature=temperature, seed=seed, speculate=asked)
    decoder.generate(REPEATING, options, raw=True)
    assert (max(sizes) > 1) == several


@pytest.mark.parametrize(("level", "tried"), [(4, False), (1, True), (None, True)])
def test_rounded_activations_are_tried_only_when_asked(decoder, level, tried):
    graph = decoder.manifest.graphs["decoder"]
    stored = Quantization("none") if level is None else Quantization("int4", 4, accuracy_level=level)
    manifest = dataclasses.replace(
        decoder.manifest, graphs={"decoder": dataclasses.replace(graph, quantization=stored)}
    )
    for asked, expected in (("auto", tried), ("lookup", True), ("off", False)):
        options = GenerationOptions(temperature=0, speculate=asked)
        row = settle(options, manifest, decoder._tokenizer).row([5, 6, 7])
        assert (DecoderLoops(decoder._step, HiddenStep, manifest).proposer(row) is look_up) == expected


def test_nothing_comes_behind_the_end():
    """Chat templates put the end token into the prompt, so that what followed it there is proposed."""
    end, script = 9, [1, 2, 9]

    class Scripted(Speculative):
        """After 1 comes 2, after 2 the end, and after that 5, as in the prompt."""

        def extend(self, tokens):
            assert len(tokens) <= self.room
            self.ids += [int(token) for token in tokens]
            following = {1: 2, 2: end, end: 5, 5: 1}
            table = np.full((len(tokens), 12), -10, np.float32)
            for row, token in zip(table, tokens, strict=True):
                row[following[int(token)]] = 10
            return table

    prompt = [1, 2, end, 5, 1, 2, end, 5]
    row = GrowingRow(prompt, lambda ids, logits: int(logits.argmax()), eos={end}, max_new_tokens=20)
    step = Scripted()
    tokens = list(speculative_loop(step, prompt, row, pace=Always(), propose=look_up))
    assert [token.id for token in tokens] == script
    assert [token.finish_reason for token in tokens] == [None, None, "stop"]
    # And the model does not remember what was proposed behind it.
    assert step.ids == [*prompt, 1, 2]


def test_a_pace_is_told_how_long_each_run_took():
    """A run of n tokens takes n seconds here, whatever the time was before."""
    told = []

    class Told(Always):
        def stepped(self, seconds):
            told.append((0, seconds))

        def tried(self, tried, agreed, seconds):
            told.append((tried, seconds))

    step = Speculative()
    row = GrowingRow([1, 2, 3], greedy(), eos=(), max_new_tokens=60)
    clock = Ticking(step, 1.0)
    clock.now = 1000.0
    list(speculative_loop(step, [1, 2, 3], row, pace=Told(), propose=look_up, clock=clock))
    assert {tried for tried, _ in told} == {0, 2}
    assert all(seconds == 1 + tried for tried, seconds in told)
