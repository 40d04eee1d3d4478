"""A Whisper checkpoint in CTranslate2's format, written again as a folder that transformers loads.

python -m tests.checkpoints.whisper MODEL_FOLDER OUT_FOLDER
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

# CTranslate2's codes of the types that its Whisper converters write unless asked to quantize; int16 and int8 hold
# settings such as the number of heads.
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 4: np.float16}
# Tokens of the English-only models. The multilingual ones have one more, in front of all special ones.
ENGLISH = 51864
LENGTH = 448
# By CTranslate2's names of the special tokens.
END, START, TRANSLATE, TRANSCRIBE = "<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|transcribe|>"
START_OF_PREVIOUS, NO_TIMESTAMPS, FIRST_TIMESTAMP = "<|startofprev|>", "<|notimestamps|>", "<|0.00|>"

Variables = dict[str, np.ndarray]


def main(source: Path, out: Path) -> None:
    """Writes what `AutoModelForSpeechSeq2Seq`, `AutoTokenizer` and `AutoFeatureExtractor` load from a folder.

    Args:
        source: folder with model.bin, config.json, tokenizer.json, vocabulary.txt; English-only or multilingual with
            99 languages.
        out: folder to write; made if it does not exist.
    """
    variables = read_variables(source / "model.bin")
    words = (source / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[: _vocabulary(variables)]
    ids = {word: token_id for token_id, word in enumerate(words)}
    model = WhisperForConditionalGeneration(model_config(variables, ids))
    model.load_state_dict(state_dict(variables, model.config))
    model.generation_config = generation_config(json.loads((source / "config.json").read_text()), words)
    model.save_pretrained(out)
    WhisperFeatureExtractor().save_pretrained(out)
    write_tokenizer(source, out, words)


def read_variables(path: Path) -> Variables:
    """The variables of a model.bin of version 6 by name, aliases left out.

    The file, little-endian: uint32 version, string specification, uint32 revision, uint32 count; then for each variable
    its string name, uint8 rank, a uint32 for each dimension, uint8 type, uint32 bytes, data. A string is its uint16
    length, and that many bytes with a final NUL.

    Raises:
        ValueError: another version, or a type that is not in `DTYPES`.
    """
    with path.open("rb") as file:
        (version,) = _unpack("<I", file)
        specification = _string(file)
        if (version, specification) != (6, "WhisperSpec"):
            raise ValueError(f"{path}: {specification} in format version {version}, not WhisperSpec in version 6")
        _, count = _unpack("<II", file)
        return dict(_variable(file) for _ in range(count))


def _unpack(layout: str, file: BinaryIO) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack("<H", file)
    return file.read(length)[:-1].decode()


def _variable(file: BinaryIO) -> tuple[str, np.ndarray]:
    name = _string(file)
    (rank,) = _unpack("<B", file)
    shape = _unpack(f"<{rank}I", file)
    dtype, size = _unpack("<BI", file)
    if dtype not in DTYPES:
        raise ValueError(f"{name} has CTranslate2's type {dtype}; known are {sorted(DTYPES)}")
    return name, np.frombuffer(file.read(size), DTYPES[dtype]).reshape(shape)


def _vocabulary(variables: Variables) -> int:
    count = len(variables["decoder/embeddings/weight"])
    if count not in (ENGLISH, ENGLISH + 1):
        raise ValueError(f"the vocabulary has {count} tokens, not {ENGLISH} or {ENGLISH + 1}")
    return count


def model_config(variables: Variables, ids: dict[str, int]) -> WhisperConfig:
    """The dimensions, read off the variables' shapes and names, with the ids of `END` and `START`."""
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    sizes: dict[str, int] = {}
    for side in ("encoder", "decoder"):
        sizes[f"{side}_layers"] = len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_")})
        sizes[f"{side}_layers"] -= 1  # The norm at the end is called layer_norm.
        sizes[f"{side}_attention_heads"] = int(variables[f"{side}/num_heads"])
        sizes[f"{side}_ffn_dim"] = len(variables[f"{side}/layer_0/ffn/linear_0/bias"])
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        max_source_positions=len(variables["encoder/position_encodings/encodings"]),
        max_target_positions=len(variables["decoder/position_encodings/encodings"]),
        bos_token_id=ids[START],
        eos_token_id=ids[END],
        pad_token_id=ids[END],
        decoder_start_token_id=ids[START],
        **sizes,
    )


