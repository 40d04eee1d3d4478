"""Measures onnxruntime-genai on the GPU: a decoder of SmolLM2-135M's shape with random weights.

    python benchmarks/gpu/peer_genai.py all WORK       # builds WORK/int4 and WORK/float16, then measures every setting
    python benchmarks/gpu/peer_genai.py measure FOLDER --batch 32 [--cuda-graph] [--fused-int4]

Prints one JSON line for each measurement: a prompt of 512 tokens with the first token chosen, then 127 single steps.
Each setting has a process of its own, because the second batch size of a process fails with a CUDA graph. Fused int4 is
onnxruntime's `ep.cuda.fpa_intb_gemm`, which the builder's int4 weights (blocks of 32, symmetric) are fit for.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from shapes import NEW_TOKENS, PROMPT_TOKENS, smollm2_135m

PROMPT_RUNS = 3
PRECISIONS = {"int4": "int4", "float16": "fp16"}
SETTINGS = (
    ("int4", "--batch", "1", "--cuda-graph"),
    ("int4", "--batch", "1", "--cuda-graph", "--fused-int4"),
    ("int4", "--batch", "32"),
    ("int4", "--batch", "32", "--fused-int4"),
    ("int4", "--batch", "32", "--cuda-graph"),
    ("float16", "--batch", "1", "--cuda-graph"),
    ("float16", "--batch", "32"),
    ("float16", "--batch", "32", "--cuda-graph"),
)
BUILD_LIMIT, MEASURE_LIMIT = 120, 30


def make_checkpoint(folder: Path) -> None:
    """Write random weights in float16 and a tokenizer of three words, without which genai's builder does nothing."""
    import torch
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    torch.set_default_dtype(torch.float16)
    transformers.LlamaForCausalLM(smollm2_135m()).save_pretrained(folder)
    words = WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)


def build(work: Path, provider: str) -> None:
    """Build WORK/int4 and WORK/float16 side by side; their logs lie beside them."""
    make_checkpoint(work / "checkpoint")
    # Run as a file: the builder imports its neighbours by their bare names.
    package = importlib.util.find_spec("onnxruntime_genai")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("onnxruntime_genai is not installed: unpack genai.tar.xz first")
    script = Path(package.submodule_search_locations[0], "models", "builder.py")
    processes = {}
    for name, precision in PRECISIONS.items():
        command = [sys.executable, script, "-i", work / "checkpoint", "-o", work / name, "-p", precision]
        with (work / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [*command, "-e", provider, "-c", work / "cache"], stdout=log, stderr=subprocess.STDOUT
            )
        processes[name] = process
    for name, process in processes.items():
        if process.wait(BUILD_LIMIT) != 0:
            print(f"FAILED to build {name}: {(work / f'{name}.log').read_text().rstrip()[-300:]}", flush=True)


def measure_all(work: Path) -> None:
    """Measure every setting of a built model in a process of its own; a failure is a line too."""
    for name, *options in SETTINGS:
        command = [sys.executable, __file__, "measure", str(work / name), *options]
        try:
            subprocess.run(command, check=True, timeout=MEASURE_LIMIT, stderr=subprocess.PIPE, text=True)
        except subprocess.CalledProcessError as error:
            print(f"FAILED genai {name} {' '.join(options)}: {error.stderr.strip()[-300:]}", flush=True)
        except subprocess.TimeoutExpired:
            print(f"FAILED genai {name} {' '.join(options)}: not done in {MEASURE_LIMIT} s", flush=True)


def measure(folder: Path, batch: int, cuda_graph: bool, fused_int4: bool) -> None:
    """Print the speed of prompts and of steps; the settings are written into the folder's genai_config.json."""
    import onnxruntime

    # genai's library finds CUDA's in this process; in pip's packages it does not look for them.
    onnxruntime.preload_dlls()
    import onnxruntime_genai

    configure(folder / "genai_config.json", cuda_graph, fused_int4)
    model = onnxruntime_genai.Model(str(folder))
    ids = np.random.default_rng(0).integers(10, 1000, (batch, PROMPT_TOKENS)).astype(np.int32)
    prompts, steps = [], []
    for _ in range(PROMPT_RUNS):
        parameters = onnxruntime_genai.GeneratorParams(model)
        length = PROMPT_TOKENS + NEW_TOKENS
        parameters.set_search_options(max_length=length + 1, min_length=length, do_sample=False, batch_size=batch)
        generator = onnxruntime_genai.Generator(model, parameters)
        start = time.perf_counter()
        generator.append_tokens(ids if batch > 1 else ids[0])
        _next_tokens(generator)
        prompts.append(time.perf_counter() - start)
    for _ in range(NEW_TOKENS - 1):
        start = time.perf_counter()
        _next_tokens(generator)
        steps.append(time.perf_counter() - start)
    step = statistics.median(steps)
    fields = {
        "engine": f"onnxruntime-genai {onnxruntime_genai.__version__}",
        "shape": "SmolLM2-135M",
        "dtype": folder.name,
        "batch": batch,
        "prompt_tok_s": round(batch * PROMPT_TOKENS / min(prompts)),
        "step_ms": round(step * 1e3, 3),
        "tok_s": round(batch / step),
        "cuda_graph": cuda_graph,
        "fused_int4": fused_int4,
    }
    print(json.dumps(fields), flush=True)


def configure(path: Path, cuda_graph: bool, fused_int4: bool) -> None:
    """Set both options in a genai_config.json whose model was built for CUDA; for other providers they mean nothing."""
    config = json.loads(path.read_text())
    session = config["model"]["decoder"]["session_options"]
    for options in session["provider_options"]:
        if "cuda" in options:
            options["cuda"]["enable_cuda_graph"] = str(int(cuda_graph))
            session["ep.cuda.fpa_intb_gemm"] = str(int(fused_int4))
    path.write_text(json.dumps(config, indent=2))


def _next_tokens(generator: object) -> None:
    generator.generate_next_token()
    generator.get_next_tokens()


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("all")
    whole.add_argument("work", type=Path)
    single = commands.add_parser("measure")
    single.add_argument("folder", type=Path)
    single.add_argument("--batch", type=int, required=True)
    single.add_argument("--cuda-graph", action="store_true")
    single.add_argument("--fused-int4", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "all":
        build(arguments.work, "cuda")
        measure_all(arguments.work)
    else:
        measure(arguments.folder, arguments.batch, arguments.cuda_graph, arguments.fused_int4)


if __name__ == "__main__":
    main()
