"""The options of every command that loads a bundle, declared once and put into the commands' signatures.

A command takes them as one argument, `loading`::

    @with_loading_options
    def run(bundle: Bundle = None, *, loading: LoadOptions) -> int:
        model = load_encoder(bundle, **loading)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triform.cli.arguments.common import Verify
from triform.cli.arguments.replacing import replace_parameters

if TYPE_CHECKING:
    from triform.runtime.opening import LoadOptions


def with_loading_options(command: Callable[..., int]) -> Callable[..., int]:
    """Replace a command's parameter `loading` by one parameter for each of `LoadOptions`."""

    @wraps(command)
    def run(
        *, provider: str, provider_option: Sequence[str] | None, threads: int | None, verify: Any, **parsed: Any
    ) -> int:
        loading: LoadOptions = {
            "provider": provider,
            "provider_options": _key_values(provider_option),
            "threads": threads,
            "verify": verify,
        }
        return command(**parsed, loading=loading)

    replace_parameters(run, command, {"loading": _PARAMETERS})
    return run


_Provider = Annotated[
    str,
    typer.Option(
        help="ONNX Runtime's execution provider: cpu, cuda, webgpu, …; auto is cpu, or cuda for bundles made for GPUs."
    ),
]
_ProviderOption = Annotated[list[str] | None, typer.Option(help="KEY=VALUE: an option of the provider; repeatable.")]
_Threads = Annotated[int | None, typer.Option(help="Number of threads; the physical cores by default.")]


def _parameter(name: str, kind: Any, default: str | None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


_PARAMETERS = (
    _parameter("provider", _Provider, "auto"),
    _parameter("provider_option", _ProviderOption, None),
    _parameter("threads", _Threads, None),
    _parameter("verify", Verify, "once"),
)


def _key_values(pairs: Sequence[str] | None) -> dict[str, str]:
    """Turn ["a=1", "b=2"] into a dictionary.

    Raises:
        InputError: an entry has no "=".
    """
    from triform.runtime.errors import InputError

    options = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(f"--provider-option must be KEY=VALUE, not {pair!r}")
        options[key] = value
    return options
