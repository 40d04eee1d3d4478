"""Which way of tracing a model is taken, and what is said when none is right."""

from __future__ import annotations

import math
import re

import pytest
import torch

from tests.checkpoints.decoder_families import FAMILIES, build
from triform.models.decoder.graph import decoder_spec
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.paths import check_finite, choose_path, relative_difference


def refusal(attempt, paths=("fast", "plain")):
    with pytest.raises(UnsupportedModelError) as caught:
        choose_path("logits", paths, attempt)
    return str(caught.value)


def test_the_first_path_that_agrees_stays_prepared():
    log = []

    def attempt(path, stack):
        stack.callback(log.append, f"left {path}")
        if path == "fastest":
            raise RuntimeError("no such operator")
        return {"fast": 0.5, "plain": 1e-5, "plainest": 0.0}[path], f"learned on {path}"

    path, learned, stack = choose_path("logits", ["fastest", "fast", "plain", "plainest"], attempt)
    assert (path, learned, log) == ("plain", "learned on plain", ["left fastest", "left fast"])
    stack.close()
    assert log[-1] == "left plain"


def test_a_failure_is_told_by_its_first_line():
    def attempt(path, stack):
        raise AttributeError("\n'NoneType' object has no attribute 'is_updated'\nmore")

    assert refusal(attempt) == ("its attention cannot be replaced: 'NoneType' object has no attribute 'is_updated'")


def test_a_difference_is_told_by_its_size():
    assert refusal(lambda path, stack: ({"fast": 0.75, "plain": 0.25}[path], None)) == (
        "its logits change when its attention is replaced, by 0.25 of the largest"
    )


def test_a_difference_does_not_hide_a_failure():
    def attempt(path, stack):
        if path == "plain":
            raise LookupError("not a rotation the attention operator performs")
        return 0.25, None

    assert refusal(attempt) == (
        "its logits change when its attention is replaced, by 0.25 of the largest; "
        "another way fails: not a rotation the attention operator performs"
    )


def test_what_no_other_path_could_mend_is_raised_as_it_is():
    tried = []

    def attempt(path, stack):
        tried.append(path)
        raise UnsupportedModelError("it changes the attention mask inside its layers")

    assert refusal(attempt) == "it changes the attention mask inside its layers"
    assert tried == ["fast"]


def test_relative_difference():
    expected = torch.tensor([-4.0, 2.0])
    assert relative_difference(expected, torch.tensor([-4.0, 3.0])) == 0.25
    assert relative_difference(expected, expected) == 0
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_difference(torch.zeros(2), expected) == math.inf
    # Of max(0.0, nan) Python makes 0.0: a graph that gives no numbers must not pass for one that is right.
    assert relative_difference(expected, torch.tensor([-4.0, math.nan])) == math.inf


def test_first_line():
    assert first_line(ValueError("a\nb")) == "a"
    assert first_line(ValueError("\n  Not a rotation.\nb")) == "Not a rotation"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(KeyError("rope_type")) == "KeyError('rope_type')"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "/__w/pytorch/build/aten/src/ATen/Register_0.cpp:9486: SymIntArrayRef expected to contain only concrete "
            "integers",
            "SymIntArrayRef expected to contain only concrete integers",
        ),
        (
            'index >= 0 INTERNAL ASSERT FAILED at "../c10/core/Device.h":61, please report a bug to PyTorch. Too low.',
            "index >= 0 fails: Too low",
        ),
        ('n > 0 INTERNAL ASSERT FAILED at "a.cpp":6, please report a bug to PyTorch. \nrest', "n > 0 fails: rest"),
        ("Found in neither <module 'a.b' from '/x/a/b.py'> nor elsewhere", "Found in neither a.b nor elsewhere"),
        ("/src/ATen/Blas.cu:12:\nIt has no GPU.\nmore", "It has no GPU"),
    ],
)  # fmt: skip
def test_places_in_the_source_are_left_out(text, said):
    assert first_line(RuntimeError(text)) == said


def test_of_too_little_memory_pytorch_says_how_much_was_asked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert "alloc_cpu.cpp" in str(caught.value)
    assert re.match(rf"DefaultCPUAllocator: .*{2**50} bytes", first_line(caught.value))


def test_a_real_model_tells_what_its_own_code_raised():
    model = build(*FAMILIES["llama"])

    def refuse(*_):
        if model.config._attn_implementation != "eager":
            raise TypeError("only eager attention here")

    model.model.layers[0].self_attn.register_forward_pre_hook(refuse)
    with pytest.raises(UnsupportedModelError, match=r"^its attention cannot be replaced: only eager attention here$"):
        decoder_spec(model, 32)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_named(value):
    model = build(*FAMILIES["llama"])
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    message = (
        r"^its logits are NaN or infinite, and so are numbers in its weight model\.layers\.1\.mlp\.up_proj\.weight$"
    )
    with pytest.raises(UnsupportedModelError, match=message):
        decoder_spec(model, 64)


def test_outputs_may_be_infinite_though_no_weight_is():
    model = torch.nn.Linear(2, 2)
    check_finite("outputs", model, [torch.ones(3)])
    with pytest.raises(UnsupportedModelError, match=r"^its outputs are NaN or infinite, though its weights are not$"):
        check_finite("outputs", model, [torch.ones(3), torch.tensor([1.0, -math.inf])])
