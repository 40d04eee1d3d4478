"""What lm-eval's model does with requests, on a stand-in for lm-eval and for the decoder."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest

from triform.runtime.errors import InputError

NAME = "triform.runtime.evaluation.harness"


class Decoder:
    """Answers a prompt with itself in capitals, and remembers how it was asked."""

    def __init__(self):
        self.asked = []

    def generate_all(self, prompts, options, *, batch, raw):
        prompts = list(prompts)
        self.asked.append((prompts, options.max_new_tokens, batch, raw))
        return ([SimpleNamespace(text=prompt.upper())] for prompt in prompts)


class Likelihoods:
    """Of a continuation its length, of a text its half."""

    def __init__(self, bundle, threads):
        self.arguments, self.asked, self.model = (bundle, threads), [], Decoder()

    def of_continuation(self, context, continuation):
        self.asked.append((context, continuation))
        return -float(len(continuation)), len(continuation) == 1

    def of_text(self, text):
        return -len(text) / 2


@pytest.fixture
def harness(monkeypatch):
    model, registry = ModuleType("lm_eval.api.model"), ModuleType("lm_eval.api.registry")

    class LM:
        def __init__(self):
            self.cached = []
            self.cache_hook = SimpleNamespace(add_partial=lambda *entry: self.cached.append(entry))

    model.LM, registry.register_model = LM, lambda name: lambda kind: kind
    modules = {"lm_eval": ModuleType("lm_eval"), "lm_eval.api": ModuleType("lm_eval.api"),
               "lm_eval.api.model": model, "lm_eval.api.registry": registry}  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    made = importlib.import_module(NAME)
    monkeypatch.setattr(made, "Likelihoods", Likelihoods)
    yield made
    # Not by the patch, which would put it back.
    sys.modules.pop(NAME, None)


def requests(*arguments):
    return [SimpleNamespace(args=args) for args in arguments]


@pytest.mark.parametrize(
    ("batch_size", "batch"), [(None, 8), ("auto", 8), ("auto:4", 8), (1, 1), ("3", 3), (16, 16), ("-2", 8)]
)
def test_how_many_texts_are_generated_at_once(harness, batch_size, batch):
    model = harness.BundleModel("bundle", batch_size=batch_size, threads=2, max_batch_size=5, device="cuda")
    assert model._likelihoods.arguments == ("bundle", 2)
    model.generate_until(requests(("a", {})))
    assert model._likelihoods.model.asked == [(["a"], 256, batch, True)]


def test_continuations_of_one_context_are_asked_together_and_answered_in_order(harness):
    model = harness.BundleModel("bundle")
    pairs = [("b", "xx"), ("a", "xyz"), ("b", "x"), ("a", "")]
    assert model.loglikelihood(requests(*pairs)) == [(-2.0, False), (-3.0, False), (-1.0, True), (0.0, False)]
    assert model._likelihoods.asked == [("a", ""), ("a", "xyz"), ("b", "x"), ("b", "xx")]
    assert model.cached[1] == ("loglikelihood", ("a", "xyz"), (-3.0, False)) and len(model.cached) == 4
    assert model.loglikelihood_rolling(requests(("abc",), ("",))) == [-1.5, 0.0]


def test_prompts_of_the_same_settings_are_run_together(harness):
    model = harness.BundleModel("bundle", batch_size=4)
    few, many = {"max_gen_toks": 3, "until": ["\n"]}, {"max_gen_toks": 7}
    answers = model.generate_until(requests(("a", many), ("b", few), ("c", many), ("d", dict(reversed(few.items())))))
    assert answers == ["A", "B", "C", "D"]
    assert model._likelihoods.model.asked == [(["a", "c"], 7, 4, True), (["b", "d"], 3, 4, True)]
    assert ("generate_until", ("c", many), "C") in model.cached and len(model.cached) == 4


@pytest.mark.parametrize(
    ("settings", "stop", "temperature", "top_p", "most"),
    [
        ({}, (), 0, None, 256),
        ({"until": "ab"}, ("ab",), 0, None, 256),
        ({"until": ["a", "", "b"], "max_gen_toks": 9}, ("a", "b"), 0, None, 9),
        ({"until": ""}, (), 0, None, 256),
        # Without a word of sampling it is greedy, whatever the temperature.
        ({"temperature": 0.5, "top_p": 0.5}, (), 0, None, 256),
        ({"temperature": 0.5, "do_sample": False}, (), 0, None, 256),
        ({"temperature": 0.5, "top_p": 0.25, "do_sample": True}, (), 0.5, 0.25, 256),
    ],
)
def test_settings(harness, settings, stop, temperature, top_p, most):
    options = harness.generation_options(settings)
    assert (options.stop, options.temperature, options.top_p, options.max_new_tokens) == (
        stop,
        temperature,
        top_p,
        most,
    )


def test_settings_that_are_not_known_are_named(harness):
    with pytest.raises(InputError, match="does not know the generation settings beams, tries; leave them out"):
        harness.generation_options({"until": "a", "beams": 3, "tries": 2})
