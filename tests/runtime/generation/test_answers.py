"""The record of an answer: times by a clock that is read out by hand, and counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.generation import answers
from triform.runtime.generation.answers import (
    Completion,
    Piece,
    Timings,
    Watch,
    WatchedStep,
    completion_of,
    pieces_of,
)
from triform.runtime.generation.logprobs import TokenLogprobs


@pytest.fixture
def clock(monkeypatch):
    """Read at 3, 5, 9, 17 and 33 seconds."""
    times = iter([3.0, 5.0, 9.0, 17.0, 33.0])
    monkeypatch.setattr(answers, "time", SimpleNamespace(perf_counter=lambda: next(times)))


def test_times_and_counts(clock):
    watch = Watch(prompt_tokens=12, cached_tokens=4, copied_bytes=7)
    watch.pace.proposed, watch.pace.accepted = 6, 5
    for _ in range(3):
        watch.note()
    logprobs = tuple(TokenLogprobs(id_, "", -0.5, ()) for id_ in (8, 9))
    pieces = [Piece("a", (8,), None, logprobs[:1]), Piece("b", (9,), None, logprobs[1:]), Piece("c", (1, 2), "stop")]
    found = watch.finished(pieces, load=0.25)
    assert (found.text, found.token_ids, found.finish_reason) == ("abc", (8, 9, 1, 2), "stop")
    assert found.timings == Timings(0.25, 2.0, (4.0, 8.0))
    # Two tokens in twelve seconds; eight of the prompt's twelve were run in two.
    assert found.timings.decode_tokens_per_second == pytest.approx(2 / 12)
    assert found.prefill_tokens_per_second == 4
    assert (found.prompt_tokens, found.cached_tokens, found.copied_bytes) == (12, 4, 7)
    assert (found.proposed_tokens, found.accepted_tokens, found.logprobs) == (6, 5, logprobs)


def test_an_answer_that_nothing_ended(clock):
    watch = Watch(prompt_tokens=3)
    watch.note()
    found = watch.finished([Piece("a", (8,), None)], load=1.0)
    assert (found.finish_reason, found.logprobs, found.timings) == ("length", None, Timings(1.0, 2.0, ()))


def test_each_run_of_a_search_is_timed(clock):
    """The first time is that of the prompt, which ends where the first step begins."""
    step = SimpleNamespace(prefill=lambda rows: rows, next=lambda tokens, parents: (tokens, parents), wanted=None)
    watch = Watch(prompt_tokens=3)
    watched = WatchedStep(step, watch)
    watched.wanted = 5
    assert (step.wanted, watched.wanted) == (5, 5)
    assert watched.prefill([[1]]) == [[1]]
    assert watched.next([2], [0]) == ([2], [0])
    assert watched.next([3], [0]) == ([3], [0])
    found = watch.searched(Completion("a", (2, 3), "length", -1.5), load=0.5)
    assert (found.text, found.token_ids, found.finish_reason, found.prompt_tokens) == ("a", (2, 3), "length", 3)
    assert found.timings == Timings(0.5, 2.0, (4.0,))
    assert (found.cached_tokens, found.proposed_tokens, found.accepted_tokens, found.copied_bytes) == (0, 0, 0, None)


LETTERS = SimpleNamespace(
    decode=lambda ids, skip_special_tokens: "".join(
        "abcdef"[id_] for id_ in ids if not (skip_special_tokens and id_ == 0)
    )
)


@pytest.mark.parametrize(
    ("stop", "search", "expected"),
    [
        ((), "beams", Completion("bcd", (1, 2, 3, 0), "length", -1.5)),
        # What precedes the stop string, and why.
        (("d",), "beams", Completion("bc", (1, 2, 3, 0), "stop", -1.5)),
        # The beginning of one that does not follow.
        (("de",), "beams", Completion("bcd", (1, 2, 3, 0), "length", -1.5)),
        # An answer that was not searched for has no score.
        ((), None, Completion("bcd", (1, 2, 3, 0), "length", None)),
    ],
)
def test_what_a_search_found_as_text(stop, search, expected):
    settled = SimpleNamespace(options=SimpleNamespace(stop=stop), tokenizer=LETTERS, search=search)
    hypothesis = SimpleNamespace(token_ids=(1, 2, 3, 0), finish_reason="length", score=-1.5)
    assert completion_of(hypothesis, settled) == expected


class Stops:
    """Holds each text back until the next token, and finds one stop string."""

    def __init__(self, stop=None):
        self.stop, self.held, self.found = stop, "", False

    def push(self, token):
        text, self.held = self.held, f"{token} "
        self.found = token == self.stop
        return text

    def flush(self):
        return self.held


def token(id_, reason=None, logprobs=None):
    return SimpleNamespace(id=id_, finish_reason=reason, logprobs=logprobs)


def test_pieces_of_an_answer():
    """What is held back comes with the last piece; no token is taken after it."""
    logprobs, watch = TokenLogprobs(6, "", -0.5), Watch()
    tokens = iter([token(5), token(6, None, logprobs), token(7, "length"), token(8)])
    assert list(pieces_of(tokens, Stops(), watch)) == [
        Piece("", (5,), None, None), Piece("5 ", (6,), None, (logprobs,)), Piece("6 7 ", (7,), "length", None),
    ]  # fmt: skip
    assert next(tokens).id == 8 and len(watch.times) == 3


def test_a_stop_string_ends_pieces():
    tokens = iter([token(5), token(6), token(7)])
    assert list(pieces_of(tokens, Stops(6), Watch())) == [Piece("", (5,), None), Piece("5 ", (6,), "stop")]
    assert next(tokens).id == 7
