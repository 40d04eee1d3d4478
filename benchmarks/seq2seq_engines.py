"""One engine as a worker: a JSON request a line on standard input, tokens a second on standard output.

python seq2seq_engines.py triform|ctranslate2|transformers MODEL THREADS NEW_TOKENS
"""

from __future__ import annotations

import json
import random
import sys
import time

# Sources a request is answered about.
COUNT = 8


class Triform:
    def __init__(self, model, threads, new_tokens):
        import triform

        self.model = triform.load_encoder_decoder(model, threads=threads)
        self.options = triform.GenerationOptions(max_new_tokens=new_tokens, min_new_tokens=new_tokens, temperature=0)

    def write(self, texts, beams, batch):
        from triform import Beams

        found = self.model.generate_all(texts, self.options, beams=Beams(num_beams=beams), batch=batch)
        return [len(answers[0].token_ids) for answers in found]


class CTranslate2:
    def __init__(self, model, threads, new_tokens):
        import ctranslate2

        self.model = ctranslate2.Translator(model, compute_type="int8", intra_threads=threads, inter_threads=1)
        self.new_tokens = new_tokens

    def write(self, texts, beams, batch):
        rows = [[*text.split(), "</s>"] for text in texts]
        found = self.model.translate_batch(
            rows, beam_size=beams, max_batch_size=batch, max_decoding_length=self.new_tokens,
            min_decoding_length=self.new_tokens,
        )  # fmt: skip
        return [len(one.hypotheses[0]) for one in found]


class Transformers:
    def __init__(self, model, threads, new_tokens):
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = AutoModelForSeq2SeqLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.new_tokens = new_tokens

    def write(self, texts, beams, batch):
        lengths = []
        for start in range(0, len(texts), batch):
            inputs = self.tokenizer(texts[start : start + batch], return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            with self.torch.no_grad():
                found = self.model.generate(
                    **inputs, num_beams=beams, do_sample=False, max_new_tokens=self.new_tokens,
                    min_new_tokens=self.new_tokens,
                )  # fmt: skip
            lengths += [found.shape[1] - 1] * len(found)
        return lengths


if __name__ == "__main__":
    kind, model, threads, new_tokens = sys.argv[1:]
    engines = {"triform": Triform, "ctranslate2": CTranslate2, "transformers": Transformers}
    engine = engines[kind](model, int(threads), int(new_tokens))
    numbers = random.Random(0)
    texts = [" ".join(f"w{numbers.randrange(20000)}" for _ in range(numbers.randrange(8, 48))) for _ in range(COUNT)]
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        lengths = engine.write(texts, request["beams"], request["batch"])
        print(json.dumps(sum(lengths) / (time.perf_counter() - start)), flush=True)
