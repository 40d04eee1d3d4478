"""One engine as a worker: a JSON request a line on standard input, a JSON answer a line on standard output.

python engines.py triform|genai|llama|llama-plain|llama-all MODEL THREADS [once]
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

QUESTION = "Why is the sky blue?"


class Triform:
    def __init__(self, model, threads):
        import triform

        self.step = triform.load_decoder(model, threads=threads)._step

    def speed(self, ids, new):
        self.step.cache.reset()
        self.step.cache.reserve(len(ids) + new)
        start = time.perf_counter()
        token = int(self.step.prefill(ids).argmax())
        middle = time.perf_counter()
        for _ in range(new):
            token = int(self.step.next(token).argmax())
        return middle - start, time.perf_counter() - middle

    def logits(self, ids):
        self.step.cache.reset()
        # Each piece is overwritten by the next.
        return np.concatenate([piece.copy() for piece in self.step.logits_in_chunks(ids)])


class Genai:
    def __init__(self, model, threads):
        import onnxruntime_genai as og

        self.og, self.model = og, og.Model(model)

    def _generator(self, length):
        parameters = self.og.GeneratorParams(self.model)
        # min_length: it must not stop early while it is timed.
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        return self.og.Generator(self.model, parameters)

    def speed(self, ids, new):
        generator = self._generator(len(ids) + new + 1)
        start = time.perf_counter()
        generator.append_tokens(ids)
        generator.generate_next_token()
        middle = time.perf_counter()
        for _ in range(new):
            generator.generate_next_token()
        return middle - start, time.perf_counter() - middle

    def logits(self, ids):
        generator = self._generator(len(ids) + 1)
        generator.append_tokens(ids)
        return generator.get_output("logits")[0]

    def once(self):
        tokenizer = self.og.Tokenizer(self.model)
        stream = tokenizer.create_stream()
        prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer.encode(prompt)
        generator = self._generator(len(ids) + 32)
        generator.append_tokens(ids)
        for _ in range(32):
            generator.generate_next_token()
            print(stream.decode(generator.get_next_tokens()[0]), end="", flush=True)


class Llama:
    flash, all_logits = True, False

    def __init__(self, model, threads):
        from llama_cpp import Llama as Backend

        if model == "-":
            return
        self.model = Backend(
            model,
            n_ctx=4096,
            n_batch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=self.flash,
            logits_all=self.all_logits,
            verbose=False,
        )

    def quantize(self, source, target, kind):
        import ctypes

        import llama_cpp

        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.allow_requantize = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}"), True
        return llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options))

    def speed(self, ids, new):
        self.model.reset()
        start = time.perf_counter()
        self.model.eval(ids)
        token = self.model.sample(temp=0.0)
        middle = time.perf_counter()
        for _ in range(new):
            self.model.eval([token])
            token = self.model.sample(temp=0.0)
        return middle - start, time.perf_counter() - middle

    def logits(self, ids):
        # One token at a time: this binding keeps the logits of the last one only.
        from llama_cpp import llama_get_logits_ith

        self.model.reset()
        rows = []
        for token in ids:
            self.model.eval([token])
            pointer = llama_get_logits_ith(self.model._ctx.ctx, -1)
            rows.append(np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab(),)).copy())
        return np.stack(rows)

    def once(self):
        messages = [{"role": "user", "content": QUESTION}]
        for part in self.model.create_chat_completion(messages, max_tokens=32, temperature=0, stream=True):
            print(part["choices"][0]["delta"].get("content", ""), end="", flush=True)


class PlainLlama(Llama):
    """Without flash attention."""

    flash = False


class AllLogits(Llama):
    """Keeps the logits of all tokens, which takes time."""

    all_logits = True

    def logits(self, ids):
        self.model.reset()
        self.model.eval(ids)
        return self.model.scores[: len(ids)]


def answer(engine, request):
    if request["task"] == "speed":
        prefill, decode = engine.speed(request["ids"], request["new"])
        return {"prefill": prefill, "decode": decode}
    if request["task"] == "quantize":
        return {"status": engine.quantize(request["source"], request["target"], request["kind"])}
    if request["task"] == "logits":
        np.save(request["path"], engine.logits(request["ids"]).astype(np.float32))
        return {}
    table = np.asarray(engine.logits(request["ids"]), np.float64)[:-1]
    table -= table.max(-1, keepdims=True)
    targets = np.array(request["ids"][1:])
    losses = np.log(np.exp(table).sum(-1)) - table[np.arange(len(targets)), targets]
    return {"sum": float(losses.sum()), "count": len(targets)}


if __name__ == "__main__":
    kind, model, threads, *rest = sys.argv[1:]
    engines = {
        "triform": Triform, "genai": Genai, "llama": Llama, "llama-plain": PlainLlama, "llama-all": AllLogits
    }  # fmt: skip
    worker = engines[kind](model, int(threads))
    if rest:
        worker.once()
    else:
        for line in sys.stdin:
            print(json.dumps(answer(worker, json.loads(line))), flush=True)
