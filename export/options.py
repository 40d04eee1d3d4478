"""What a user may choose about an export."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from triform.runtime.bundle.manifest import GpuDtype
from triform.runtime.errors import InputError, option, refuse_unused

BITS = {"int8": 8, "int4": 4}
# Leaves the choice to `default_scheme.choose_scheme`.
AUTO = "auto"
# Keeps the blocks of a GGUF file, or of another quantized checkpoint.
KEEP = "keep"
# What a target leads to: each matrix has bits and a block size of its own.
MIXED = "mixed"

# What a bundle may be made for.
TARGETS = ("cpu", "gpu", "cpu,gpu")

# The fewest tokens of a context: enough for the texts that a decoder is verified on.
SHORTEST_CONTEXT = 32

_MOST_BITS = 16
_UNITS = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose.

    Attributes:
        quantize: how to store weights: none, int8, int4, keep for the blocks of a quantized checkpoint, or auto for
            what suits the form, the size and the source.
        block_size: weights sharing a scale, a power of two from 16 to 256; a good default for the scheme when None.
        accuracy_level: of MatMulNBits: 4 computes with 8-bit activations, 1 with float32.
        context_length: most tokens the bundle must handle; the model's own limit when None.
        force: replace a bundle that exists.
        trust_remote_code: run code that comes with the checkpoint.
        revision: of a hub id: a branch, a tag or a commit.
        task: what to export for, by a name of the hub; what the checkpoint was trained for when None.
        hidden_states: keep the outputs of an encoder's every layer, or of a decoder's last one.
        calibrate: files of texts, or of recordings for speech models, to measure activations on; what comes with the
            exporter when there are none.
        target_size: most bytes that the whole bundle may take; with quantize auto.
        target_bits: most bits per weight of its matrices, scales and zero points included; with quantize auto.
        max_loss: most that a decoder's or an encoder-decoder's perplexity may grow, as a share, or an encoder's mean
            cosine be below 1, its scores differ on average, or what a speech model writes change (of CTC tokens, of
            others words); with quantize auto.
        word_timestamps: have a speech model's decoder give the attention that times of words are read from.
        target: cpu, gpu, or both as ``cpu,gpu``.
        dtype: of the numbers that a GPU computes with: float16 or bfloat16.
        fast: do not calibrate a decoder, and verify it on fewer tokens.
        fast_prompts: store a decoder's matrices a second time, in 8-bit columns, for a graph that reads long prompts.
    """

    quantize: str = AUTO
    block_size: int | None = None
    accuracy_level: int = 4
    context_length: int | None = None
    force: bool = False
    trust_remote_code: bool = False
    revision: str | None = None
    task: str | None = None
    hidden_states: bool = False
    calibrate: tuple[str, ...] = ()
    word_timestamps: bool = False
    target_size: int | None = None
    target_bits: float | None = None
    max_loss: float | None = None
    target: str = "cpu"
    dtype: str | None = None
    fast: bool = False
    fast_prompts: bool = False

    @property
    def for_cpu(self) -> bool:
        """Whether the bundle gets graphs for the CPU."""
        return "cpu" in self.target

    @property
    def for_gpu(self) -> bool:
        """Whether the bundle gets graphs for GPUs."""
        return "gpu" in self.target

    @property
    def gpu_dtype(self) -> GpuDtype:
        """What a GPU computes with."""
        return "bfloat16" if self.dtype == "bfloat16" else "float16"

    @property
    def goals(self) -> list[str]:
        """The names of the options that say what the whole must be; at most one is allowed."""
        return [name for name in ("target_size", "target_bits", "max_loss") if getattr(self, name) is not None]

    def __post_init__(self) -> None:
        if self.quantize not in (AUTO, "none", KEEP, *BITS, *((MIXED,) if self.goals else ())):
            raise InputError(f"{option('quantize')} must be auto, none, int8, int4 or keep, not {self.quantize}")
        self._check_unused()
        if self.block_size is not None and self.block_size not in (16, 32, 64, 128, 256):
            raise InputError(f"{option('block_size')} must be 16, 32, 64, 128 or 256, not {self.block_size}")
        if self.accuracy_level not in (0, 1, 2, 3, 4):
            raise InputError(f"{option('accuracy_level')} must be 0 to 4, not {self.accuracy_level}")
        self._check_goal()
        self._check_gpu()
        self._check_fast()
        if self.context_length is not None and self.context_length < SHORTEST_CONTEXT:
            raise InputError(
                f"{option('context_length')} must be at least {SHORTEST_CONTEXT}, not {self.context_length}"
            )

    def _check_unused(self) -> None:
        """Refuse what has no effect beside the other options."""
        blocks = {KEEP: "which keeps the blocks of the checkpoint", "none": "which has no blocks"}
        if self.quantize in blocks:
            without = f"does not go with {option('quantize')} {self.quantize}, {blocks[self.quantize]}"
            refuse_unused(without, block_size=self.block_size is not None)
        on_cpus = f"is for {option('target')} gpu; the CPU computes with float32"
        refuse_unused(on_cpus, dtype=self.dtype is not None and not self.for_gpu)
        if self.fast_prompts and self.without_fast_prompts is not None:
            refuse_unused(self.without_fast_prompts, fast_prompts=True)

    @property
    def without_fast_prompts(self) -> str | None:
        """Why no matrices can be stored for long prompts, in words; None if they can."""
        if self.quantize == "none":
            return f"does not go with {option('quantize')} none: it rounds to 8 bits"
        if self.goals:
            return f"does not go with {option(self.goals[0])}, which does not count what it adds"
        return None if self.for_cpu else f"is for {option('target')} cpu"

    def _check_gpu(self) -> None:
        if self.target not in TARGETS:
            raise InputError(
                f"{option('target')} must be {', '.join(TARGETS[:-1])} or {TARGETS[-1]}, not {self.target}"
            )
        if self.quantize == KEEP and self.for_gpu:
            raise InputError(f"{option('quantize')} keep is for {option('target')} cpu: GPUs compute with none or int4")
        if self.dtype not in (None, *get_args(GpuDtype)):
            raise InputError(f"{option('dtype')} must be float16 or bfloat16, not {self.dtype}")

    def _check_fast(self) -> None:
        if not self.fast:
            return
        if self.calibrate:
            raise InputError(
                f"{option('fast')} does not calibrate: leave out {option('fast')} or {option('calibrate')}"
            )
        if self.goals:
            name = self.goals[0]
            raise InputError(f"{option(name)} needs what {option('fast')} does not measure; leave out one of them")

    def _check_goal(self) -> None:
        if not self.goals:
            return
        name, *others = self.goals
        if others:
            raise InputError(f"{option(name)} and {option(others[0])} cannot be used together; leave one out")
        if self.quantize not in (AUTO, MIXED):
            raise InputError(f"{option(name)} needs {option('quantize')} auto, not {self.quantize}")
        if self.block_size is not None:
            raise InputError(f"{option('block_size')} does not go with {option(name)}, which chooses the blocks")
        if self.target_size is not None and self.target_size < 1:
            raise InputError(f"{option('target_size')} must be at least a byte, not {self.target_size}")
        if self.target_bits is not None and not 0 < self.target_bits <= _MOST_BITS:
            raise InputError(
                f"{option('target_bits')} must be above 0 and at most {_MOST_BITS}, not {self.target_bits}"
            )
        if self.max_loss is not None and not 0 < self.max_loss <= 1:
            raise InputError(f"{option('max_loss')} must be above 0 and at most 100%, not {100 * self.max_loss:g}%")


def bytes_of(text: str) -> int:
    """The bytes that a size such as 90MB, 1.5GB or 80MiB says.

    Raises:
        InputError: the text is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B?|B)", text.strip())
    if match is None:
        raise InputError(f"{option('target_size')} must be a size such as 90MB or 1.5GB, not {text}")
    unit = match[2] if match[2].endswith("B") else match[2] + "B"
    return int(float(match[1]) * _UNITS[unit])


def share_of(text: str) -> float:
    """The share that a percentage such as 1% or 0.5% says.

    Raises:
        InputError: the text is no percentage.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*%", text.strip())
    if match is None:
        raise InputError(f"{option('max_loss')} must be a percentage such as 1% or 0.5%, not {text}")
    return float(match[1]) / 100
