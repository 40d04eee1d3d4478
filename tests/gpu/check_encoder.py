"""Measures an encoder's bundle for GPUs: from texts, as a bare graph, and how close its vectors are to the CPU's.

    python tests/gpu/check_encoder.py BUNDLE [--reference VECTORS.json] [--provider cpu] [--texts 16384]

Prints one JSON line for each measurement, in texts a second, medians of five. Texts are random words of the bundle's
vocabulary; one of 32 tokens has 30 words between its special tokens. "host" is the way from texts to vectors with a
graph that answers at once: the most that the processor allows. Needs triform's runtime only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from triform.runtime.arithmetic import unit
from triform.runtime.bundle.targets import for_gpu
from triform.runtime.encoder.model import Encoder
from triform.runtime.graphs.session import open_session
from triform.runtime.opening import load_encoder

OUTPUT, RUNS = "sentence_embedding", 5
BARE = ((64, 32), (64, 128), (512, 32))
# Runs of a bare graph that are timed together: one takes less than a millisecond.
TOGETHER = 20


class AtOnce:
    """A session that gives zeros without computing anything."""

    def __init__(self, width: int) -> None:
        self._width = width

    def run(self, _: Any, arrays: dict[str, Any]) -> list[Any]:
        """Zeros for each row."""
        return [np.zeros((len(arrays["input_ids"]), self._width), np.float32)]


def random_texts(encoder: Encoder, count: int, tokens: int) -> list[str]:
    """Texts of so many tokens, special tokens included, of words that are one token each."""
    tokenizer = encoder.reader().tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower())
    # A part of a word reads as another token where words begin with a mark of their own.
    words = [word for word in words[:4096] if len(tokenizer.encode(word, add_special_tokens=False).ids) == 1]
    chosen = np.random.default_rng(0).integers(0, len(words), (count, tokens - 2))
    return [" ".join(words[index] for index in row) for row in chosen]


def rate(count: int, run: Callable[[], object], together: int = 1) -> float:
    """Texts a second: the median of several runs after one that is not counted."""
    run()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        for _ in range(together):
            run()
        seconds.append((time.perf_counter() - start) / together)
    return round(count / statistics.median(seconds))


def show(what: str, **figures: object) -> None:
    """Print a line, for `table.py`."""
    print(json.dumps({"check": "encoder", "what": what} | figures), flush=True)


def from_texts(encoder: Encoder, count: int) -> None:
    """Measure what a caller of `embed` gets, and the processor's part of it."""
    many = random_texts(encoder, count, 32)
    few, reader = many[:512], encoder.reader()
    batch = reader.read_batch(many)
    tokens = float(batch.lengths.mean())
    for texts in (few, many):
        show(
            "embed", texts=len(texts), tokens=tokens, texts_s=rate(len(texts), lambda texts=texts: encoder.embed(texts))
        )
    show("tokenize", texts=count, tokens=tokens, texts_s=rate(count, lambda: reader.read_batch(many)))
    session, width = encoder.step._session, int(encoder.step.outputs[OUTPUT].shape[-1])
    encoder.step._session = AtOnce(width)  # type: ignore[assignment]
    show("host", texts=count, tokens=tokens, texts_s=rate(count, lambda: encoder.embed(many)))
    show("host without tokenizing", texts=count, texts_s=rate(count, lambda: encoder.step.vectors(batch, OUTPUT)))
    encoder.step._session = session


def arrays_of(encoder: Encoder, rows: int, tokens: int) -> dict[str, Any]:
    """The graph's inputs for a batch without padding."""
    ids = np.random.default_rng(1).integers(1000, encoder.manifest.vocab_size, (rows, tokens))
    arrays = {
        "input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids),
        "prompt_lengths": np.zeros(rows, np.int64),
    }  # fmt: skip
    return {name: arrays[name] for name in encoder.step.inputs}


def bare(encoder: Encoder, path: Path, provider: str, *, cuda_graph: bool) -> None:
    """Measure the graph alone: with numpy arrays, and with inputs and outputs that stay on the device."""
    import onnxruntime as ort

    session: Any = open_session(path, provider=provider, cuda_graph=cuda_graph)
    device = "cpu" if provider == "cpu" else "cuda"
    for rows, tokens in BARE:
        arrays, shape = arrays_of(encoder, rows, tokens), {"rows": rows, "tokens": tokens}
        if not cuda_graph:
            together = TOGETHER if device == "cuda" else 1
            run = lambda arrays=arrays: session.run([OUTPUT], arrays)  # noqa: E731
            show("graph, numpy", **shape, texts_s=rate(rows, run, together))
        binding = session.io_binding()
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
        for output in session.get_outputs():
            sizes = [{"batch": rows, "sequence": tokens}.get(size, size) for size in output.shape]
            value = ort.OrtValue.ortvalue_from_shape_and_type(sizes, np.float32, device, 0)
            binding.bind_ortvalue_output(output.name, value)
        options = ort.RunOptions()
        if cuda_graph:
            options.add_run_config_entry("gpu_graph_id", str(rows * 1000 + tokens))

        def bound(binding: Any = binding, options: Any = options) -> None:
            session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()

        what = "graph, bound, CUDA graph" if cuda_graph else "graph, bound"
        show(what, **shape, texts_s=rate(rows, bound, TOGETHER if device == "cuda" else 1))


def closeness(bundle: Path, encoder: Encoder, reference: Path | None) -> None:
    """Compare vectors with transformers', which `reference.py` wrote, or else with those of the bundle on the CPU."""
    if reference is not None:
        given = json.loads(reference.read_text(encoding="utf-8"))
        texts, vectors, whose = given["texts"], np.array(given["vectors"], np.float32), "transformers, float32"
    else:
        texts = [text for tokens in (3, 8, 20, 33, 64, 120) for text in random_texts(encoder, 8, tokens)]
        on_cpu = load_encoder(bundle, provider="cpu", verify="never")
        graph = on_cpu.manifest.graphs["encoder"]
        stored = graph.notes.get("dtype", graph.quantization.scheme.replace("none", "float32"))
        vectors, whose = on_cpu.embed(texts), f"this bundle on the CPU, {stored}"
    cosines = np.sum(unit(encoder.embed(texts)) * unit(vectors), axis=-1)
    show("cosine", to=whose, texts=len(texts), worst=float(cosines.min()), mean=float(cosines.mean()))


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--texts", type=int, default=16384)
    arguments = parser.parse_args()
    bundle, provider = arguments.bundle, arguments.provider
    encoder = load_encoder(bundle, provider=provider, verify="never")
    path = bundle / for_gpu(encoder.manifest).graphs["encoder"].file
    show("bundle", target=encoder.manifest.target, providers=encoder.providers, batch_tokens=encoder.step.size.tokens)
    closeness(bundle, encoder, arguments.reference)
    from_texts(encoder, arguments.texts)
    bare(encoder, path, provider, cuda_graph=False)
    if provider != "cpu":
        try:
            bare(encoder, path, provider, cuda_graph=True)
        except Exception as error:  # onnxruntime's exceptions share no base class
            show("graph, bound, CUDA graph", fails=str(error).splitlines()[0][:300])


if __name__ == "__main__":
    main()
