"""Asynchronous pieces, against those of the same decoder without an event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

import triform
from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions

QUESTIONS = ("How deep is the sea near the old harbor?", "And who keeps the light?", "Since when?")
GREEDY = GenerationOptions(max_new_tokens=16, temperature=0)
RULES = "You are the keeper of a small lighthouse."


@pytest.fixture(scope="module")
def model(float_bundle):
    return triform.load(float_bundle)


async def collected(stream):
    return [piece async for piece in stream]


def test_asynchronous_pieces_are_the_same(model):
    expected = list(model.stream(QUESTIONS[0], GREEDY, system=RULES))
    assert asyncio.run(collected(model.stream_async(QUESTIONS[0], GREEDY, system=RULES))) == expected
    for prompt, options in (("", None), ("word " * 700, None)):
        with pytest.raises(InputError):
            asyncio.run(collected(model.stream_async(prompt, options)))


@pytest.fixture
def gate(monkeypatch):
    """Holds every run of the model until the test lets it through: begun is set when one waits."""
    from triform.runtime.graphs.decoding import step

    class Gate:
        begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    original = step.run_step

    def held(session, binding):
        assert threading.current_thread() is not threading.main_thread()
        Gate.begun.set()
        assert Gate.go.wait(30)
        original(session, binding)
        Gate.ended.set()

    monkeypatch.setattr(step, "run_step", held)
    return Gate


async def until(event):
    async with asyncio.timeout(30):
        while not event.is_set():
            await asyncio.sleep(0.001)


def test_the_event_loop_goes_on_while_the_model_runs(model, gate):
    async def main():
        task = asyncio.create_task(collected(model.stream_async(QUESTIONS[0], GREEDY)))
        # Were the loop blocked, nobody would open the gate.
        await until(gate.begun)
        gate.go.set()
        return await task

    assert asyncio.run(main())[-1].finish_reason is not None


def test_canceling_waits_for_the_run_and_leaves_the_decoder_usable(model, gate, monkeypatch):
    async def main():
        task = asyncio.create_task(collected(model.stream_async(QUESTIONS[0], GREEDY)))
        await until(gate.begun)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        gate.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.ended.is_set()

    model.forget()
    asyncio.run(main())
    monkeypatch.undo()
    assert model.generate(QUESTIONS[0], GREEDY).cached_tokens > 0
    expected = model.generate(QUESTIONS[0], GREEDY).token_ids
    model.forget()
    assert model.generate(QUESTIONS[0], GREEDY).token_ids == expected


def test_an_asynchronous_stream_that_is_closed_or_left(model, fed):
    expected = list(model.stream(QUESTIONS[0], GREEDY))
    model.forget()

    async def main():
        stream = model.stream_async(QUESTIONS[0], GREEDY)
        found = [await anext(stream) for _ in range(3)]
        await stream.aclose()
        fed.clear()
        await asyncio.sleep(0.05)
        assert fed == []
        async for piece in model.stream_async(QUESTIONS[0], GREEDY):
            found.append(piece)
            break
        return found, await collected(model.stream_async(QUESTIONS[0], GREEDY))

    found, whole = asyncio.run(main())
    assert found == [*expected[:3], expected[0]]
    assert whole == expected


def test_streams_side_by_side_meet_in_one_thread(model):
    """The one that began last goes on; the others end in one line, as without an event loop."""

    async def main():
        streams = (model.stream_async(one, GREEDY) for one in QUESTIONS)
        return await asyncio.gather(*map(collected, streams), return_exceptions=True)

    first, second, third = asyncio.run(main())
    for one in (first, second):
        assert isinstance(one, InputError)
        assert "another one with the same decoder began" in str(one)
    assert third == list(model.stream(QUESTIONS[2], GREEDY))
