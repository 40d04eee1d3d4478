"""Peak memory and time of an export: `python -m benchmarks.export_memory FOLDER --layers 16`.

Writes a random Llama in bfloat16 shards to FOLDER, unless it is there, exports it in a process of its own, and prints
how much memory each step held at most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, PreTrainedTokenizerFast

from tests.checkpoints.decoders import CHAT_TEMPLATE, byte_level_tokenizer

_TOKENS = 400


def write_llama(folder: Path, config: LlamaConfig) -> int:
    """Write random weights, a shard for each layer and one for the rest; returns their bytes on disk."""
    folder.mkdir(parents=True)
    width, inner = config.hidden_size, config.intermediate_size
    key_value = config.num_key_value_heads * config.head_dim
    query = config.num_attention_heads * config.head_dim
    shapes = {
        "self_attn.q_proj": (query, width), "self_attn.k_proj": (key_value, width),
        "self_attn.v_proj": (key_value, width), "self_attn.o_proj": (width, query),
        "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner),
        "input_layernorm": (width,), "post_attention_layernorm": (width,),
    }  # fmt: skip
    shards = [
        {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
        for layer in range(config.num_hidden_layers)
    ]
    rest = {"model.embed_tokens.weight": (config.vocab_size, width), "model.norm.weight": (width,)}
    if not config.tie_word_embeddings:
        rest["lm_head.weight"] = (config.vocab_size, width)
    shards.append(rest)
    generator, listed, size = torch.Generator().manual_seed(0), {}, 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({key: _random(shape, generator) for key, shape in shard.items()}, folder / name, {"format": "pt"})
        listed |= dict.fromkeys(shard, name)
        size += (folder / name).stat().st_size
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    config.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(_TOKENS), bos_token="<s>", eos_token="<|end|>", pad_token="<pad>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return size


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.randn(shape, generator=generator).mul_(shape[1] ** -0.5).to(torch.bfloat16)


def llama_config(layers: int, hidden: int, inner: int, vocabulary: int, tied: bool = True) -> LlamaConfig:
    """A Llama with heads of 64 and a key/value head for every four of them."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 256, head_dim=64, tie_word_embeddings=tied,
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def main() -> None:
    """Write, export and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("layers", 16), ("hidden", 2048), ("inner", 8192), ("vocabulary", 49152)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--untied", action="store_true")
    parser.add_argument("--quantize", default="auto")
    options = parser.parse_args()
    config = llama_config(options.layers, options.hidden, options.inner, options.vocabulary, not options.untied)
    if not options.folder.exists():
        write_llama(options.folder, config)
    size = sum(path.stat().st_size for path in options.folder.glob("*.safetensors"))
    bundle = options.folder.with_name(f"{options.folder.name}-bundle")
    steps, peak, seconds = measure(options.folder, bundle, options.quantize)
    for name, (start, most) in steps.items():
        print(f"{name:<10} from {start:6.1f} s, at most {most / 1e9:6.2f} GB")
    print(f"checkpoint {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, {seconds:.0f} s")
    print(f"bound 1.3 x checkpoint + 1.5 GB = {(1.3 * size + 1.5e9) / 1e9:.2f} GB")


def measure(source: Path, bundle: Path, quantize: str) -> tuple[dict[str, tuple[float, int]], int, float]:
    """Export in a process of its own; each step's start and peak, the process's peak in bytes, and the seconds."""
    command = [sys.executable, "-m", "triform", "export", str(source), str(bundle), "--force", "--quantize", quantize]
    steps: dict[str, tuple[float, int]] = {}
    current, begin = "start", time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def follow() -> None:
        nonlocal current
        for line in process.stderr or ():
            current = line.strip().removesuffix(" …")
            print(f"{time.perf_counter() - begin:6.1f} s  {current}", file=sys.stderr)

    threading.Thread(target=follow, daemon=True).start()
    peak, status = 0, Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmRSS" in values:
            resident = int(values["VmRSS"].split()[0]) * 1024
            start, most = steps.get(current, (time.perf_counter() - begin, 0))
            steps[current] = (start, max(most, resident))
            peak = max(peak, int(values["VmHWM"].split()[0]) * 1024)
        time.sleep(0.05)
    return steps, peak, time.perf_counter() - begin


if __name__ == "__main__":
    main()
