"""Says which tensors of a checkpoint do not fit a model; transformers says so in a table that it logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import modeling_utils

from triform.models.patching import patched
from triform.runtime.errors import ExportError


@contextmanager
def misfits_named() -> Iterator[None]:
    """While the block runs, a model that transformers loads has all of a checkpoint's tensors that it has names for.

    Raises:
        ExportError: a tensor has another shape than its parameter, or several do not make the one that they are to
            make; names the first, and how many more there are.
    """
    with patched([(modeling_utils, "log_state_dict_report", _refuse_misfits)]):
        yield


def _refuse_misfits(*, loading_info: Any, **_: Any) -> None:
    """Takes what transformers gives to the function that logs its table."""
    misfits = [
        f"{name} is {_shape(stored)}, and its config asks for {_shape(asked)}"
        for name, stored, asked in sorted(loading_info.mismatched_keys)
    ]
    misfits += [
        f"what {name} is made of does not go together ({_reason(error)}): a part is missing, or of another shape"
        for name, error in sorted(loading_info.conversion_errors.items())
    ]
    misfits += loading_info.error_msgs
    if misfits:
        more = f", and {len(misfits) - 1} more do not fit" if len(misfits) > 1 else ""
        raise ExportError(f"{misfits[0]}{more}")


def _shape(sizes: Any) -> str:
    return " x ".join(map(str, sizes)) or "a single number"


def _reason(report: str) -> str:
    """What PyTorch says, of a report that ends with it and with the step that failed."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    return lines[-2 if len(lines) > 1 else -1].rstrip(".")
