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

from triform.export.checkpoint.gguf.container import Tensor

# Sizes that differ from one another, so that one taken for another shows.
SIZES = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 80, "max_position_embeddings": 96,
}  # fmt: skip
_GPT2 = {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_inner": 80, "n_positions": 96}
_RMS = {"rms_norm_eps": 1e-3}
_HEADS = {"head_dim": 16}
# By name: the architecture of the file, transformers' type, and its config.
FAMILIES: dict[str, tuple[MODEL_ARCH, str, dict[str, Any]]] = {
    "llama": (MODEL_ARCH.LLAMA, "llama", {**SIZES, **_RMS, **_HEADS}),
    "mistral": (MODEL_ARCH.LLAMA, "mistral", {**SIZES, **_RMS, **_HEADS, "sliding_window": 7}),
    "qwen2": (MODEL_ARCH.QWEN2, "qwen2", {**SIZES, **_RMS}),
    "qwen3": (MODEL_ARCH.QWEN3, "qwen3", {**SIZES, **_RMS, **_HEADS}),
    "gemma2": (
        MODEL_ARCH.GEMMA2, "gemma2",
        {
            **SIZES, **_RMS, **_HEADS, "sliding_window": 7, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        MODEL_ARCH.GEMMA3, "gemma3_text",
        {
            **SIZES, **_RMS, **_HEADS, "num_hidden_layers": 7, "sliding_window": 7, "query_pre_attn_scalar": 16,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": (
        MODEL_ARCH.PHI3, "phi3",
        {**SIZES, **_RMS, "sliding_window": 9, "pad_token_id": None, "partial_rotary_factor": 0.5},
    ),
    "granite": (
        MODEL_ARCH.GRANITE, "granite",
        {
            **SIZES, **_RMS, "attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
            "logits_scaling": 3.0,
        },
    ),
    "olmo2": (MODEL_ARCH.OLMO2, "olmo2", {**SIZES, **_RMS, "pad_token_id": None}),
    "olmo3": (
        MODEL_ARCH.OLMO2, "olmo3",
        {**SIZES, **_RMS, "num_hidden_layers": 5, "sliding_window": 7, "pad_token_id": None},
    ),
    "smollm3": (MODEL_ARCH.SMOLLM3, "smollm3", {**SIZES, **_RMS, "num_hidden_layers": 5, "pad_token_id": None}),
    "starcoder2": (MODEL_ARCH.STARCODER2, "starcoder2", {**SIZES, "norm_epsilon": 1e-3}),
    "gpt2": (MODEL_ARCH.GPT2, "gpt2", {**_GPT2, "layer_norm_epsilon": 1e-3}),
    "bert": (MODEL_ARCH.BERT, "bert", {**SIZES, "type_vocab_size": 2, "layer_norm_eps": 1e-3}),
    "nomic-bert": (
        MODEL_ARCH.NOMIC_BERT, "nomic_bert",
        {
            **SIZES, "type_vocab_size": 2, "layer_norm_eps": 1e-3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e3},
        },
    ),
}  # fmt: skip
ENCODERS = ("bert", "nomic-bert")
_TURNED = (MODEL_ARCH.LLAMA, MODEL_ARCH.GRANITE, MODEL_ARCH.SMOLLM3)
_SHIFTED = (MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3)
_EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
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
    with torch.no_grad():
        for parameter in model.parameters():
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
    values = {**_keys(name, model.config, writer.arch), **(_vocabulary(name) if vocabulary is None else vocabulary)}
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


def _keys(name: str, config: Any, arch: str) -> dict[str, Any]:
    plain = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", None) or config.n_inner,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": None
        if name in ("gpt2", *ENCODERS)
        else getattr(config, "num_key_value_heads", None),
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        "attention.layer_norm_epsilon": next(
            (getattr(config, key) for key in _EPSILONS if hasattr(config, key)), None
        ),
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "attention.causal": False if name in ENCODERS else None,
    }  # fmt: skip
    rope = getattr(config, "rope_parameters", None) or {}
    whole = rope.get("full_attention", rope)
    if whole:
        plain["rope.freq_base"] = float(whole["rope_theta"])
        if whole["rope_type"] == "linear":
            plain |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(whole["factor"])}
    heads = config.head_dim if "head_dim" in FAMILIES[name][2] else None
    if heads:
        plain |= {"attention.key_length": heads, "attention.value_length": heads}
    if name == "llama":
        plain["rope.dimension_count"] = heads
    plain |= _KEYS_OF[name](config) if name in _KEYS_OF else {}
    return {"general.type": "model", **{f"{arch}.{key}": value for key, value in plain.items()}}


_KEYS_OF = {
    "gemma2": lambda config: {
        "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
    },
    "phi3": lambda config: {"rope.dimension_count": config.hidden_size // config.num_attention_heads // 2},
    "granite": lambda config: {
        "attention.scale": config.attention_multiplier, "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier, "logit_scale": config.logits_scaling,
    },
    "olmo3": lambda config: {
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types]
    },
    "bert": lambda config: {"pooling_type": 1},
    "nomic-bert": lambda config: {"pooling_type": 2},
}  # fmt: skip


def _vocabulary(name: str) -> dict[str, Any]:
    if name in ENCODERS:
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
    found = {}
    for name, parameter in model.state_dict().items():
        if name in tied or name.endswith("position_ids") or name.startswith("pooler."):
            continue
        array = parameter.numpy()
        if kind in _TURNED and ".q_proj." in name:
            array = rotated(array, config.num_attention_heads)
        if kind in _TURNED and ".k_proj." in name:
            array = rotated(array, config.num_key_value_heads)
        if kind in _SHIFTED and name.endswith("norm.weight"):
            array = array + 1
        if name.rpartition(".")[0] in turned and array.ndim == 2:
            array = array.T
        if kind is MODEL_ARCH.NOMIC_BERT and ".self_attn." in name and ".o_proj." not in name:
            continue
        new = names.get_name(_known_as(kind, name), try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        found[new] = np.ascontiguousarray(array)
    if kind is MODEL_ARCH.NOMIC_BERT:
        # Its first authors have queries, keys and values in one matrix.
        for index, layer in enumerate(model.layers):
            parts = [getattr(layer.self_attn, f"{part}_proj").weight for part in "qkv"]
            found[f"blk.{index}.attn_qkv.weight"] = torch.cat(parts).detach().numpy()
    return found


def _known_as(kind: MODEL_ARCH, name: str) -> str:
    """What the name map calls a parameter of nomic-bert, which is from before transformers had the model."""
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
