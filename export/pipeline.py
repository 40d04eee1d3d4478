"""Exports a checkpoint: finds out what form it has and runs that form's steps."""

from __future__ import annotations

from pathlib import Path

from transformers import PretrainedConfig

from triform.export.checkpoint.source import find, read_config
from triform.export.describe.plan import Row
from triform.export.forms import decoder, encoder, encoder_decoder, image, static
from triform.export.options import KEEP, ExportOptions
from triform.export.report import Clock, Progress, Report
from triform.export.write import check_target
from triform.models import catalog
from triform.models.errors import UnsupportedModelError
from triform.runtime.errors import InputError, UnsupportedError

__all__ = ["ExportOptions", "Report", "export", "plan"]

_FORMS = {
    "decoder": decoder,
    "encoder": encoder,
    "encoder-decoder": encoder_decoder,
    "image": image,
    "static": static,
}


def plan(source: str, options: ExportOptions) -> list[Row]:
    """What `export` would do, from the config alone: rows of (what, value).

    Raises:
        ExportError: the source cannot be read.
        UnsupportedError: the model type is not supported.
    """
    origin = find(source, trust_remote_code=options.trust_remote_code, revision=options.revision)
    config = read_config(origin)
    form = _form(config, options)
    _check_options(form, options)
    return _FORMS[form].plan(origin, config, options)


def export(source: str, bundle: Path, options: ExportOptions, progress: Progress = lambda _: None) -> Report:
    """Turn a checkpoint into a verified bundle.

    Args:
        source: a transformers folder, a GGUF file, or a hub id.
        bundle: the folder to make.
        options: see `ExportOptions`.
        progress: called with the name of each step as it starts.

    Raises:
        ExportError: the source or the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the model type is not supported.
    """
    check_target(bundle, options.force)
    clock = Clock(progress)
    with clock.step("load"):
        origin = find(source, trust_remote_code=options.trust_remote_code, revision=options.revision)
        config = read_config(origin)
        form = _form(config, options)
        _check_options(form, options)
        steps = _FORMS[form]
        checkpoint = steps.load(origin, config, options)
    return steps.export(checkpoint, bundle, options, clock)


def _form(config: PretrainedConfig, options: ExportOptions) -> str:
    try:
        return catalog.form_of(config, options.task)
    except UnsupportedModelError as error:
        raise UnsupportedError(str(error)) from error


def _check_options(form: str, options: ExportOptions) -> None:
    if form in ("encoder", "image") and options.block_size is not None and options.quantize != "int4":
        raise InputError("--block-size is for --quantize int4 here: 8-bit encoders have one scale per output column")
    if form != "decoder" and options.quantize == KEEP:
        raise InputError(f"--quantize keep is for decoders from GGUF files; this model is of the form {form}")
    if form != "encoder-decoder" and options.word_timestamps:
        raise InputError(f"--word-timestamps is for speech models; this model is of the form {form}")
