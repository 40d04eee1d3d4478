"""What a program's own handler of a signal raises comes out as it is, and is no fault of what it interrupted."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from triform.runtime.decoder import chat_template
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.decoder.templates.isolation import isolated
from triform.runtime.errors import BundleError, InputError, TriformError
from triform.runtime.graphs.binding import run_step
from triform.runtime.panics import failures_as

MESSAGES = [{"role": "user", "content": "a"}]


def plain(*_):
    raise TimeoutError("too late")


class Handler:
    def method(self, *_):
        raise TimeoutError("too late")

    def __call__(self, *_):
        # One frame further down.
        plain()


@pytest.fixture(
    params=[plain, Handler().method, Handler(), partial(plain, 1)], ids=["function", "method", "object", "partial"]
)
def alarm(request):
    """Lets a handler raise, a moment after it is called: on a busy machine it may be long until a test begins."""
    before = signal.signal(signal.SIGALRM, request.param)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_in_a_template(alarm, monkeypatch):
    monkeypatch.setattr(chat_template, "renderer", lambda engine: lambda source, variables: time.sleep(30))
    with pytest.raises(TimeoutError, match=r"^too late$"):
        alarm()
        render_chat("{{ 1 }}", MESSAGES, {})


def wait(source, variables):
    time.sleep(0.2)
    os.kill(int(variables["messages"][0]["content"]), signal.SIGALRM)
    time.sleep(30)


@pytest.mark.usefixtures("alarm")
def test_while_a_child_renders(monkeypatch):
    """TimeoutError is an OSError, and those of pipes mean that the child has ended.

    The child sends the signal: while it is started, what a handler raises may come out of a hook of Python's own, which
    ignores it, and which leaves the lock of all loggers locked.
    """
    monkeypatch.setattr(chat_template, "renderer", lambda engine: isolated("waits", wait))
    messages = [{"role": "user", "content": str(os.getpid())}]
    with pytest.raises(TimeoutError, match=r"^too late$"):
        render_chat("{{ 1 }}", messages, {})


def test_in_a_tokenizer(alarm):
    with pytest.raises(TimeoutError, match=r"^too late$"), failures_as(BundleError):
        alarm()
        time.sleep(30)


def test_in_a_graph(alarm):
    class Binding:
        def run(self, session):
            time.sleep(30)

    with pytest.raises(TimeoutError, match=r"^too late$"):
        alarm()
        run_step(None, Binding())


def test_failures_of_their_own():
    def fail(*_):
        raise TimeoutError("mine")

    class Binding:
        run = fail

    before = signal.signal(signal.SIGALRM, plain)
    try:
        with pytest.raises(BundleError, match="mine"), failures_as(BundleError):
            fail()
        with pytest.raises(TriformError, match="could not run the decoder: mine"):
            run_step(None, Binding())
        with pytest.raises(InputError, match="the chat template refuses these messages: no"):
            render_chat("{{ raise_exception('no') }}", MESSAGES, {})
    finally:
        signal.signal(signal.SIGALRM, before)
