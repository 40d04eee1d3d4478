"""A checkpoint on this machine, as `resolve.find_checkpoint` finds it and `loading` loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from triform.export.checkpoint.files.packed.packing import Packing
from triform.export.checkpoint.files.weights import WeightFiles
from triform.export.checkpoint.gguf.placement import Placement


@dataclass(frozen=True)
class Source:
    """Where a checkpoint and its parts are.

    Attributes:
        name: what to call the model: the folder's, the file's or the hub's name, without a path.
        path: the folder, the GGUF file or the file of word vectors.
        model_folder: holds config.json and the weights; the folder of a file.
        tokenizer_folder: holds the tokenizer.
        size: bytes of the weights on disk.
        weights: their files; None for a GGUF file, static vectors, or weights that were not fetched.
        packings: how matrices are packed into several tensors, as the config says.
        adapter: the folder of an adapter to merge into the model; None without one.
        trust_remote_code: whether code that comes with the checkpoint may run.
        task: what it is to be exported for, once `purpose.decide_purpose` has decided.
    """

    name: str
    path: Path
    model_folder: Path
    tokenizer_folder: Path
    size: int = 0
    weights: WeightFiles | None = None
    packings: tuple[Packing, ...] = ()
    adapter: Path | None = None
    trust_remote_code: bool = False
    task: str = ""

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, where it is one."""
        return self.path if self.path.suffix.lower() == ".gguf" and self.path.is_file() else None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `from_pretrained` besides the folder."""
        return {"trust_remote_code": self.trust_remote_code, "local_files_only": True}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with its tokenizer, and how it was loaded.

    Attributes:
        source: where it came from.
        model: in float32, on CPU, in evaluation mode.
        tokenizer: None for a model that reads no text.
        weights_size: bytes.
        image_processor: None for a model that reads no images.
        missing: names of parameters that the checkpoint has no weights for, and no output needs.
        placements: of a GGUF file, where each parameter is in it, by name.
        left_out: names of tensors of the checkpoint that the model does not read: those of heads for other tasks, and
            of other parts.
        parts_left_out: of these parts, how many tensors each has.
        notes: what the user should know of it, a sentence each.
    """

    source: Source
    model: PreTrainedModel
    tokenizer: Any
    weights_size: int
    image_processor: Any = None
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    parts_left_out: Mapping[str, int] = field(default_factory=dict)
    placements: Mapping[str, Placement] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
