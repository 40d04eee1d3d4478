"""Renders templates in a child process with limits of memory and time, so that none can bring the program down.

An engine can be made to build a text of any size in a few steps, and ends its process when there is no memory for it.
The child is a fork of this process, which takes milliseconds, and lives as long, or until `end`: it reads requests from
a pipe and writes results to another. Where there is no fork that is safe beside threads (macOS, Windows), and for
values that JSON cannot carry, templates are rendered in this process.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from triform.runtime.decoder.templates.functions import Refusal, reason_of
from triform.runtime.errors import pass_on

# What a template may take beside what the process has already: bytes, of which the stack is half, and seconds.
_MEMORY, _SECONDS = 2**30, 10
# Characters of a result; no model reads so many.
_LARGEST = 2**26
_PREFIX = 8

# Called with a template's source and the variables by name; gives the text. What goes wrong raises whatever it wants.
Render = Callable[[str, Mapping[str, Any]], str]


def isolated(engine: str, render: Render) -> Render:
    """The same rendering in the child process. What the template raises is a `Refusal` with the reason.

    Args:
        engine: the name of the engine, one child for each.
        render: called in the child.
    """

    def run(source: str, variables: Mapping[str, Any]) -> str:
        request = _as_json([source, variables])
        while request is not None and (child := _child(engine, render)) is not None:
            with suppress(_Interrupted):
                return child.render(request)
        return render(source, variables)

    return run


def start(engine: str, render: Render) -> None:
    """Start the child for an engine, so that it is ready when it is needed. Arguments as `isolated`."""
    _child(engine, render)


def end() -> None:
    """Let all children end; the next template starts another.

    A child has the memory that this process had when it began, and keeps what this process frees.
    """
    with _starting:
        while _children:
            _, child = _children.popitem()
            if child.usable:
                child.end()


def _as_json(value: Any) -> bytes | None:
    """A value as JSON; None if it would come back as another."""
    try:
        data = json.dumps(value).encode()
        return data if json.loads(data) == value else None
    except (TypeError, ValueError, RecursionError):
        return None


class _Interrupted(Exception):
    """The child has ended, or its next answer belongs to an earlier request, whose caller a signal interrupted."""


class _Child:
    """The other end of a child's pipes."""

    def __init__(self, pid: int, requests: IO[bytes], results: IO[bytes]) -> None:
        self._owner, self._pid = os.getpid(), pid
        self._requests, self._results = requests, results
        self._turn = threading.Lock()
        # Whether a request has no answer yet.
        self._asked = False
        self._ended = False

    @property
    def usable(self) -> bool:
        """Whether it lives, and is a child of this process and not of one that this is a fork of."""
        return not self._ended and self._owner == os.getpid()

    def render(self, request: bytes) -> str:
        with self._turn:
            if self._asked or self._ended:
                self.close()
                raise _Interrupted
            self._asked = True
            try:
                _send(self._requests, request)
                answer = _receive(self._results)
            except OSError as error:
                pass_on(error)
                answer = None
            if answer is None:
                self.close()
                raise Refusal("it takes more memory or time than a prompt is worth")
            self._asked = False
        kind, text = json.loads(answer)
        if kind == "refused":
            raise Refusal(text)
        if kind == "not loaded":
            raise ImportError(text)
        return str(text)

    def end(self) -> None:
        """As `close`, once the request is answered that another thread may wait for."""
        with self._turn:
            self.close()

    def close(self) -> None:
        """Let it end, and wait until it has; twice is no harm."""
        if self._ended:
            return
        self._ended = True
        if self._asked:
            # Nobody waits for the answer.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        with suppress(OSError):
            self._requests.close()
        self._results.close()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


_children: dict[str, _Child] = {}
_starting = threading.Lock()


def _child(engine: str, render: Render) -> _Child | None:
    """The child for an engine, started when there is none; None where there cannot be one."""
    if sys.platform != "linux":
        return None
    with _starting:
        child = _children.get(engine)
        if child is None or not child.usable:
            child = _start(render)
            if child is not None:
                _children[engine] = child
        return child


def _start(render: Render) -> _Child | None:
    requests, results = os.pipe(), os.pipe()
    try:
        with warnings.catch_warnings():
            # Newer Pythons warn of forks beside threads; this child uses nothing that a thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError:
        for end in (*requests, *results):
            os.close(end)
        return None
    if pid == 0:
        try:
            _serve(render, requests[0], results[1])
        finally:
            os._exit(0)
    os.close(requests[0])
    os.close(results[1])
    child = _Child(pid, os.fdopen(requests[1], "wb"), os.fdopen(results[0], "rb"))
    atexit.register(child.close)
    return child


def _serve(render: Render, requests: int, results: int) -> None:
    """Answer requests until the parent ends."""
    # Ctrl-C reaches all processes of a terminal, and the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Files that stay open here stay locked, and pipes that stay open here never end for who reads them.
    low, high = os.dup2(requests, 3 + max(requests, results)), os.dup2(results, 4 + max(requests, results))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.closerange(3, low)
    os.closerange(high + 1, _open_files())
    _limit_memory()
    with suppress(Exception):
        # Imports the engine while the parent does something else.
        render("{{ 1 }}", {})
    with os.fdopen(low, "rb") as incoming, os.fdopen(high, "wb") as outgoing:
        while (request := _receive(incoming)) is not None:
            _limit_time()
            _send(outgoing, _answer(render, request))


def _answer(render: Render, request: bytes) -> bytes:
    source, variables = json.loads(request)
    try:
        text = render(source, variables)
        if len(text) > _LARGEST:
            raise Refusal("it makes a text that no model reads")
        return json.dumps(["text", text]).encode()
    except ImportError as error:
        return json.dumps(["not loaded", str(error)]).encode()
    except Exception as error:  # what a template raises through a filter or a function arrives as it is
        return json.dumps(["refused", reason_of(error)]).encode()


def _open_files() -> int:
    with suppress(OSError, ValueError):
        return max(map(int, os.listdir("/proc/self/fd"))) + 1
    return os.sysconf("SC_OPEN_MAX")


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _limit_time() -> None:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(usage.ru_utime + usage.ru_stime) + _SECONDS
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))


def _send(file: IO[bytes], data: bytes) -> None:
    file.write(len(data).to_bytes(_PREFIX, "little") + data)
    file.flush()


def _receive(file: IO[bytes]) -> bytes | None:
    """What was sent; None where the other side has ended."""
    size = file.read(_PREFIX)
    if len(size) < _PREFIX:
        return None
    data = file.read(int.from_bytes(size, "little"))
    return data if len(data) == int.from_bytes(size, "little") else None
