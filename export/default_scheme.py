"""Chooses how to store the weights of a checkpoint where the user leaves it to us."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PretrainedConfig

from triform.export.checkpoint.loading import has_blocks
from triform.export.checkpoint.source import Source
from triform.export.describe.normal_config import normal_config
from triform.export.options import AUTO, KEEP, MIXED, ExportOptions
from triform.export.quantize.mixed.choices import WIDEST_IN_8_BITS
from triform.runtime.errors import InputError, option, refuse_unused


@dataclass(frozen=True)
class SchemeChoice:
    """How weights are stored.

    Attributes:
        name: none, int8, int4, keep or mixed.
        because: what decided it, in words.
    """

    name: str
    because: str


def choose_scheme(form: str, origin: Source, config: PretrainedConfig, options: ExportOptions) -> SchemeChoice:
    """The scheme that the user names, or the one for a model of this form and size.

    Args:
        form: of `Purpose`.
        origin: from `find_checkpoint`.
        config: from `read_config`.
        options: what the user chose.

    Raises:
        InputError: a block size is set for a file that keeps its own blocks, or a target for another form.
    """
    if options.goals:
        goal = option(options.goals[0])
        if options.for_gpu:
            raise InputError(f"{goal} is for {option('target')} cpu")
        if form == "static":
            raise InputError(f"{goal} is not for static word vectors, which are stored in one way")
        return SchemeChoice(MIXED, goal)
    if not options.for_cpu:
        return _for_gpu(options)
    if options.quantize != AUTO:
        return SchemeChoice(options.quantize, option("quantize"))
    if form != "decoder":
        return SchemeChoice("int8", f"the form {form}")
    return _for_decoder(origin, config, options)


def _for_decoder(origin: Source, config: PretrainedConfig, options: ExportOptions) -> SchemeChoice:
    if has_blocks(origin) and not options.for_gpu:
        own = f"needs {option('quantize')} int4 or int8 here: {origin.name} keeps its own blocks"
        refuse_unused(own, block_size=options.block_size is not None)
        return SchemeChoice(KEEP, "the checkpoint, which is quantized in blocks")
    width = normal_config(config.get_text_config(decoder=True)).get("hidden_size")
    if not isinstance(width, int):
        return SchemeChoice("int8", "a hidden size that the config does not name")
    if width <= WIDEST_IN_8_BITS:
        return SchemeChoice("int8", f"the hidden size {width}: small products are as fast in 8 bits and lose less")
    return SchemeChoice("int4", f"the hidden size {width}: large products are faster in 4 bits")


def _for_gpu(options: ExportOptions) -> SchemeChoice:
    """The scheme of a bundle for GPUs alone.

    Raises:
        InputError: there is none of this name for GPUs.
    """
    if options.quantize == AUTO:
        return SchemeChoice("none", f"{option('target')} gpu: 16-bit floats are fastest for several texts at once")
    if options.quantize not in ("none", "int4") or options.block_size is not None:
        raise InputError(
            f"{option('target')} gpu takes {option('quantize')} none, for 16-bit floats, or int4, in blocks of 32"
        )
    return SchemeChoice(options.quantize, option("quantize"))
