"""Tokens that a user adds to the model's ends: by id, by text, alone, in batches, in beams."""

from __future__ import annotations

import json

import pytest

import triform
from triform.cli.main import run
from triform.runtime.errors import InputError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions

PROMPT = "The ferry left the harbor"


@pytest.fixture(scope="module")
def model(float_bundle):
    return triform.load(float_bundle)


def greedy(**more):
    return GenerationOptions(temperature=0, max_new_tokens=12, **more)


def test_an_added_token_ends_an_answer_and_is_no_part_of_its_text(model):
    whole = model.generate(PROMPT, greedy(), raw=True)
    ids = list(whole.token_ids)
    end = ids[4]
    cut = ids.index(end) + 1
    for found in (
        model.generate(PROMPT, greedy(stop_token=(end,)), raw=True),
        next(model.generate_all([PROMPT], greedy(stop_token=(399, end)), raw=True))[0],
    ):
        assert (list(found.token_ids), found.finish_reason) == (ids[:cut], "stop")
        assert whole.text.startswith(found.text)
    beams = model.generate(PROMPT, greedy(stop_token=tuple(range(400))), beams=Beams(num_beams=2), raw=True)
    assert (len(beams.token_ids), beams.finish_reason) == (1, "stop")
    # The model's own ends stay.
    own = model.generate(PROMPT, greedy(stop_token=(end,), constraints=triform.Constraints(forced_tokens={0: 2})))
    assert (list(own.token_ids), own.finish_reason) == ([2], "stop")


def test_a_token_by_its_text(model):
    for text, token in (("<|user|>", 3), ("\n", None)):
        settled = model.settle(greedy(stop_token=(text,)))
        assert len(settled.eos) == 2
        assert token is None or settled.eos == (2, token)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("harbor lights",), r"^`stop_token` 'harbor lights' is not one token of this model, but \d+; `stop` ends"),
        ((400,), "^`stop_token` names token 400; the vocabulary has 400"),
        ((-1,), "^`stop_token` must be a token id of 0 or more|must be 0 or more"),
        (("",), "^`stop_token` must be a token id or a text that is not empty"),
        ("<|end|>", "^`stop_token` must be a list"),
        ((1.5,), "^`stop_token` must be a whole number"),
    ],
)
def test_what_is_no_token_is_refused(model, given, message):
    with pytest.raises(InputError, match=message):
        model.settle(greedy(stop_token=given))


@pytest.mark.parametrize("flags", [["--stop-token", "<|user|>"], ["--eos-token", "5", "--stop-token", "3"]])
def test_on_the_command_line(float_bundle, capsys, flags):
    arguments = ["generate", str(float_bundle), PROMPT, "--forced-tokens", "2=3", "--max-new-tokens", "9", "--json"]
    assert run([*arguments, *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["finish_reason"], found["token_ids"][2:]) == ("stop", [3])
