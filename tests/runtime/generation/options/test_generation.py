"""The options of one generation: which values are taken, and their names in one table."""

from __future__ import annotations

import dataclasses
import re

import pytest

from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import (
    Constraints,
    GenerationOptions,
    Penalties,
    Truncation,
    values_by_name,
)


@pytest.mark.parametrize("tokens", [(), (0,), (5, "end"), ["end"], (2**31, 7)])
def test_tokens_that_end_an_answer(tokens):
    assert GenerationOptions(stop_token=tokens).stop_token == tokens


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("end", "must be a list of token ids and texts, not 'end'"),
        (7, "must be a list of token ids and texts, not 7"),
        (None, "must be a list of token ids and texts, not None"),
        (("",), "must be a token id or a text that is not empty"),
        (("end", ""), "must be a token id or a text that is not empty"),
        ((-1,), "stop_token"),
        (("end", 1.5), "stop_token"),
        ((True,), "stop_token"),
    ],
)
def test_what_is_no_token_to_end_with(tokens, message):
    with pytest.raises(InputError, match=message):
        GenerationOptions(stop_token=tokens)


@pytest.mark.parametrize("stop", [("",), ("end", "")])
def test_what_is_no_text_to_end_with(stop):
    with pytest.raises(InputError, match="`stop` must be a text that is not empty"):
        GenerationOptions(stop=stop)


@pytest.mark.parametrize("stop", ["end", b"end", None, 7, [7], ["end", None]])
def test_what_is_no_list_of_texts_to_end_with(stop):
    with pytest.raises(InputError, match=re.escape(f"`stop` must be a list of texts, not {stop!r}")):
        GenerationOptions(stop=stop)


def test_options_by_name_are_those_of_the_call_and_of_its_groups():
    options = GenerationOptions(
        top_k=3,
        truncation=Truncation(min_p=0.5),
        penalties=Penalties(repetition_penalty=1.5),
        constraints=Constraints(choices=("a",)),
    )
    values = values_by_name(options)
    own = {field.name for field in dataclasses.fields(GenerationOptions)} - {"truncation", "penalties", "constraints"}
    of_groups = {field.name for group in (Truncation, Penalties, Constraints) for field in dataclasses.fields(group)}
    assert values.keys() == own | of_groups
    given = {"top_k": 3, "min_p": 0.5, "repetition_penalty": 1.5, "choices": ("a",)}
    assert {name: values[name] for name in given} == given
    assert values["top_p"] is None and values["json_schema"] is None


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("max_new_tokens", 1, None),
        ("min_new_tokens", 0, None),
        ("top_k", 0, None),
        ("keep", 0, None),
        ("logprobs", 0, None),
        ("seed", 0, 2**64 - 1),
    ],
)
def test_the_ends_of_whole_numbers(name, least, most):
    # Options that say nothing without another one come with it.
    others = {"keep": {"on_overflow": "shift"}, "seed": {"temperature": 1.0}, "top_k": {"temperature": 1.0}}.get(
        name, {}
    )
    for value in (least, most):
        assert value is None or getattr(GenerationOptions(**{name: value}, **others), name) == value
    for value in (least - 1, None if most is None else most + 1):
        if value is not None:
            with pytest.raises(InputError, match=name):
                GenerationOptions(**{name: value}, **others)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.5, 1.5])
def test_the_weight_of_resemblance_is_between_0_and_1(alpha):
    with pytest.raises(InputError, match="penalty_alpha"):
        GenerationOptions(penalty_alpha=alpha, top_k=4)
    assert GenerationOptions(penalty_alpha=0.5, top_k=2).penalty_alpha == 0.5
