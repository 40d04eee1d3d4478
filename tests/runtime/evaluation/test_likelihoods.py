"""Likelihoods of continuations against transformers, and the model of lm-eval on a stand-in of its interface."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import transformers

import triform
from triform.export.samples import texts
from triform.runtime.errors import InputError
from triform.runtime.evaluation.likelihoods import Likelihoods

CONTEXT = "The lighthouse keeper wrote"
HARNESS = "triform.runtime.evaluation.harness"


@pytest.fixture(scope="module")
def likelihoods(float_bundle):
    return Likelihoods(float_bundle)


@pytest.fixture(scope="module")
def reference(checkpoint):
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def compute(before, after):
        """The log-likelihood of the second ids after the first, and whether they are the greedy ones."""
        with torch.no_grad():
            table = model(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        chosen = torch.tensor(after)
        return table.gather(1, chosen[:, None]).sum().item(), bool((table.argmax(1) == chosen).all())

    return compute, tokenizer


@pytest.mark.parametrize("continuation", [" in his log", " every evening.", "."])
def test_a_continuation_is_as_likely_as_in_transformers(likelihoods, reference, continuation):
    compute, tokenizer = reference
    whole, before = (tokenizer(text)["input_ids"] for text in (CONTEXT + continuation, CONTEXT))
    expected, greedy = compute(before, whole[len(before) :])
    value, is_greedy = likelihoods.of_continuation(CONTEXT, continuation)
    assert value == pytest.approx(expected, abs=1e-3) and is_greedy == greedy


def test_spaces_at_the_end_of_a_context_go_with_the_continuation(likelihoods):
    expected = likelihoods.of_continuation(CONTEXT, " in his log")
    assert likelihoods.of_continuation(CONTEXT + " ", "in his log") == pytest.approx(expected, abs=1e-4)


def test_the_greedy_answer_is_known_as_such(likelihoods, reference, checkpoint):
    _, tokenizer = reference
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    ids = tokenizer(CONTEXT, return_tensors="pt").input_ids
    answer = model.generate(ids, do_sample=False, min_new_tokens=6, max_new_tokens=6)[0, ids.shape[1] :].tolist()
    for tokens, is_greedy in ((answer, True), ([*answer[:-1], answer[-1] ^ 1], False), ([answer[0] ^ 1], False)):
        assert likelihoods.model.continuation_losses(ids[0].tolist(), tokens)[1] == is_greedy


def test_without_a_context_the_beginning_of_texts_takes_its_place(likelihoods, reference):
    compute, tokenizer = reference
    start = likelihoods.model.manifest.tokens.bos
    start = likelihoods.model.manifest.tokens.eos[0] if start is None else start
    ids = tokenizer("A boat.", add_special_tokens=False)["input_ids"]
    expected, _ = compute([start], ids)
    assert likelihoods.of_continuation("", "A boat.")[0] == pytest.approx(expected, abs=1e-3)
    assert likelihoods.of_text("A boat.") == pytest.approx(expected, abs=1e-3)


def test_windows_of_a_long_text_are_those_of_lm_eval(likelihoods, reference):
    """Each token counts once, and the last window is whole: of 0 to 9, with room for 4, 5 to 8 give 8 and 9."""
    compute, tokenizer = reference
    most, text = likelihoods.model.manifest.max_length, texts.read_text("evaluation")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 2 * most
    start = likelihoods.model.manifest.tokens.bos
    ids = [likelihoods.model.manifest.tokens.eos[0] if start is None else start, *ids]
    expected = 0.0
    for first in range(1, len(ids), most):
        last = min(first + most, len(ids))
        expected += compute(ids[max(last - 1 - most, 0) : first], ids[first:last])[0]
    assert likelihoods.of_text(text) == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def harness(monkeypatch):
    """The adapter, with a stand-in for what it takes of lm-eval: a base class and a decorator."""
    registered = {}
    model, registry = ModuleType("lm_eval.api.model"), ModuleType("lm_eval.api.registry")

    class LM:
        def __init__(self):
            self.cache_hook = SimpleNamespace(add_partial=lambda *_: None)

    model.LM = LM
    registry.register_model = lambda name: lambda kind: registered.setdefault(name, kind)
    for name, module in {"lm_eval": ModuleType("lm_eval"), "lm_eval.api": ModuleType("lm_eval.api")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", model)
    monkeypatch.setitem(sys.modules, "lm_eval.api.registry", registry)
    monkeypatch.delitem(sys.modules, HARNESS, raising=False)
    # Not `from … import`, which takes the module of another test from the package.
    yield SimpleNamespace(registered=registered, module=importlib.import_module(HARNESS))
    # Not by the patch, which would put it back.
    sys.modules.pop(HARNESS, None)


def requests(*arguments):
    return [SimpleNamespace(args=args) for args in arguments]


def test_answers_come_in_the_order_of_the_requests(harness, float_bundle, likelihoods):
    model = harness.registered["triform"](bundle=str(float_bundle), batch_size=2)
    pairs = [("The sea", " was calm"), ("A boat", " sank"), ("The sea", " rose")]
    expected = [likelihoods.of_continuation(*pair)[0] for pair in pairs]
    assert [value for value, _ in model.loglikelihood(requests(*pairs))] == pytest.approx(expected, abs=1e-4)
    assert model.loglikelihood_rolling(requests(("A boat.",)))[0] == pytest.approx(likelihoods.of_text("A boat."))
    settings = [{"max_gen_toks": 5}, {"max_gen_toks": 3, "until": ["zzz"]}, {"max_gen_toks": 5}]
    prompts = ("The sea", "A boat", "The lamp")
    answers = model.generate_until(requests(*zip(prompts, settings, strict=True)))
    for prompt, setting, answer in zip(prompts, settings, answers, strict=True):
        options = triform.GenerationOptions(max_new_tokens=setting["max_gen_toks"], temperature=0)
        assert answer == likelihoods.model.generate(prompt, options, raw=True).text


def test_settings_of_a_generation(harness):
    options = harness.module.generation_options({"until": "\n", "do_sample": False, "temperature": 0.7})
    assert (options.stop, options.temperature, options.max_new_tokens) == (("\n",), 0, 256)
    options = harness.module.generation_options({"until": ["\n", ""], "do_sample": True, "top_p": 0.5})
    assert (options.stop, options.top_p) == (("\n",), 0.5)
    with pytest.raises(InputError, match="does not know the generation settings num_beams"):
        harness.module.generation_options({"num_beams": 4})
