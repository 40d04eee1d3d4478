"""Decoders for GPUs on a fake device: they answer what PyTorch answers, and the cache never leaves the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.checkpoints.wandering import wandering_folder
from tests.helpers.fake_device import FakeBinding, fake_device
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.targets import for_gpu
from triform.runtime.decoder.model import Decoder
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.graphs.decoding.batch import DecoderBatchStep
from triform.runtime.opening import load_decoder

__all__ = ["fake_device"]
PROMPT = "The boat was old, and the river cold."
PROMPTS = [PROMPT, "Nine", "A longer prompt of some more words, so that rows differ in length.", "x y"]
# Enough to outgrow the first buffers, which hold 64 tokens.
STEPS = 90
SHORT = GenerationOptions(max_new_tokens=24)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def family(request, tmp_path_factory):
    """A checkpoint whose answers wander, and its bundle for GPUs and, in float32, for the CPU."""
    folder = tmp_path_factory.mktemp(f"gpu-{request.param}")
    source = wandering_folder(folder / "checkpoint", request.param)
    export(str(source), folder / "bundle", ExportOptions(target="cpu,gpu", quantize="none", hidden_states=True))
    return folder


@pytest.fixture
def gpu(family, fake_device):
    bundle = open_bundle(family / "bundle")
    return Decoder(replace(bundle, manifest=for_gpu(bundle.manifest)), provider="cpu")


@pytest.fixture(scope="module")
def cpu(family):
    return load_decoder(family / "bundle", provider="cpu")


def greedy(folder, ids, count):
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint").eval()
    made = model.generate(
        torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
    )  # fmt: skip
    return made[0, len(ids) :].tolist()


def check_logits(folder, decoder, rows, logits):
    """Greedy answers of these checkpoints follow from the last token alone; logits do not."""
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint").eval()
    with torch.no_grad():
        expected = [model(torch.tensor([ids])).logits[0, -1].numpy() for ids in rows]
    np.testing.assert_allclose(
        logits, expected, rtol=0, atol=open_bundle(folder / "bundle").manifest.gpu.parity.tolerance
    )


def test_greedy_answers_are_those_of_transformers(family, gpu):
    ids = gpu._prompts.text_ids(PROMPT)
    step = gpu._step
    step.wanted = 1
    tokens = [step.prefill(ids).best]
    while len(tokens) < STEPS:
        tokens.append(step.next(tokens[-1]).best)
    assert tokens == greedy(family, ids, STEPS)
    assert len(set(tokens)) > 5
    step.wanted = None
    check_logits(family, gpu, [[*ids, *tokens]], [step.next(tokens[-1])])


def test_what_operators_on_the_host_read_is_sent_to_them_for_each_run(family, gpu, monkeypatch):
    """CUDA leaves some graphs' arithmetic with lengths to the CPU, which gets an input when it is bound."""
    monkeypatch.setattr(FakeBinding, "copied", ("past_lengths", "seqlens_k"))
    ids = gpu._prompts.text_ids(PROMPT)
    step = gpu._step
    step.prefill(ids[:4])
    check_logits(family, gpu, [ids[:-3]], [step.prefill(ids[:-3])])
    for end in range(len(ids) - 3, len(ids)):
        check_logits(family, gpu, [ids[: end + 1]], [step.next(ids[end])])


def test_prompts_of_similar_length_are_read_together(family, gpu, monkeypatch):
    """Each as if it were alone; one that shares its beginning with another, or is much longer, is read alone."""
    ids = gpu._prompts.text_ids(PROMPT)
    rows = [ids, ids[1:], ids[3:], [*ids[:-2], 9, 8], [*ids[::-1], *ids] * 3]
    shapes, make = [], type(gpu._step._memory).step
    monkeypatch.setattr(
        type(gpu._step._memory),
        "step",
        lambda self, shape, *args, **options: shapes.append(shape) or make(self, shape, *args, **options),
    )
    step = DecoderBatchStep(gpu._step._memory.session, gpu.manifest, gpu.manifest.cache, len(rows))
    logits = step.prefill(rows)
    assert shapes[0] == (3, len(ids))
    assert [shape[0] for shape in shapes[1:]] == [1, 1]
    check_logits(family, gpu, rows, logits)
    for token in (5, 6, 7):
        rows = [[*row, token] for row in rows]
        check_logits(family, gpu, rows, step.next([token] * len(rows), range(len(rows))))


