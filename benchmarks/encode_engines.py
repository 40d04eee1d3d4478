"""One engine as a worker: a JSON request a line on standard input, a JSON answer a line on standard output.

python encode_engines.py triform|torch|ctranslate2|openvino|onnxruntime MODEL WORK THREADS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

# Texts of one run, for engines that leave it to the caller.
BATCH = 32


class Triform:
    def __init__(self, model, work, threads):
        import triform

        self.model = triform.load_encoder(model, threads=threads)

    def encode(self, texts):
        return self.model.embed(texts)


class Torch:
    def __init__(self, model, work, threads):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(str(model), device="cpu")

    def encode(self, texts):
        return self.model.encode(texts, batch_size=BATCH, show_progress_bar=False)


class _Sorted:
    """Rows of like length together, mean pooling and normalization around `states(ids, mask)`."""

    def __init__(self, work):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(work / "model" / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)

    def encode(self, texts):
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        found = [None] * len(rows)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            length = max(len(rows[index]) for index in batch)
            ids, mask = np.zeros((2, len(batch), length), np.int64)
            for place, index in enumerate(batch):
                ids[place, : len(rows[index])] = rows[index]
                mask[place, : len(rows[index])] = 1
            states = self.states(ids, mask) * mask[..., None]
            vectors = states.sum(1) / mask.sum(1, keepdims=True)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            for place, index in enumerate(batch):
                found[index] = vectors[place]
        return np.stack(found)


class CTranslate2(_Sorted):
    def __init__(self, model, work, threads):
        import ctranslate2

        super().__init__(work)
        self.model = ctranslate2.Encoder(str(model), compute_type="int8", intra_threads=threads, inter_threads=1)

    def states(self, ids, mask):
        rows = [row[: int(count)].tolist() for row, count in zip(ids, mask.sum(1), strict=True)]
        return np.array(self.model.forward_batch(rows).last_hidden_state)


class OpenVino(_Sorted):
    def __init__(self, model, work, threads):
        import openvino

        super().__init__(work)
        core = openvino.Core()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
        self.model = core.compile_model(str(model), "CPU")

    def states(self, ids, mask):
        return self.model({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})[0]


class OnnxRuntime(_Sorted):
    """As fastembed runs a model: onnxruntime with all its own optimizations."""

    def __init__(self, model, work, threads):
        import onnxruntime as ort

        super().__init__(work)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.model = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self.model.get_inputs()]

    def states(self, ids, mask):
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self.model.run(["last_hidden_state"], {name: feeds[name] for name in self.inputs})[0]


if __name__ == "__main__":
    kind, model, work, threads = sys.argv[1:]
    engines = {
        "triform": Triform, "torch": Torch, "ctranslate2": CTranslate2, "openvino": OpenVino,
        "onnxruntime": OnnxRuntime,
    }  # fmt: skip
    engine = engines[kind](Path(model), Path(work), int(threads))
    texts = json.loads((Path(work) / "texts.json").read_text())
    for line in sys.stdin:
        start = time.perf_counter()
        vectors = engine.encode(texts)
        seconds = time.perf_counter() - start
        print(json.dumps(seconds if json.loads(line)["task"] == "speed" else vectors.tolist()), flush=True)
