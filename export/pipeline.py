"""Exports a checkpoint: finds out what form it has and runs that form's steps."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from transformers import PretrainedConfig

from triform.export.checkpoint.loading import read_config
from triform.export.checkpoint.purpose import Purpose, decide_purpose
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.default_scheme import SchemeChoice, choose_scheme
from triform.export.describe.plan import Row
from triform.export.fitting_options import check_form, without_unused
from triform.export.forms import audio, decoder, encoder, encoder_decoder, image, static
from triform.export.options import ExportOptions
from triform.export.paths import check_target
from triform.export.report import Clock, Progress, Report
from triform.export.samples.own import calibration_text, check_recordings
from triform.models.compiled_folder import without_compiled_folder
from triform.models.errors import first_line
from triform.runtime.errors import ExportError, OutOfMemoryError, is_out_of_memory
from triform.runtime.panics import panics_as

__all__ = ["ExportOptions", "Report", "export", "plan"]

_FORMS = {
    "decoder": decoder,
    "encoder": encoder,
    "encoder-decoder": encoder_decoder,
    "image": image,
    "audio": audio,
    "static": static,
}


def plan(source: str | Path, options: ExportOptions | None = None) -> list[Row]:
    """What `export` would do, from the config and the names of the weights: rows of (what, value).

    Args:
        source: see `export`.
        options: see `export`.

    Raises:
        ExportError: the source cannot be read.
        UnsupportedError: the model type is not supported.
    """
    options = options or ExportOptions()
    with _unusable_values(source):
        opened = _opened(str(source), options, weights=False)
        rows = _FORMS[opened.purpose.form].plan(opened.origin, opened.config, opened.options)
    task, weights = ([what for what, _ in rows].index(row) + 1 for row in ("task", "weights"))
    return [
        *rows[:task],
        ("decided by", opened.purpose.because),
        *rows[task:weights],
        ("weights decided by", opened.scheme.because),
        *rows[weights:],
    ]


def export(
    source: str | Path,
    bundle: str | Path,
    options: ExportOptions | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Turn a checkpoint into a verified bundle.

    Args:
        source: a transformers folder, a GGUF file, word vectors, or a hub id.
        bundle: the folder to make.
        options: the defaults when None.
        progress: called with the name of each step as it starts.

    Raises:
        ExportError: the source or the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the model type is not supported.
    """
    options, target = options or ExportOptions(), Path(bundle)
    check_target(target, options.force)
    clock = Clock(progress)
    with without_compiled_folder(), _in_memory(source), panics_as(partial(_panic, source)):
        with clock.step("load"), _unusable_values(source):
            opened = _opened(str(source), options, weights=True)
            steps = _FORMS[opened.purpose.form]
            checkpoint = steps.load(opened.origin, opened.config, opened.options)
        if isinstance(checkpoint, Checkpoint):
            clock.notes.extend(checkpoint.notes)
        report = steps.export(checkpoint, target, opened.options, clock)
    return dataclasses.replace(
        report,
        task=opened.purpose.task,
        decided_by=opened.purpose.because,
        scheme=opened.scheme.name,
        scheme_decided_by=opened.scheme.because,
        left_out=checkpoint.left_out if isinstance(checkpoint, Checkpoint) else (),
        parts_left_out=dict(checkpoint.parts_left_out) if isinstance(checkpoint, Checkpoint) else {},
    )


def _panic(source: str | Path, reason: str) -> ExportError:
    return ExportError(f"the tokenizer of {source} fails ({reason}); it cannot be exported")


@contextmanager
def _in_memory(source: str | Path) -> Iterator[None]:
    """Say in one line that memory does not suffice, whoever notices it."""
    try:
        yield
    except Exception as error:  # each library has its own
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"exporting {source} does not fit into memory; free some, or use a larger machine"
            ) from error
        raise


@contextmanager
def _unusable_values(source: str | Path) -> Iterator[None]:
    """Say in one line that a config holds a value that nobody can use, where no check knows of it."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if os.environ.get("TRIFORM_DEBUG"):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ExportError(
            f"{source} cannot be loaded ({reason}): a value in one of its configs is of the wrong type or out of range"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A source on this machine, its config, what it is for, and the options with a scheme that is named."""

    origin: Source
    config: PretrainedConfig
    purpose: Purpose
    options: ExportOptions
    scheme: SchemeChoice


def _opened(source: str, options: ExportOptions, *, weights: bool) -> _Opened:
    origin = find_checkpoint(
        source, trust_remote_code=options.trust_remote_code, revision=options.revision, weights=weights
    )
    config = read_config(origin)
    purpose = decide_purpose(origin, config, options.task)
    check_form(purpose.form, options)
    scheme = choose_scheme(purpose.form, origin, config, options)
    options = without_unused(purpose, dataclasses.replace(options, quantize=scheme.name))
    if options.calibrate:
        # Only to refuse what cannot be read, before anything takes long.
        (check_recordings if purpose.task == "automatic-speech-recognition" else calibration_text)(options.calibrate)
    return _Opened(dataclasses.replace(origin, task=purpose.task), config, purpose, options, scheme)
