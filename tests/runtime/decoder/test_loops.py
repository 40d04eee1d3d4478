"""Which loop an answer gets, what proposes its tokens, and how much of the cache is reserved, on stand-ins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.decoder import loops as module
from triform.runtime.decoder.loops import DecoderLoops
from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.speculation.forced import ForcedTokens
from triform.runtime.generation.speculation.lookup import look_up

DRAFT = object()


class Step:
    """Counts what was copied from a device, ten bytes a token."""

    def __init__(self, states=False, copied=100):
        self.copied_bytes, self.reserved, self.wanted = copied, [], None
        self.cache = SimpleNamespace(has_states=states, reserve=self.reserved.append)

    def shared(self, ids):
        return len(ids) - 1


def row_of(options=None, *, ids=(1, 2, 3), limit=5, limited=True, generator=None, form=None):
    settled = SimpleNamespace(options=options or GenerationOptions())
    context = SimpleNamespace(spelled=SimpleNamespace(form=form), generator=generator)
    return SimpleNamespace(
        settled=settled, ids=list(ids), limit=limit, limited=limited, context=context, wanted=7,
        growing=lambda sampler=None: ("row", sampler), processors=lambda: ["processors"],
    )  # fmt: skip


def loops_of(step=None, *, accuracy_level=1, target="cpu", max_length=100, vocab_size=50):
    decoder = SimpleNamespace(quantization=SimpleNamespace(accuracy_level=accuracy_level))
    manifest = SimpleNamespace(target=target, graphs={"decoder": decoder}, max_length=max_length, vocab_size=vocab_size)
    hidden = []

    def make_hidden(rows):
        hidden.append(rows)
        return SimpleNamespace(cache=SimpleNamespace(reserve=lambda length: hidden.append(("reserved", length))))

    loops = DecoderLoops(step or Step(), make_hidden, manifest)
    loops.hidden = hidden
    return loops


@pytest.mark.parametrize(
    ("speculate", "draft", "sampled", "rounds", "expected"),
    [
        ("off", False, False, False, None), ("off", True, False, False, None), ("lookup", False, False, False, look_up),
        # Asked for by name it is used whatever it changes, and not the draft.
        ("lookup", False, True, True, look_up), ("lookup", True, False, False, look_up),
        ("auto", False, False, False, look_up), ("auto", False, True, False, None), ("auto", False, False, True, None),
        ("auto", True, True, True, DRAFT), ("auto", True, False, False, DRAFT),
    ],
)  # fmt: skip
def test_what_proposes(speculate, draft, sampled, rounds, expected):
    loops = loops_of(accuracy_level=4 if rounds else 1)
    if draft:
        loops.use_draft(DRAFT)
    row = row_of(GenerationOptions(speculate=speculate), generator=object() if sampled else None)
    assert loops.proposer(row) is expected


@pytest.mark.parametrize(
    ("level", "target", "expected"), [(0, "cpu", look_up), (4, "cpu", None), (1, "gpu", None), (3, "cpu", look_up)]
)
def test_where_activations_are_rounded_nothing_is_proposed_by_itself(level, target, expected):
    assert loops_of(accuracy_level=level, target=target).proposer(row_of()) is expected


def test_tokens_that_a_form_leaves_no_choice_of():
    form = SimpleNamespace(constraint=lambda length: ("constraint", length))
    found = loops_of().proposer(row_of(form=form, generator=object()))
    assert isinstance(found, ForcedTokens)
    # Not where runs of several tokens may round in another way, or speculation is off.
    assert loops_of(accuracy_level=4).proposer(row_of(form=form)) is None
    assert loops_of().proposer(row_of(GenerationOptions(speculate="off"), form=form)) is None
    lookup = row_of(GenerationOptions(speculate="lookup"), form=form)
    assert isinstance(loops_of(accuracy_level=4).proposer(lookup), ForcedTokens)


def test_states_of_fixed_size():
    loops = loops_of(Step(states=True))
    assert loops.proposer(row_of(GenerationOptions(speculate="lookup"))) is None
    with pytest.raises(InputError, match=r"^this model cannot use a draft: it has states of fixed size"):
        loops.use_draft(DRAFT)


@pytest.fixture
def used(monkeypatch):
    """Which loops ran, with what."""
    ran = []

    def plain(step, ids, row):
        ran.append(("plain", step, ids, row))
        yield from "ab"

    def speculative(step, ids, row, *, pace, propose):
        ran.append(("speculative", step, ids, row, pace, propose))
        yield from "abc"

    monkeypatch.setattr(module, "plain_loop", plain)
    monkeypatch.setattr(module, "speculative_loop", speculative)
    return ran


def watch_of():
    return SimpleNamespace(cached_tokens=None, copied_bytes=None, pace="pace")


def test_a_plain_answer(used):
    step, watch = Step(), watch_of()
    tokens = loops_of(step).tokens(row_of(GenerationOptions(speculate="off")), watch)
    assert used == [] and step.reserved == []
    assert next(tokens) == "a"
    assert watch.copied_bytes == 0 and watch.cached_tokens == 2 and step.wanted == 7 and step.reserved == [8]
    step.copied_bytes += 30
    assert list(tokens) == ["b"] and watch.copied_bytes == 30
    assert used == [("plain", step, [1, 2, 3], ("row", None))]


def test_a_device_that_counts_nothing(used):
    watch = watch_of()
    list(loops_of(Step(copied=None)).tokens(row_of(GenerationOptions(speculate="off")), watch))
    assert watch.copied_bytes is None


def test_an_answer_with_proposals(used):
    step = Step()
    assert list(loops_of(step).tokens(row_of(), watch_of())) == ["a", "b", "c"]
    assert used == [("speculative", step, [1, 2, 3], ("row", None), "pace", look_up)]


def test_a_context_that_shifts(used, monkeypatch):
    made = []
    monkeypatch.setattr(
        module, "ShiftingStep", lambda *given: made.append(given) or SimpleNamespace(shared=lambda ids: 0)
    )
    step = Step()
    for keep, kept in ((None, 0), (4, 4)):
        options = GenerationOptions(speculate="off", on_overflow="shift", keep=keep, max_new_tokens=5)
        list(loops_of(step, max_length=99).tokens(row_of(options), watch_of()))
        assert made.pop() == (step, 99, kept)


@pytest.mark.parametrize(
    ("limit", "limited", "reserved"),
    [(5, True, 8), (5, False, 8), (600, True, 603), (600, False, 515), (512, False, 515), (2000, True, 1000)],
)
def test_room_for_an_answer(used, limit, limited, reserved):
    """Of three tokens and a limit; at most the context of 1000."""
    step = Step()
    row = row_of(GenerationOptions(speculate="off"), limit=limit, limited=limited)
    list(loops_of(step, max_length=1000).tokens(row, watch_of()))
    assert step.reserved == [reserved]


@pytest.mark.parametrize(("top_k", "rows"), [(4, 4), (60, 50)])
def test_contrastive_search(used, monkeypatch, top_k, rows):
    searches = []

    def search(step, processors, **settings):
        searches.append((processors, settings))
        return SimpleNamespace(choose="choose")

    monkeypatch.setattr(module, "ContrastiveSearch", search)
    loops = loops_of()
    options = GenerationOptions(penalty_alpha=0.6, top_k=top_k)
    assert list(loops.tokens(row_of(options), watch_of())) == ["a", "b"]
    assert loops.hidden == [rows, ("reserved", 8)]
    assert searches == [(["processors"], {"top_k": top_k, "penalty_alpha": 0.6, "room": 5})]
    assert used[0][2:] == ([1, 2, 3], ("row", "choose"))
