"""Threads that use one model, here a counter that breaks when two meet in it."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from triform.runtime.errors import InputError
from triform.runtime.turns import Turns


class Model:
    """Counts to a number, in many small steps; whoever comes between gets another's count."""

    def __init__(self, shared):
        self.turns, self.count, self.inside = Turns(shared=shared), 0, 0

    def answer(self, number):
        with self.turns.call():
            self.count = 0
            for _ in range(number):
                self._step()
            return self.count

    def stream(self, number):
        def steps():
            self.count = 0
            for _ in range(number):
                self._step()
                yield self.count

        return self.turns.iterate(steps)

    def _step(self):
        self.inside += 1
        assert self.inside == 1
        time.sleep(0.0005)
        self.count += 1
        self.inside -= 1


def together(work, count=8):
    """What each of many threads gets that begin at once: a result or an error."""
    barrier = threading.Barrier(count)

    def run(index):
        barrier.wait()
        try:
            return work(index)
        except InputError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("way", ["call", "stream"])
def test_threads_get_their_own_answer_or_none(way):
    model = Model(shared=False)

    def work(index):
        return model.answer(20 + index) if way == "call" else list(model.stream(20 + index))[-1]

    results = together(work)
    right = [index for index, found in enumerate(results) if found == 20 + index]
    refused = [found for found in results if isinstance(found, InputError)]
    assert right
    assert len(right) + len(refused) == 8
    assert all("in use by another thread" in str(error) for error in refused)
    assert model.answer(3) == 3


@pytest.mark.parametrize("way", ["call", "stream"])
def test_threads_that_share_wait_for_their_turn(way):
    model = Model(shared=True)

    def work(index):
        return model.answer(5 + index) if way == "call" else list(model.stream(5 + index))[-1]

    assert together(work) == [5 + index for index in range(8)]


def elsewhere(work):
    """What another thread gets."""
    return together(lambda _: work(), count=1)[0]


def test_a_stream_has_the_model_between_its_items():
    model = Model(shared=False)
    stream = model.stream(3)
    assert next(stream) == 1
    assert isinstance(elsewhere(lambda: model.answer(2)), InputError)
    assert list(stream) == [2, 3]
    assert elsewhere(lambda: model.answer(2)) == 2


@pytest.mark.parametrize("leave", ["close", "forget", "fail", "never begin"])
def test_a_stream_that_is_left_lets_go(leave):
    model = Model(shared=False)
    stream = model.stream(5)
    if leave != "never begin":
        next(stream)
    if leave == "close":
        stream.close()
    elif leave == "fail":
        with pytest.raises(RuntimeError):
            stream.throw(RuntimeError("the reader's"))
    elif leave == "forget":
        del stream
        gc.collect()
    assert elsewhere(lambda: model.answer(4)) == 4


def test_an_error_lets_go():
    model = Model(shared=False)

    def fails():
        yield 1
        raise ValueError("the model's")

    with pytest.raises(ValueError, match="the model's"):
        list(model.turns.iterate(fails))
    with pytest.raises(ValueError, match="inside"), model.turns.call():
        raise ValueError("inside")
    assert elsewhere(lambda: model.answer(4)) == 4


def test_the_same_thread_may_begin_other_calls():
    model = Model(shared=False)
    first, second = model.stream(2), model.stream(2)
    assert [next(first), next(second), model.answer(4)] == [1, 1, 4]
    first.close()
    # The second has not ended.
    assert isinstance(elsewhere(lambda: model.answer(2)), InputError)
    second.close()
    assert elsewhere(lambda: model.answer(2)) == 2


def test_what_a_dead_thread_left_is_nobodys():
    model, left = Model(shared=True), []
    thread = threading.Thread(target=lambda: left.append(model.stream(9)) or next(left[0]))
    thread.start()
    thread.join()
    assert model.answer(3) == 3
    left[0].close()
    assert elsewhere(lambda: model.answer(4)) == 4


def test_an_iterator_in_another_thread_does_not_meet_its_owner():
    model = Model(shared=False)
    stream = model.stream(200)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        moved = pool.submit(list, stream)
        refused = 0
        while not moved.done():
            try:
                # A plain count, of a call that had the model to itself from one end to the other.
                assert model.answer(1) == 1
            except InputError:
                refused += 1
    assert refused
    assert moved.exception() is None or isinstance(moved.exception(), InputError)
