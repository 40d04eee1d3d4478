"""Embedding speed and fidelity next to sentence-transformers, CTranslate2, OpenVINO and fastembed's way.

    python benchmarks/encode.py prepare WORK CHECKPOINT   # environments, models of the peers and the texts, once
    python benchmarks/encode.py speed WORK                # texts a second, alternating
    python benchmarks/encode.py quality WORK              # cosines to torch

CHECKPOINT is a sentence-transformers folder, such as all-MiniLM-L6-v2. The texts are 1,024 of those that the source
archive of vaderSentiment carries: tweets, snippets of film and product reviews, and of newspapers. Every engine runs in
an environment of its own, with 2 threads, with rows of like length together where it does not see to that itself.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS, THREADS, TEXTS = 5, 2, 1024
ENGINES = ("triform-int8", "triform-float", "torch", "ctranslate2", "openvino", "onnxruntime")
PACKAGES = {
    "triform": [str(HERE.parent)],
    "torch": ["torch==2.13.0", "sentence-transformers"],
    "ctranslate2": ["torch==2.13.0", "transformers", "ctranslate2"],
    "openvino": ["openvino", "tokenizers", "numpy"],
    "onnxruntime": ["onnxruntime", "tokenizers", "numpy"],
}


def prepare(work: Path, checkpoint: Path):
    """Make everything the other commands need under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    for name, packages in PACKAGES.items():
        if not (work / name).exists():
            subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
            for package in packages:
                subprocess.run([work / name / "bin" / "pip", "install", "--quiet", package], check=True)
    (work / "model").unlink(missing_ok=True)
    (work / "model").symlink_to(checkpoint.resolve())
    for scheme in ("int8", "none"):
        command = [sys.executable, "-m", "triform", "export", checkpoint, work / f"bundle-{scheme}", "--force"]
        subprocess.run([*command, "--quantize", scheme], check=True)
    converter = work / "ctranslate2" / "bin" / "ct2-transformers-converter"
    command = [converter, "--model", checkpoint, "--output_dir", work / "ct2", "--quantization", "int8", "--force"]
    subprocess.run(command, check=True)
    _plain_onnx(checkpoint, work / "plain.onnx")
    (work / "texts.json").write_text(json.dumps(_texts(work)))


def _plain_onnx(checkpoint: Path, path: Path):
    """The model as PyTorch's exporter leaves it, which is what the hub's ONNX files are."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = {name: torch.ones(2, 7, dtype=torch.int64) for name in names}
    axes = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in names}
    program = torch.onnx.export(
        model, kwargs=example, dynamic_shapes=axes, dynamo=True, input_names=names,
        output_names=["last_hidden_state", "pooler_output"],
    )  # fmt: skip
    program.save(path)


def _texts(work: Path) -> list[str]:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    if not list(work.glob("vader*.tar.gz")):
        subprocess.run([*pip, "--dest", work, "vaderSentiment==3.3.2"], check=True)
    found = []
    with tarfile.open(next(work.glob("vader*.tar.gz"))) as outer:
        nested = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=outer.extractfile(nested)) as archive:
            names = sorted(
                name for name in archive.getnames() if name.endswith("_GroundTruth.txt") and "/._" not in name
            )
            share = TEXTS // len(names)
            for name in names:
                lines = archive.extractfile(name).read().decode("utf-8", "replace").splitlines()
                texts = [line.split("\t")[2].strip() for line in lines if line.count("\t") >= 2]
                found += texts[:: max(1, len(texts) // share)][:share]
    return found


def _start(work: Path, name: str):
    environment = name.split("-")[0]
    model = {
        "triform-int8": work / "bundle-int8", "triform-float": work / "bundle-none", "torch": work / "model",
        "ctranslate2": work / "ct2", "openvino": work / "plain.onnx", "onnxruntime": work / "plain.onnx",
    }[name]  # fmt: skip
    worker = HERE / "encode_engines.py"
    command = [work / environment / "bin" / "python", worker, environment, model, work, str(THREADS)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _ask(process, request):
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def speed(work: Path):
    """Alternate between the engines; idle ones only wait for a line."""
    running = {name: _start(work, name) for name in ENGINES}
    found = {name: [] for name in ENGINES}
    for round_number in range(ROUNDS + 1):
        for name in ENGINES:
            seconds = _ask(running[name], {"task": "speed"})
            if round_number:
                found[name].append(seconds)
            time.sleep(0.3)
    count = len(json.loads((work / "texts.json").read_text()))
    rates = {name: count / statistics.median(times) for name, times in found.items()}
    print("engine         texts/s   triform-int8 /  triform-float /")
    for name, rate in rates.items():
        print(f"{name:<14} {rate:7.1f} {rates['triform-int8'] / rate:16.2f} {rates['triform-float'] / rate:16.2f}")


def quality(work: Path):
    """Mean and worst cosine to torch, text by text."""
    import numpy as np

    vectors = {}
    for name in ENGINES:
        process = _start(work, name)
        vectors[name] = np.array(_ask(process, {"task": "vectors"}))
        process.stdin.close()
        process.wait()
    print("engine            mean    worst")
    for name, rows in vectors.items():
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vectors["torch"], axis=1)
        cosines = (rows * vectors["torch"]).sum(1) / lengths
        print(f"{name:<14} {cosines.mean():.5f}  {cosines.min():.5f}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("prepare", "speed", "quality"):
        raise SystemExit(__doc__)
    globals()[sys.argv[1]](*map(Path, sys.argv[2:]))
