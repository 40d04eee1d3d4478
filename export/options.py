"""What a user may choose about an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triform.runtime.errors import ExportError, InputError, option

BITS = {"int8": 8, "int4": 4}
# Leaves the choice to `default_scheme.choose_scheme`.
AUTO = "auto"
# Keeps the blocks of a GGUF file.
KEEP = "keep"


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose.

    Attributes:
        quantize: how to store weights: none, int8, int4, keep for the blocks of a quantized GGUF file, or auto for
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
        word_timestamps: have a speech model's decoder give the attention that times of words are read from.
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

    def __post_init__(self) -> None:
        if self.quantize not in (AUTO, "none", KEEP, *BITS):
            raise InputError(f"{option('quantize')} must be auto, none, int8, int4 or keep, not {self.quantize}")
        if self.quantize == KEEP and self.block_size is not None:
            raise InputError(
                f"{option('block_size')} does not go with {option('quantize')} keep, which keeps the blocks of the file"
            )
        if self.quantize == "none" and self.block_size is not None:
            raise InputError(f"{option('block_size')} does not go with {option('quantize')} none, which has no blocks")
        if self.block_size is not None and self.block_size not in (16, 32, 64, 128, 256):
            raise InputError(f"{option('block_size')} must be 16, 32, 64, 128 or 256, not {self.block_size}")
        if self.accuracy_level not in (0, 1, 2, 3, 4):
            raise InputError(f"{option('accuracy_level')} must be 0 to 4, not {self.accuracy_level}")
        if self.context_length is not None and self.context_length < 32:
            raise InputError(f"{option('context_length')} must be at least 32, not {self.context_length}")


def check_source(source: str) -> None:
    """Refuse a path that does not exist. Whether a hub id exists is not checked.

    Raises:
        ExportError: as described.
    """
    is_path = Path(source).is_absolute() or source.startswith((".", "~"))
    if is_path and not Path(source).exists():
        raise ExportError(f"{source} does not exist; give a model folder, a .gguf file or a hub id like org/name")
