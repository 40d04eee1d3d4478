"""What a decoder is calibrated on: its own greedy answers, and the energies of what its products read along them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from triform.export.forms.encoder_decoders import stored
from triform.export.forms.encoder_decoders.answers import differentiable_pair, greedy_answers
from triform.export.options import ExportOptions
from triform.export.pipeline import export

START, PAD = 7, 3


class Counting:
    """Both parts of a runner: of a source whose first number is n, the answer is n + 1, n + 2, and so on."""

    def read(self, arrays):
        self.source = arrays
        return self

    def start(self, batch, capacity):
        self.capacity, self.fed = capacity, []

    def feed(self, input_ids, positions):
        self.fed.append(int(input_ids[0, 0]))
        logits = np.zeros((1, 1, 50), np.float32)
        logits[0, 0, int(self.source["input_ids"][0, 0]) + len(self.fed)] = 1
        return logits, {}


@pytest.mark.parametrize(
    ("ends", "longest", "expected"),
    [
        ([], 4, [START, 11, 12, 13]),
        ([13], 9, [START, 11, 12]),
        ([40, 11], 9, [START]),
        ([], 1, [START]),
    ],
)
def test_an_answer_ends_with_its_end_or_with_what_is_allowed(ends, longest, expected):
    source = {"input_ids": np.array([10, 4])}
    (answer,) = greedy_answers(Counting(), [source], PAD, START, ends, longest)
    assert answer.ids == expected
    np.testing.assert_array_equal(answer.source["input_ids"], [[10, 4]])


def test_every_source_is_answered():
    sources = [{"input_ids": np.array([first])} for first in (10, 20)]
    answers = greedy_answers(Counting(), sources, PAD, START, [12, 24], 9)
    assert [answer.ids for answer in answers] == [[START, 11], [START, 21, 22, 23]]


@pytest.fixture(scope="module")
def calibrated(exported_family, tmp_path_factory):
    """A BART, the answers that an export calibrates on, and the energies it measures."""
    folder, found = exported_family("bart")[0], {}

    def spy(runner, outputs, answers):
        found["answers"] = answers
        found["energies"] = energies(runner, outputs, answers)
        return found["energies"]

    energies = stored.answer_energies
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "answer_energies", spy)
        export(str(folder), tmp_path_factory.mktemp("calibrated") / "int8", ExportOptions(quantize="int8"))
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), found["answers"], found["energies"]


def inputs_of(answer):
    return {name: torch.from_numpy(array) for name, array in answer.source.items()}


def test_answers_are_the_likeliest_tokens_of_pytorch(calibrated):
    model, answers, _ = calibrated
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    assert len(answers) == 8
    assert len({len(answer.ids) for answer in answers}) > 1
    for answer in answers:
        with torch.no_grad():
            logits = model(**inputs_of(answer), decoder_input_ids=torch.tensor([answer.ids])).logits[0]
        likeliest = logits.argmax(-1).tolist()
        assert answer.ids[1:] == likeliest[:-1]
        assert not set(answer.ids[1:]) & set(ends)
        assert likeliest[-1] in ends or len(answer.ids) == 32


@pytest.mark.parametrize(
    "name", ["decoder.layers.1.fc1", "decoder.layers.0.fc2", "decoder.layers.1.self_attn.out_proj", "lm_head"]
)
def test_energies_are_those_of_pytorchs_modules(calibrated, name):
    model, answers, energies = calibrated
    module = model.get_submodule(name if name == "lm_head" else f"model.{name}")
    total = torch.zeros(module.in_features)

    def add(_, args):
        total.add_(args[0].detach().square().sum((0, 1)))

    handle = module.register_forward_pre_hook(add)
    with torch.no_grad():
        for answer in answers:
            model(**inputs_of(answer), decoder_input_ids=torch.tensor([answer.ids]))
    handle.remove()
    measured = [energy for weight, energy in energies.items() if name in weight]
    assert len(measured) == 1
    torch.testing.assert_close(measured[0], total, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["model.encoder.layers.0.fc1.weight", "model.decoder.layers.0.encoder_attn.k_proj.weight"]
)
def test_the_gradients_tell_what_an_error_does_to_the_predictions(calibrated, name):
    """Half the mean square of their products with a small error is the divergence that it makes, over all tokens.

    Tokens of an answer are drawn apart from each other, so that the square of their sum is the sum of squares on
    average.
    """
    model, answers, _ = calibrated
    subject = differentiable_pair(model, answers)
    assert subject.count == sum(len(answer.ids) for answer in answers)
    weight = subject.parameters[name].requires_grad_(True)
    gradients = [torch.autograd.grad(value, weight)[0] for value in subject.values()]
    weight.requires_grad_(False)
    before = [log_probabilities(model, answer) for answer in answers]
    squares, divergence = 0.0, 0.0
    for error in 3e-3 * torch.randn(24, *weight.shape, generator=torch.Generator().manual_seed(1)):
        squares += 0.5 * sum(float((gradient * error).sum()) ** 2 for gradient in gradients)
        weight += error
        after = [log_probabilities(model, answer) for answer in answers]
        weight -= error
        divergence += sum(float((old.exp() * (old - new)).sum()) for old, new in zip(before, after, strict=True))
    # Of each answer one draw, so that a few answers decide.
    assert 0.5 * divergence < squares < 2 * divergence


def log_probabilities(model, answer):
    with torch.no_grad():
        logits = model(**inputs_of(answer), decoder_input_ids=torch.tensor([answer.ids])).logits[0]
    return logits.log_softmax(-1)
