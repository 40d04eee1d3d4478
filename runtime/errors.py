"""The errors that a user can cause: one root and a few leaves.

A message is one line: what is wrong, which file or option, what to do. It names things as Python does: an option as
`` `top_k` ``, see `option`; a method, or an attribute that is not the caller's own, as `` `Encoder.embed` ``. The
command line prints flags and commands in their place.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType
from typing import Any

from triform.runtime.printable import one_line, shortened

# Options that nobody gave for this call: they are set for every call.
_defaults: set[str] = set()
# Above the longest list of languages that a message enumerates.
_LONGEST = 4000


class TriformError(Exception):
    """Root of every failure with a cause outside the program.

    The message is one printable line, whatever a file or a bundle contributed to it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(one_line(message), _LONGEST))


class BundleError(TriformError):
    """A bundle is missing, damaged, unsafe, or made by an incompatible version."""


class InputError(TriformError):
    """An argument, an option or a prompt cannot be used as given."""


class ContextError(InputError):
    """A prompt does not fit the model's context."""


class OutOfMemoryError(TriformError):
    """Something does not fit into memory."""


class InUseError(InputError):
    """Another thread uses the model."""


class UnsupportedError(TriformError):
    """The model or the platform asks for something Triform does not do."""


class ProviderError(TriformError):
    """The execution provider that was named is not available."""


class ProviderWarning(UserWarning):
    """A provider runs a model in part only; the text is one line."""


class ExportError(TriformError):
    """A checkpoint could not be turned into a bundle."""


# What onnxruntime, PyTorch, safetensors and the system say when there is no memory left.
_NO_MEMORY = re.compile(
    r"bad_alloc|[Ff]ailed to allocate|DefaultCPUAllocator|bfc_arena|[Nn]ot enough memory|[Cc]annot allocate memory"
    r"|[Uu]nable to allocate|[Oo]ut of memory|[Mm]emory allocation"
    # The loader of shared libraries, of packages that are imported.
    r"|failed to map segment"
    # CUDA's libraries and Vulkan.
    r"|CU(?:BLAS|DNN)_STATUS\w*_ALLOC\w*_FAILED|CUFFT_ALLOC_FAILED|cudaErrorMemoryAllocation"
    r"|cudaMallocFromPoolAsync failed|OUT_OF_(?:DEVICE|HOST)_MEMORY"
    # numpy, of shapes whose sizes in bytes are beyond any memory.
    r"|array is too big|Maximum allowed (?:dimension|size) exceeded"
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that there is no memory left."""
    while error is not None:
        if isinstance(error, MemoryError | OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if not isinstance(error, TriformError) and _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def option(name: str) -> str:
    """The name of an argument or of an attribute of the options, as messages write it."""
    return f"`{name}`"


def use_defaults(names: Iterable[str]) -> None:
    """Let these options have no effect, from now on.

    Args:
        names: of options that are set for every call, by their names in Python, as a file of settings does.
    """
    _defaults.clear()
    _defaults.update(names)


def is_default(name: str) -> bool:
    """Whether an option is set for every call, see `use_defaults`."""
    return name in _defaults


def refuse_unused(because: str, **given: bool) -> None:
    """Refuse an option that has no effect, unless it is set for every call.

    Args:
        because: why it has none, in words that follow its name, such as "is for encoders".
        given: whether each of some options was given, by its name in Python.

    Raises:
        InputError: one was.
    """
    for name, is_given in given.items():
        if is_given and not is_default(name):
            raise InputError(f"{option(name)} {because}; leave it out")


def pass_on(error: BaseException) -> None:
    """Raise an exception again if it comes from the handler of a signal; call it where any exception is caught.

    A handler runs between two steps of the main thread, wherever that is, and what it raises comes out there: as if a
    template, a tokenizer or a graph had failed.

    Args:
        error: with its traceback, in which a handler's frame is found.
    """
    codes, step = set(_handlers()), error.__traceback__
    while step is not None:
        if step.tb_frame.f_code in codes:
            raise error
        step = step.tb_next


def _handlers() -> Iterator[CodeType]:
    """The code of the handlers that are written in Python."""
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if not callable(handler):
            continue
        for function in (handler, getattr(handler, "__func__", None), type(handler).__call__):
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                yield code