def state_dict(variables: Variables, config: WhisperConfig) -> dict[str, torch.Tensor]:
    """The weights by transformers' names, float32."""
    found: Variables = {}
    for convolution in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            found[f"model.encoder.{convolution}.{part}"] = variables[f"encoder/{convolution}/{part}"]
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        found[f"model.{side}.embed_positions.weight"] = variables[f"{side}/position_encodings/encodings"]
        found.update(_norm(variables, f"{side}/layer_norm", f"model.{side}.layer_norm"))
        for layer in range(layers):
            found.update(_layer(variables, f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"))
    found["model.decoder.embed_tokens.weight"] = variables["decoder/embeddings/weight"]
    found["proj_out.weight"] = variables["decoder/embeddings/weight"]
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()}


def _layer(variables: Variables, source: str, target: str) -> Iterator[tuple[str, np.ndarray]]:
    own = f"{target}.self_attn"
    yield from _linear(variables, f"{source}/self_attention/linear_0", *(f"{own}.{x}_proj" for x in "qkv"))
    yield from _linear(variables, f"{source}/self_attention/linear_1", f"{own}.out_proj")
    yield from _norm(variables, f"{source}/self_attention/layer_norm", f"{own}_layer_norm")
    if f"{source}/attention/linear_0/weight" in variables:
        cross = f"{target}.encoder_attn"
        yield from _linear(variables, f"{source}/attention/linear_0", f"{cross}.q_proj")
        yield from _linear(variables, f"{source}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
        yield from _linear(variables, f"{source}/attention/linear_2", f"{cross}.out_proj")
        yield from _norm(variables, f"{source}/attention/layer_norm", f"{cross}_layer_norm")
    yield from _linear(variables, f"{source}/ffn/linear_0", f"{target}.fc1")
    yield from _linear(variables, f"{source}/ffn/linear_1", f"{target}.fc2")
    yield from _norm(variables, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")


def _linear(variables: Variables, source: str, *targets: str) -> Iterator[tuple[str, np.ndarray]]:
    """One product as several: CTranslate2 stacks the output rows of projections that share their input.

    Raises:
        ValueError: a key projection has a bias other than zero, which transformers' has not.
    """
    weights = np.split(variables[f"{source}/weight"], len(targets))
    biases = np.split(variables[f"{source}/bias"], len(targets))
    for target, weight, bias in zip(targets, weights, biases, strict=True):
        yield f"{target}.weight", weight
        if not target.endswith(".k_proj"):
            yield f"{target}.bias", bias
        elif bias.any():
            raise ValueError(f"{source}: the bias of {target} is not zero")


def _norm(variables: Variables, source: str, target: str) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{target}.weight", variables[f"{source}/gamma"]
    yield f"{target}.bias", variables[f"{source}/beta"]


def generation_config(settings: dict[str, list[int]], words: list[str]) -> GenerationConfig:
    """What OpenAI's models are published with, the lists from CTranslate2's config.json."""
    ids = {word: token_id for token_id, word in enumerate(words)}
    languages: dict[str, object] = {}
    if len(words) > ENGLISH:
        languages = {
            "lang_to_id": {words[token_id]: token_id for token_id in settings["lang_ids"]},
            "task_to_id": {"transcribe": ids[TRANSCRIBE], "translate": ids[TRANSLATE]},
            "task": "transcribe",
        }
    return GenerationConfig(
        bos_token_id=ids[END] if languages else ids[START],
        eos_token_id=ids[END],
        pad_token_id=ids[END],
        decoder_start_token_id=ids[START],
        no_timestamps_token_id=ids[NO_TIMESTAMPS],
        prev_sot_token_id=ids[START_OF_PREVIOUS],
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        is_multilingual=bool(languages),
        max_initial_timestamp_index=50,
        max_length=LENGTH,
        return_timestamps=False,
        **languages,
    )


def write_tokenizer(source: Path, out: Path, words: list[str]) -> None:
    """tokenizer.json, with the timestamps that CTranslate2 keeps in vocabulary.txt only, and tokenizer_config.json."""
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    special = [token["content"] for token in tokenizer["added_tokens"] if token["special"]]
    # Not special: transformers finds the first timestamp behind the last special token.
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    first = words.index(FIRST_TIMESTAMP)
    timestamps = enumerate(words[first:], first)
    tokenizer["added_tokens"] += [{"id": token_id, "content": word, **plain} for token_id, word in timestamps]
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config = {
        "tokenizer_class": "WhisperTokenizer",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END),
        "additional_special_tokens": special,
        "add_prefix_space": False,
        "model_max_length": 1024,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
