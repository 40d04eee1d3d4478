"""Measures transformers in float16 on the GPU, with random weights.

    python benchmarks/gpu/peer_torch.py encoder            # all-MiniLM-L6-v2's shape
    python benchmarks/gpu/peer_torch.py encoder-compiled   # the same, compiled, with CUDA graphs
    python benchmarks/gpu/peer_torch.py decoder            # SmolLM2-135M's shape, a cache that grows
    python benchmarks/gpu/peer_torch.py decoder-compiled   # the same, a static cache and a compiled step

Prints one JSON line for each batch. Texts go from the host to vectors on the host; every token is read on the host.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from shapes import BATCHES, NEW_TOKENS, PROMPT_TOKENS, minilm_l6, smollm2_135m

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEXTS = ((64, 32), (64, 128), (512, 32))
ENCODER_RUNS, PROMPT_RUNS, SHORT_ANSWER = 30, 3, 16


def main() -> None:
    """Run what the command line names."""
    commands = {
        "encoder": lambda: measure_encoder("transformers, eager", lambda model: model),
        "encoder-compiled": lambda: measure_encoder("transformers, compiled", _compiled),
        "decoder": measure_decoder,
        "decoder-compiled": measure_compiled_decoder,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands)
    # cuDNN's attention plans anew for every length of a growing cache, which takes 40 ms a step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_default_dtype(torch.float16)
    with torch.inference_mode():
        commands[parser.parse_args().command]()


def measure_encoder(engine: str, prepare: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    """Print the texts a second for each batch, from ids on the host to normalized means on the host."""
    with torch.device(DEVICE):
        model = prepare(transformers.BertModel(minilm_l6(), add_pooling_layer=False).eval())
    for batch, length in TEXTS:
        ids = torch.randint(1000, 30000, (batch, length))
        mask = torch.ones_like(ids)
        seconds = [_seconds(lambda: _embed(model, ids, mask)) for _ in range(ENCODER_RUNS)]  # noqa: B023
        speed = batch / statistics.median(seconds)
        fields = {"engine": engine, "shape": "all-MiniLM-L6-v2", "dtype": "float16", "batch": batch, "tokens": length}
        _print(fields | {"texts_s": round(speed), "first_run_s": round(seconds[0], 1)})


def measure_decoder() -> None:
    """Print the speed of prompts and steps with a cache that grows, each token chosen on the device."""
    model = _decoder()
    for batch in BATCHES:
        ids = torch.randint(10, 1000, (batch, PROMPT_TOKENS), device=DEVICE)
        prompts, steps = [], []
        for _ in range(PROMPT_RUNS):
            cache = transformers.DynamicCache(config=model.config)
            token, seconds = _timed_step(model, ids, cache)
            prompts.append(seconds)
        for _ in range(NEW_TOKENS):
            token, seconds = _timed_step(model, token, cache)
            steps.append(seconds)
        # The second half: the first steps of a length may still choose kernels.
        _print_decoder("transformers, eager", batch, min(prompts), statistics.median(steps[NEW_TOKENS // 2 :]), {})


def measure_compiled_decoder() -> None:
    """Print the same for `generate`; a step's time is the difference between a long answer and a short one."""
    model = _decoder()
    model.generation_config.max_length = None
    for batch in BATCHES:
        ids = torch.randint(10, 1000, (batch, PROMPT_TOKENS), device=DEVICE)
        # The longest first: shorter answers use its cache, and nothing is compiled again.
        compiling = _generate_seconds(model, ids, SHORT_ANSWER + NEW_TOKENS)
        prompt, short, long = (
            min(_generate_seconds(model, ids, tokens) for _ in range(3))
            for tokens in (1, SHORT_ANSWER, SHORT_ANSWER + NEW_TOKENS)
        )
        step = (long - short) / NEW_TOKENS
        first = {"first_run_s": round(compiling, 1)}
        _print_decoder("transformers, static cache, compiled", batch, prompt, step, first)


def _decoder() -> transformers.LlamaForCausalLM:
    with torch.device(DEVICE):
        return transformers.LlamaForCausalLM(smollm2_135m()).eval()


def _compiled(model: torch.nn.Module) -> torch.nn.Module:
    model.compile(mode="reduce-overhead", dynamic=False)
    return model


def _embed(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    mask = mask.to(DEVICE)
    states = model(ids.to(DEVICE), attention_mask=mask).last_hidden_state
    weights = mask[..., None].to(states.dtype)
    means = (states * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(means).cpu()


def _timed_step(
    model: transformers.LlamaForCausalLM, ids: torch.Tensor, cache: transformers.DynamicCache
) -> tuple[torch.Tensor, float]:
    start = time.perf_counter()
    logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
    token = logits[:, -1:].argmax(-1)
    token.cpu()
    return token, time.perf_counter() - start


def _generate_seconds(model: transformers.LlamaForCausalLM, ids: torch.Tensor, tokens: int) -> float:
    return _seconds(
        lambda: model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            cache_implementation="static",
            pad_token_id=0,
        ).cpu()
    )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _print_decoder(engine: str, batch: int, prompt: float, step: float, more: dict[str, float]) -> None:
    fields = {"engine": engine, "shape": "SmolLM2-135M", "dtype": "float16", "batch": batch}
    speeds = {"prompt_tok_s": round(batch * PROMPT_TOKENS / prompt), "step_ms": round(step * 1e3, 3)}
    _print(fields | speeds | {"tok_s": round(batch / step)} | more)


def _print(fields: dict[str, object]) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
