"""Small GGUF files, written with gguf-py from models of transformers as llama.cpp's converter writes them.

Names of tensors come from gguf-py's own map, so that no table of ours decides what a test expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH
from gguf import GGMLQuantizationType as Format
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tests.checkpoints.gguf_families import BERTS, ENCODERS, FAMILIES, family_keys
from tests.checkpoints.gguf_rearranged import SUFFIXES, layer_keys, of_delta_rule, stacked, taken_apart
from triform.export.checkpoint.gguf.container import Tensor

_TURNED = (
    MODEL_ARCH.LLAMA, MODEL_ARCH.GRANITE, MODEL_ARCH.SMOLLM3, MODEL_ARCH.MISTRAL3, MODEL_ARCH.ARCEE,
    MODEL_ARCH.GRANITE_MOE, MODEL_ARCH.OLMO, MODEL_ARCH.GRANITE_HYBRID,
)  # fmt: skip
_SHIFTED = (MODEL_ARCH.GEMMA, MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3, MODEL_ARCH.GEMMA_EMBEDDING)
CONTROL, NORMAL, USER_DEFINED = 3, 1, 4


def alphabet() -> list[str]:
    """GPT-2's letters for bytes, in the order of bytes."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in kept else next(others)) for byte in range(256)]


def words_of_bert() -> list[str]:
    """A vocabulary of WordPiece, as llama.cpp has it: beginnings of words marked."""
    letters = [chr(ord("a") + index) for index in range(26)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *(f"▁{piece}" for piece in (*letters, "ship", "sail", ",", ".")), *letters, "ing"]


def make_model(name: str, *, vocab_size: int = 260, **changes: Any) -> Any:
    """A model of a family with random weights, norms and biases among them."""
    _, kind, values = FAMILIES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**values, "vocab_size": vocab_size, **changes})
    model = (AutoModel if name in ENCODERS else AutoModelForCausalLM).from_config(config)
    buffers = [buffer for name, buffer in model.named_buffers() if name.endswith(("correction_bias", "layer_scalar"))]
    with torch.no_grad():
        for parameter in (*model.parameters(), *buffers):
            # Far enough from 0 and 1 that a term left out shows.
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.ndim > 1 else 0.5))
    return model.float().eval()


