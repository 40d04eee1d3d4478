"""Checks a decoder's bundle on a GPU: its answers, every way of generating, and its speed. Prints a line of JSON each.

python tests/gpu/check_decoder.py answers BUNDLE REFERENCE.json   # greedy answers against float32's
python tests/gpu/check_decoder.py features BUNDLE                 # every loop against the same on the CPU
python tests/gpu/check_decoder.py speed BUNDLE [--batch 1 32]     # prompts of 512 tokens, 128 new ones
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from triform import load_decoder
from triform.runtime.decoder.model import Decoder
from triform.runtime.errors import TriformError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.graphs.decoding.batch import DecoderBatchStep
from triform.runtime.graphs.device.opening import is_recordable
from triform.runtime.likeliest import Likeliest

# Another one rehearses the checks.
PROVIDER = os.environ.get("CHECK_PROVIDER", "cuda")
_PROMPT, _NEW = 512, 128
_WARM_UP = 12
_PROMPTS = ["Why is the sky blue?", "Write a haiku about rain.", "Name three rivers of Europe.", "What is 17 plus 25?"]


def say(**what: Any) -> None:
    """Print a result."""
    print(json.dumps(what), flush=True)


def answers(bundle: Path, reference: Path) -> None:
    """Compare greedy answers with those of the checkpoint in float32.

    Where they differ first, `margin` is by how much float32 prefers its own token.
    """
    start = time.perf_counter()
    model = load_decoder(bundle, provider=PROVIDER, verify="never")
    say(
        check="open",
        seconds=round(time.perf_counter() - start, 2),
        recordable=is_recordable(model._step._memory.session),
    )
    for case in json.loads(reference.read_text()):
        count = len(case["tokens"])
        ids = model._prompts.prompt_ids(_prompt(case["prompt"]))
        step, tokens = model._step, []
        step.wanted = 1
        scores = step.prefill(ids)
        while len(tokens) < count:
            tokens.append(scores.best)
            scores = step.next(tokens[-1])
        pairs = enumerate(zip(tokens, case["tokens"], strict=True))
        same = next((place for place, (made, expected) in pairs if made != expected), count)
        margins = case["margin"]
        say(
            check="answer", prompt_tokens=len(ids), expected_prompt_tokens=case["prompt_tokens"], tokens=count,
            same=same, margin=None if same == count else round(margins[same], 4),
            smallest_margin=round(min(margins), 4),
        )  # fmt: skip


def _prompt(text: str) -> Any:
    from triform.runtime.decoder.prompt_input import PromptInput

    return PromptInput(text)


SHORT = GenerationOptions(max_new_tokens=24)
LIKELIEST = GenerationOptions(max_new_tokens=24, temperature=0.8, top_k=20, seed=5)
WHOLE = GenerationOptions(max_new_tokens=24, temperature=0.8, top_p=0.9, seed=5)
LOOKUP = GenerationOptions(max_new_tokens=24, speculate="lookup")
CONTRAST = GenerationOptions(max_new_tokens=8, penalty_alpha=0.6, top_k=4)
LOGPROBS = GenerationOptions(max_new_tokens=6, logprobs=2)


def features(bundle: Path) -> None:
    """Run every way of generating on the GPU and on the CPU."""
    gpu, cpu = load_decoder(bundle, provider=PROVIDER), load_decoder(bundle, provider="cpu")
    checks: dict[str, Callable[[Decoder], Any]] = {
        "greedy": lambda m: [m.generate(prompt, SHORT).text for prompt in _PROMPTS],
        "again from the cache": lambda m: m.generate(_PROMPTS[0], SHORT).text,
        "the likeliest": lambda m: m.generate(_PROMPTS[1], LIKELIEST).text,
        "whole rows": lambda m: m.generate(_PROMPTS[1], WHOLE).text,
        "stream": lambda m: "".join(piece.text for piece in m.stream(_PROMPTS[2], SHORT)),
        "batch": lambda m: [each[0].text for each in m.generate_all(_PROMPTS * 2, SHORT, batch=3)],
        "beams": lambda m: m.generate(_PROMPTS[0], SHORT, beams=Beams(num_beams=4)).text,
        "beams of several": lambda m: [
            each[0].text for each in m.generate_all(_PROMPTS, SHORT, beams=Beams(num_beams=3), batch=2)
        ],
        "lookup": lambda m: m.generate("Repeat: one two three one two three", LOOKUP).text,
        "log-probabilities": lambda m: m.generate(_PROMPTS[0], LOGPROBS).text,
        "perplexity": lambda m: round(m.perplexity("The river was cold, and the boat was old. " * 20), 1),
        "prompt cache": _saved,
        "contrastive search": lambda m: m.generate(_PROMPTS[0], CONTRAST).text,
    }
    for name, check in checks.items():
        results = [_tried(check, model) for model in (gpu, cpu)]
        shown = {} if results[0] == results[1] else {"gpu": results[0], "cpu": results[1]}
        say(check=name, equal=results[0] == results[1], **shown)


def _saved(model: Decoder) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        text = model.generate(_PROMPTS[3], GenerationOptions(max_new_tokens=12)).text
        model.save_prompt_cache(Path(folder) / "cache", 12)
        model.forget()
        kept = model.load_prompt_cache(Path(folder) / "cache")
        return kept, text == model.generate(_PROMPTS[3], GenerationOptions(max_new_tokens=12)).text


def _tried(check: Callable[[Decoder], Any], model: Decoder) -> Any:
    try:
        return check(model)
    except TriformError as error:
        return f"refused: {error}"


def speed(bundle: Path, batches: list[int], label: str) -> None:
    """Time prompts, steps and the whole loop; greedy."""
    model = load_decoder(bundle, provider=PROVIDER, verify="never")
    vocabulary, name = model.manifest.vocab_size, f"{bundle.name} {label}".strip()
    rng = np.random.default_rng(0)
    for batch in batches:
        rows = rng.integers(10, min(vocabulary, 40_000), (batch, _PROMPT)).tolist()
        if batch == 1:
            _one(model, rows[0], name)
        else:
            _several(model, rows, name)
    if vocabulary == model._tokenizer.backend.get_vocab_size():
        _library(model, name)


def _one(model: Decoder, ids: list[int], name: str) -> None:
    step, device = model._step, model._step._memory.device
    step.wanted = 1
    step.reset()
    step.cache.reserve(_PROMPT + _NEW + 8)
    prompts = []
    for _ in range(4):
        step.reset()
        start = time.perf_counter()
        scores = step.prefill(ids)
        prompts.append(time.perf_counter() - start)
    seconds, before = [], 0
    for count in range(_NEW):
        if count == _WARM_UP:
            before = device.sent + device.fetched
        start = time.perf_counter()
        scores = step.next(scores.best if isinstance(scores, Likeliest) else int(scores.argmax()))
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[_WARM_UP:])
    moved = (device.sent + device.fetched - before) / (_NEW - _WARM_UP)
    prompt = round(_PROMPT / min(prompts[1:]))
    say(
        check="speed", bundle=name, batch=1, prompt_tok_s=prompt, step_ms=round(median * 1e3, 3),
        tok_s=round(1 / median), bytes_a_step=moved, bare_ms=_bare(step),
    )  # fmt: skip


def _bare(step: Any) -> float:
    """Milliseconds of a recorded step without anything around it; its result is not used."""
    arrays = next(iter(step.cache._bindings.values()))
    session, seconds = step._memory.session, []
    for _ in range(50):
        start = time.perf_counter()
        session.run_with_iobinding(arrays._io, arrays._options)
        arrays._outputs["next_ids"].numpy()
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds) * 1e3, 3)


def _several(model: Decoder, rows: list[list[int]], name: str) -> None:
    memory = model._step._memory
    step = DecoderBatchStep(memory.session, model.manifest, model.manifest.cache, len(rows))
    step.wanted = 1
    step.cache.reserve(_PROMPT + _NEW + 8)
    start = time.perf_counter()
    tokens = [row.best for row in step.join(rows)]
    prompt = time.perf_counter() - start
    seconds = []
    for _ in range(_NEW):
        start = time.perf_counter()
        tokens = [row.best for row in step.next(tokens, range(len(rows)))]
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[_WARM_UP:])
    say(
        check="speed", bundle=name, batch=len(rows), prompt_tok_s=round(len(rows) * _PROMPT / prompt),
        step_ms=round(median * 1e3, 3), tok_s=round(len(rows) / median),
    )  # fmt: skip


def _library(model: Decoder, name: str) -> None:
    """What a user of the library gets, tokenizer and text included."""
    options = GenerationOptions(max_new_tokens=200)
    for kind, chosen in (
        ("greedy", options),
        ("top-k", GenerationOptions(max_new_tokens=200, temperature=0.8, top_k=40, seed=1)),
    ):
        model.generate(_PROMPTS[0], chosen)
        start = time.perf_counter()
        result = model.generate(_PROMPTS[0], chosen)
        took = time.perf_counter() - start
        further = result.timings.tokens
        say(
            check="library", bundle=name, kind=kind, tokens=len(result.token_ids),
            tok_s=round(len(further) / sum(further)), seconds=round(took, 3),
        )  # fmt: skip


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("answers", "features", "speed"))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("reference", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--label", default="", help="what to call this run")
    asked = parser.parse_args()
    if asked.check == "answers":
        answers(asked.bundle, asked.reference)
    elif asked.check == "features":
        features(asked.bundle)
    else:
        speed(asked.bundle, asked.batch, asked.label)


if __name__ == "__main__":
    main()
