"""Decoding speed next to onnxruntime-genai and llama.cpp, on the same machine in the same run.

    python benchmarks/decode.py prepare WORK GGUF     # environments and models of the peers, once
    python benchmarks/decode.py speed WORK BUNDLE…    # prefill and decode, alternating; --prompt 512 --new 128
    python benchmarks/decode.py cold WORK BUNDLE      # whole processes: wall time and peak memory
    python benchmarks/decode.py quality WORK BUNDLE   # perplexity of all three on the same tokens

Every engine runs in an environment of its own and at its best settings: onnxruntime-genai with 2 threads in its config
(its own builder, int4, block 32, accuracy level 4), llama.cpp with Q4_0 made from the GGUF, with its flash attention
and, as "plain", without: which is faster depends on the machine, and differs between prompts and steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS, THREADS = 7, 2
PEERS = ("genai", "llama", "llama-plain")


def prepare(work: Path, gguf: Path):
    """Make the peers' environments and models under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    packages = {
        "triform": [str(HERE.parent)],
        "genai": ["torch==2.13.0", "onnxruntime-genai", "onnxruntime", "transformers", "onnx", "onnx-ir"],
        "llama": ["llama-cpp-python"],
    }
    for name, wanted in packages.items():
        if not (work / name).exists():
            subprocess.run([sys.executable, "-m", "venv", work / name], check=True)
            for package in wanted:
                subprocess.run([work / name / "bin" / "pip", "install", "--quiet", package], check=True)
    if not (work / "checkpoint").exists():
        _checkpoint_folder(gguf, work / "checkpoint")
    if not (work / "genai_model").exists():
        options = ["int4_block_size=32", "int4_accuracy_level=4"]
        builder = [work / "genai" / "bin" / "python", "-m", "onnxruntime_genai.models.builder"]
        arguments = ["-i", work / "checkpoint", "-o", work / "genai_model", "-p", "int4", "-e", "cpu"]
        subprocess.run([*builder, *arguments, "--extra_options", *options], check=True)
        path = work / "genai_model" / "genai_config.json"
        config = json.loads(path.read_text())
        config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = THREADS
        path.write_text(json.dumps(config))
    if not (work / "q4_0.gguf").exists():
        request = {"task": "quantize", "source": str(gguf), "target": str(work / "q4_0.gguf"), "kind": "Q4_0"}
        _ask(work, "llama", request)


def _checkpoint_folder(gguf: Path, folder: Path):
    """The GGUF as a transformers folder, which is what genai's builder reads best. Needs the export extra."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    weights = {key: value.contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _start(work: Path, name: str, model: str):
    environment = work / name.removesuffix("-plain")
    command = [environment / "bin" / "python", HERE / "engines.py", name, model, str(THREADS)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _send(process, request):
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def _ask(work: Path, name: str, request):
    process = _start(work, name, "-")
    answer = _send(process, request)
    process.stdin.close()
    process.wait()
    return answer


def _peers(work: Path):
    return {name: str(work / ("genai_model" if name == "genai" else "q4_0.gguf")) for name in PEERS}


def speed(work: Path, bundles: list[Path], prompt: int, new: int):
    """Alternate between the engines; idle ones only wait for a line."""
    ids = _ids(bundles[0])
    ids = (ids * (prompt // len(ids) + 1))[:prompt]
    models = _peers(work) | {bundle.name: str(bundle) for bundle in bundles}
    running = {name: _start(work, name if name in PEERS else "triform", model) for name, model in models.items()}
    found = {name: [] for name in models}
    for round_number in range(ROUNDS + 1):
        for name, process in running.items():
            answer = _send(process, {"task": "speed", "ids": ids, "new": new})
            if round_number:
                found[name].append((prompt / answer["prefill"], new / answer["decode"]))
            time.sleep(0.2)
    for process in running.values():
        process.stdin.close()
        process.wait()
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print(f"prompt of {prompt} tokens, {new} new ones; ratios: prefill, decode")
    print("engine        prefill/s  decode/s  " + "  ".join(f"{'/ ' + name:<10}" for name in PEERS))
    for name, (prefill, decode) in medians.items():
        ratios = "  ".join(f"{prefill / medians[peer][0]:.2f}, {decode / medians[peer][1]:.2f}" for peer in PEERS)
        print(f"{name:<13} {prefill:9.0f} {decode:9.1f}  {ratios}")


def _ids(bundle: Path):
    """The tokens of the text that exports are compared on."""
    from tokenizers import Tokenizer

    text = (HERE.parent / "export" / "samples" / "data" / "evaluation.txt").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_truncation()
    return tokenizer.encode(text).ids


def cold(work: Path, bundle: Path):
    """Whole processes that answer with 32 tokens: wall seconds and peak resident memory."""
    commands = {
        "triform": [
            work / "triform" / "bin" / "triform", "generate", bundle, "Why is the sky blue?", "--max-new-tokens", "32",
            "--temperature", "0",
        ],
    }  # fmt: skip
    for name in PEERS:
        model = _peers(work)[name]
        python = work / name.removesuffix("-plain") / "bin" / "python"
        commands[name] = [python, HERE / "engines.py", name, model, str(THREADS), "once"]
    found = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            found[name].append((time.perf_counter() - start, usage.ru_maxrss / 1024))
            if status:
                raise SystemExit(f"{name} failed: {command}")
    print("engine    wall s  peak MiB")
    for name, rows in found.items():
        wall, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<9} {wall:6.2f} {peak:9.0f}")


def quality(work: Path, bundle: Path):
    """Perplexity on one text, the same token ids in windows of 512 for each engine."""
    ids = _ids(bundle)[:1024]
    print("engine    perplexity")
    for name, model in ({"triform": str(bundle)} | _peers(work)).items():
        process = _start(work, name, model)
        losses = [_send(process, {"task": "loss", "ids": ids[at : at + 512]}) for at in range(0, len(ids), 512)]
        process.stdin.close()
        process.wait()
        total, count = sum(one["sum"] for one in losses), sum(one["count"] for one in losses)
        print(f"{name:<9} {2.718281828459045 ** (total / count):10.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(required=True)
    for task, name in ((prepare, "gguf"), (speed, "bundles"), (cold, "bundle"), (quality, "bundle")):
        found = tasks.add_parser(task.__name__, help=task.__doc__)
        found.set_defaults(task=task)
        found.add_argument("work", type=Path)
        found.add_argument(name, type=Path, **({"nargs": "+"} if task is speed else {}))
        if task is speed:
            found.add_argument("--prompt", type=int, default=256)
            found.add_argument("--new", type=int, default=128)
    chosen = vars(parser.parse_args())
    chosen.pop("task")(**chosen)


if __name__ == "__main__":
    main()