def write_gguf(
    path: Path,
    name: str,
    model: Any,
    *,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | Tensor] | None = None,
    left_out: Sequence[str] = (),
    format_of: Mapping[str, Format] | Format = Format.F32,
    vocabulary: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model of `make_model`.

    Args:
        path: of the file.
        name: of the family.
        model: of transformers.
        keys: further ones, or others.
        tensors: further ones or others; a `Tensor` is written as it is, whatever its format.
        left_out: names of tensors of the file.
        format_of: of matrices, or of some by name.
        vocabulary: keys of the tokenizer; the family's own when None.
    """
    kind = FAMILIES[name][0]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[kind])
    values = {
        **family_keys(name, model.config, writer.arch),
        **layer_keys(model),
        **(_vocabulary(name) if vocabulary is None else vocabulary),
    }
    for key, value in {**values, **(keys or {})}.items():
        if value is not None:
            _add(writer, key, value)
    for tensor, array in {**_tensors(kind, model), **(tensors or {})}.items():
        if tensor in left_out:
            continue
        if isinstance(array, Tensor):
            writer.add_tensor(tensor, array.data, raw_dtype=array.format)
            continue
        wanted = format_of if isinstance(format_of, Format) else format_of.get(tensor, Format.F32)
        if array.ndim < 2 or wanted is Format.F32:
            writer.add_tensor(tensor, array.astype(np.float32))
        else:
            writer.add_tensor(tensor, gguf.quantize(array.astype(np.float32), wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_uint32(key, int(value))


def _vocabulary(name: str) -> dict[str, Any]:
    if name in BERTS:
        words = words_of_bert()
        kinds = [CONTROL] * 5 + [NORMAL] * (len(words) - 5)
        found = {
            "model": "bert", "tokens": words, "token_type": kinds, "cls_token_id": 2, "bos_token_id": 2,
            "seperator_token_id": 3, "unknown_token_id": 1, "padding_token_id": 0, "mask_token_id": 4,
            "token_type_count": 2,
        }  # fmt: skip
    else:
        found = byte_vocabulary()
    return {f"tokenizer.ggml.{key}": value for key, value in found.items()}


def byte_vocabulary(*more: str, **changes: Any) -> dict[str, Any]:
    """Keys of a byte-level vocabulary: a beginning, an end, the letters, one merge, and `more` tokens."""
    tokens = ["<s>", "<eot>", *alphabet(), "Ġt", *more]
    return {
        "model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": [CONTROL] * 2 + [NORMAL] * (len(tokens) - 2),
        "merges": ["Ġ t"], "bos_token_id": 0, "eos_token_id": 1, **changes,
    }  # fmt: skip


def _tensors(kind: MODEL_ARCH, model: Any) -> dict[str, np.ndarray]:
    config = model.config
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    turned = {name for name, module in model.named_modules() if isinstance(module, Conv1D)}
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    found = stacked(model)
    for name, parameter in model.state_dict().items():
        if name in tied or name.endswith("position_ids") or name.startswith("pooler."):
            continue
        if "altup_projections." in name or "altup_unembed_projections." in name or ".act_fn." in name:
            continue
        if apart := taken_apart(kind, config, name, parameter.numpy()):
            found |= {new: np.ascontiguousarray(array) for new, array in apart.items()}
            continue
        if ".experts." in name or ".shared_mlp." in name:
            found |= _experts(kind, config, name, parameter.numpy())
            continue
        array = _stored(kind, config, name, parameter.numpy())
        if name.rpartition(".")[0] in turned and array.ndim == 2:
            array = array.T
        if kind is MODEL_ARCH.NOMIC_BERT and ".self_attn." in name and ".o_proj." not in name:
            continue
        new = names.get_name(_known_as(kind, name), try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        ends = {"sinks": ".weight", "expert_bias": ".bias", **SUFFIXES}
        new += next((end for own, end in ends.items() if name.endswith(own)), "")
        found[new] = np.ascontiguousarray(array)
    if kind is MODEL_ARCH.NOMIC_BERT:
        # Its first authors have queries, keys and values in one matrix.
        for index, layer in enumerate(model.layers):
            parts = [getattr(layer.self_attn, f"{part}_proj").weight for part in "qkv"]
            found[f"blk.{index}.attn_qkv.weight"] = torch.cat(parts).detach().numpy()
    return found


def _stored(kind: MODEL_ARCH, config: Any, name: str, array: np.ndarray) -> np.ndarray:
    """A parameter as the converter stores it."""
    array = of_delta_rule(kind, config, name, array)
    if ".query_key_value." in name:
        return _ungrouped(array, config)
    if name.endswith(".A_log"):
        array = -np.exp(array)
        return array if array.ndim == 2 or ".linear_attn." in name else array[:, None]
    if name.endswith((".mixer.norm.weight", ".mamba.norm.weight")):
        return array.reshape(getattr(config, "n_groups", None) or config.mamba_n_groups, -1)
    if name.endswith(".D"):
        return array[:, None]
    if name.endswith(("conv.conv.weight", "conv1d.weight")):
        return array.squeeze(1)
    if kind in _TURNED and ".q_proj." in name:
        return rotated(array, config.num_attention_heads)
    if kind in _TURNED and ".k_proj." in name:
        return rotated(array, config.num_key_value_heads)
    if kind in _SHIFTED and name.endswith("norm.weight"):
        return array + 1
    return array


def _ungrouped(array: np.ndarray, config: Any) -> np.ndarray:
    """The rows of all queries, then of all keys, then of all values, which a parameter has in groups."""
    groups = getattr(config, "num_kv_heads", config.num_attention_heads)
    size = config.hidden_size // config.num_attention_heads
    parts = array.reshape(groups, -1, size, *array.shape[1:])
    shares = (parts[:, :-2], parts[:, -2], parts[:, -1])
    return np.concatenate([share.reshape(-1, *array.shape[1:]) for share in shares])


def _experts(kind: MODEL_ARCH, config: Any, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """A parameter of all experts, or of an expert that is always chosen; gates and ups are apart in a file."""
    layer, end = name.split(".")[2], "bias" if name.endswith("bias") else "weight"
    shared = ".shared_mlp." in name
    suffix, axis = ("_shexp", 0) if shared else ("_exps", 1)
    if shared and not config.num_local_experts:
        suffix = ""
    if kind is MODEL_ARCH.GPT_OSS and array.ndim == 3:
        array = array.swapaxes(1, 2)
    if "down_proj" in name or "output_linear" in name:
        return {f"blk.{layer}.ffn_down{suffix}.{end}": np.ascontiguousarray(array)}
    alternate = (array[:, 0::2], array[:, 1::2]) if kind is MODEL_ARCH.GPT_OSS else np.split(array, 2, axis)
    return {
        f"blk.{layer}.ffn_{part}{suffix}.{end}": np.ascontiguousarray(own)
        for part, own in zip(("up", "gate"), reversed(alternate), strict=True)
    }


def _known_as(kind: MODEL_ARCH, name: str) -> str:
    """What the name map calls a parameter: nomic-bert is from before transformers had it, and Granite's router and the
    bias of Falcon-H1's steps have new names."""
    name = name.replace(".dt_bias", ".dt_proj.bias").replace("e_score_correction_bias", "e_score_correction.bias")
    if kind is MODEL_ARCH.BLOOM:
        return name.removeprefix("transformer.")
    if kind in (MODEL_ARCH.GRANITE_MOE, MODEL_ARCH.GRANITE_HYBRID):
        return name.replace(".router.", ".router.layer.")
    if kind is not MODEL_ARCH.NOMIC_BERT:
        return name
    for new, old in {
        "embeddings.LayerNorm": "emb_ln", "layers.": "encoder.layers.", "self_attn.o_proj": "attn.out_proj",
        "post_attention_layernorm": "norm1", "post_mlp_layernorm": "norm2", "mlp.gate_proj": "mlp.fc12",
        "mlp.up_proj": "mlp.fc11", "mlp.down_proj": "mlp.fc2",
    }.items():  # fmt: skip
        name = name.replace(new, old)
    return name


def rotated(array: np.ndarray, heads: int) -> np.ndarray:
    """The rows of queries or keys as llama.cpp's rotation wants them: the two of a pair side by side."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)
