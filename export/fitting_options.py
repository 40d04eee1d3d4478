"""Which of the options fit what is exported: others are refused, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from triform.export.checkpoint.purpose import Purpose
from triform.export.options import AUTO, KEEP, ExportOptions
from triform.models.encoder.image_tasks import CONTRAST
from triform.runtime.errors import InputError, option, refuse_unused

_ENCODERS = ("encoder", "image", "audio")


def check_form(form: str, options: ExportOptions) -> None:
    """Check that what the options ask for can be made.

    Args:
        form: of `Purpose`.
        options: the user's.

    Raises:
        InputError: it cannot.
    """
    if form == "static" and options.for_gpu:
        raise InputError(
            f"{option('target')} {options.target} is not for static word vectors, which are looked up and not "
            f"computed; export with {option('target')} cpu"
        )
    if form in _ENCODERS and not options.for_cpu and options.quantize not in (AUTO, "none"):
        raise InputError(
            f"{option('quantize')} {options.quantize} is for CPUs: encoders have {options.gpu_dtype} weights on GPUs; "
            f"leave it out, or export with {option('target')} cpu,gpu"
        )
    if form != "decoder" and options.quantize == KEEP:
        raise InputError(
            f"{option('quantize')} keep is for decoders whose weights are quantized in blocks; this model is of the "
            f"form {form}"
        )


def without_unused(purpose: Purpose, options: ExportOptions) -> ExportOptions:
    """The options, those that would have no effect at their defaults.

    Args:
        purpose: what is exported.
        options: with the name of a scheme, see `choose_scheme`.

    Raises:
        InputError: one that would have no effect was given for this call.
    """
    default, unused = ExportOptions(), {}
    for name, because in _reasons(purpose, options).items():
        if because is not None and getattr(options, name) != getattr(default, name):
            refuse_unused(because, **{name: True})
            unused[name] = getattr(default, name)
    return dataclasses.replace(options, **unused)


def _reasons(purpose: Purpose, options: ExportOptions) -> Mapping[str, str | None]:
    """Why options have no effect; None for one that has."""
    form, scheme = purpose.form, options.quantize
    this_one = f"this model is of the form {form}"
    hears = form == "encoder-decoder" and purpose.task == "automatic-speech-recognition"
    return {
        "fast": _fast(form, scheme),
        "fast_prompts": options.without_fast_prompts if form == "decoder" else f"is for decoders, and {this_one}",
        "block_size": _blocks(form, scheme),
        "accuracy_level": _accuracy(form, options),
        "calibrate": _calibration(form, scheme),
        "word_timestamps": None if hears else f"is for speech models that write, and this one is for {purpose.task}",
        "hidden_states": _hidden_states(purpose),
        "context_length": _context(purpose),
    }  # fmt: skip


def _fast(form: str, scheme: str) -> str | None:
    if form != "decoder":
        return f"is for decoders, and this model is of the form {form}"
    return f"does not go with {option('quantize')} keep, which does not calibrate" if scheme == KEEP else None


def _blocks(form: str, scheme: str) -> str | None:
    if form in _ENCODERS and scheme != "int4":
        return f"is for {option('quantize')} int4 here: 8-bit encoders have one scale per output column"
    return f"does not go with {option('quantize')} {scheme}" if scheme in ("none", KEEP) else None


def _accuracy(form: str, options: ExportOptions) -> str | None:
    if options.quantize == "none" or form == "static":
        return "is for products of quantized weights, and there are none"
    return None if options.for_cpu else f"is for {option('target')} cpu: GPUs compute with {options.gpu_dtype}"


def _calibration(form: str, scheme: str) -> str | None:
    if form in ("image", "static", "audio"):
        return f"is for decoders, encoders of texts, and encoder-decoders; this model is of the form {form}"
    if scheme in ("none", KEEP):
        return f"does not go with {option('quantize')} {scheme}, which measures nothing"
    return None


def _context(purpose: Purpose) -> str | None:
    if purpose.task == CONTRAST:
        return "cannot be chosen for a model of images and texts, whose texts have the length of its training"
    return "counts tokens of texts, and this model reads none" if purpose.form in ("audio", "image") else None


def _hidden_states(purpose: Purpose) -> str | None:
    if purpose.task == CONTRAST:
        return f"is not for {CONTRAST}; export for image-feature-extraction instead"
    if purpose.form in ("static", "audio", "encoder-decoder"):
        return f"is for decoders and for encoders of texts and images; this model is of the form {purpose.form}"
    return None
