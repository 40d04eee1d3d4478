"""An export takes little more memory than its checkpoint."""

from __future__ import annotations

import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

from tests.checkpoints.decoders import llama_folder

# 0.35 GB in bfloat16, in one large table and matrices that are packed.
SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 48_000,
}
PEAK = """
import sys
from triform.export import ExportOptions, export
export(sys.argv[1], sys.argv[2], ExportOptions(quantize="int4"))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_peak_memory_of_an_export(tmp_path):
    folder = llama_folder(tmp_path / "model", **SIZES)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100MB")
    files = list(folder.glob("model-*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    assert len(files) > 2
    assert size > 3e8
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), str(tmp_path / "bundle")], check=True, capture_output=True, text=True
    )
    peak = 1024 * int(done.stdout.split()[-1])
    assert peak <= 1.3 * size + 1.5e9