def test_a_step_copies_a_few_bytes(gpu, fake_device):
    step = gpu._step
    step.wanted = 1
    step.cache.reserve(200)
    token = step.prefill(gpu._prompts.text_ids(PROMPT)).best
    # The first step makes its arrays.
    token = step.next(token).best
    device = step._memory.device
    before, copies = device.sent + device.fetched, device.copies
    for _ in range(10):
        token = step.next(token).best
    # A token of 8 bytes and lengths of 4 go there, and a token comes back.
    lengths = 1 + any(node.name == "past_lengths" for node in step._memory.session.get_inputs())
    assert device.sent + device.fetched - before == 10 * (8 + 4 * lengths + 8)
    assert device.copies - copies == 10 * (2 + lengths)


def test_no_tensor_of_the_cache_leaves_the_device(gpu, fake_device):
    gpu.generate(PROMPT, GenerationOptions(max_new_tokens=STEPS))
    list(gpu.generate_all(PROMPTS * 2, SHORT, batch=3))
    vocabulary, layer = gpu.manifest.vocab_size, gpu.manifest.cache.layers[0]
    smallest = 2 * 64 * layer.num_key_value_heads * layer.head_dim
    assert len(fake_device.made) >= 2
    for device in fake_device.made:
        # Greedy: not even a row of logits comes to the host.
        assert device.largest < min(4 * vocabulary, smallest)


WAYS = {
    "again, from the cache": lambda model: [model.generate(PROMPT, SHORT).text for _ in range(2)],
    "the likeliest": lambda model: model.generate(
        PROMPT, GenerationOptions(max_new_tokens=24, temperature=0.7, top_k=5, seed=3)
    ).text,
    "whole rows": lambda model: model.generate(
        PROMPT, GenerationOptions(max_new_tokens=24, temperature=0.7, top_p=0.8, seed=3)
    ).text,
    "a batch that rows leave and join": lambda model: [
        answers[0].text for answers in model.generate_all(PROMPTS * 2, SHORT, batch=3)
    ],
    "beams": lambda model: model.generate(PROMPT, SHORT, beams=Beams(num_beams=3)).text,
    "beams of several prompts": lambda model: [
        answers[0].text for answers in model.generate_all(PROMPTS, SHORT, beams=Beams(num_beams=2), batch=2)
    ],
    "several tokens a run": lambda model: model.generate(
        "one two three one two three one", GenerationOptions(max_new_tokens=24, speculate="lookup")
    ).text,
    "contrastive search": lambda model: model.generate(
        PROMPT, GenerationOptions(max_new_tokens=12, penalty_alpha=0.5, top_k=3)
    ).text,
    "a context that shifts": lambda model: model.generate(
        PROMPT, GenerationOptions(max_new_tokens=model.manifest.max_length, on_overflow="shift")
    ).text,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_generating_gives_what_float32_gives(way, gpu, cpu):
    assert WAYS[way](gpu) == WAYS[way](cpu)


def test_a_prompt_is_saved_and_loaded(gpu, cpu, tmp_path):
    expected = cpu.generate(PROMPT, SHORT).text
    gpu.generate(PROMPT, SHORT)
    gpu.save_prompt_cache(tmp_path / "cache", 8)
    gpu.forget()
    assert gpu.load_prompt_cache(tmp_path / "cache") == 8
    result = gpu.generate(PROMPT, SHORT)
    assert result.text == expected
    assert result.cached_tokens


def test_logits_and_scores(gpu, cpu):
    logits, expected = (model.logits(PROMPT) for model in (gpu, cpu))
    # A rounding to 11 bits in each of a dozen operators that follow each other.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=12 * 2.0**-11 * np.abs(expected).max())
    assert gpu.perplexity(PROMPT * 3) == pytest.approx(cpu.perplexity(PROMPT * 3), rel=0.02)
