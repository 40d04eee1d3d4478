"""Answers of a given form: they parse, whatever the model says, and every text of the form can be said."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

import triform
from tests.checkpoints.decoders import VOCAB, byte_level_tokenizer
from tests.helpers.fake_step import FakeStep
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Truncation
from triform.runtime.generation.processors.contract import Temperature
from triform.runtime.generation.processors.form import compile_form
from triform.runtime.generation.sampling import make_sampler, row_generator
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.beams import beam_search

BYTE_LEVEL = byte_level_tokenizer()
# More logits than tokens, as of a table that is filled up.
LOGITS, END, PROMPT = VOCAB + 9, 2, [1, 7]
EOS = (END, 0)


def byte_fallback_tokenizer():
    """SentencePiece as Llama 2 has it."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    for piece in ["\u2581", "\u2581red", "red", "gre", "en", '{"', '"', "\u4e2d", "1", "\u25812"]:
        vocab[piece] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


BYTE_FALLBACK = byte_fallback_tokenizer()


def maker(asked, tokenizer=BYTE_LEVEL, eos=EOS):
    form = compile_form(asked, tokenizer, LOGITS, eos)
    assert form is not None
    return lambda: form.constraint(len(PROMPT))


def spoken(make, seed, *, tokenizer=BYTE_LEVEL, temperature=1.0, limit=3000):
    """What a model that knows nothing says."""
    generator = np.random.default_rng(seed)
    sampler = make_sampler([make(), Temperature(temperature)], row_generator(seed, 0) if temperature != 1 else None)
    ids = list(PROMPT)
    for _ in range(limit):
        token = sampler(np.array(ids), generator.normal(size=LOGITS).astype(np.float32))
        if token in EOS:
            return tokenizer.decode(ids[len(PROMPT) :], skip_special_tokens=False)
        ids.append(token)
    raise AssertionError(f"no end: {tokenizer.decode(ids)!r}")


def allowed(step, ids):
    return set(np.flatnonzero(np.isfinite(step(np.array([*PROMPT, *ids]), np.zeros(LOGITS, np.float32)))).tolist())


NAMES = st.text(alphabet='ab "\\\u00e9', max_size=3)
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.tuples(st.integers(-50, 50), st.integers(0, 50)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.just({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}),
    st.tuples(st.integers(0, 2), st.integers(0, 3)).map(
        lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[0] + pair[1]}
    ),
    st.just({"type": "string", "format": "date"}),
    st.lists(st.one_of(NAMES, st.integers(-3, 3), st.none()), min_size=1, max_size=3).map(lambda some: {"enum": some}),
    st.one_of(NAMES, st.booleans()).map(lambda one: {"const": one}),
)


def _objects(schemas):
    fields = st.dictionaries(NAMES, schemas, max_size=3)
    return st.tuples(fields, st.integers(0, 3)).map(
        lambda pair: {
            "type": "object",
            "properties": pair[0],
            "required": list(pair[0])[: pair[1]],
            "additionalProperties": False,
        }
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda schemas: st.one_of(
        _objects(schemas),
        st.tuples(schemas, st.integers(0, 2)).map(
            lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1], "maxItems": pair[1] + 1}
        ),
        st.lists(schemas, min_size=1, max_size=2).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32), st.sampled_from([1.0, 0.7]))
def test_json_of_any_schema_parses_whatever_the_model_says(schema, seed, temperature):
    said = spoken(maker(Constraints(json_schema=schema)), seed, temperature=temperature)
    jsonschema.validate(json.loads(said), schema, format_checker=jsonschema.FormatChecker(["date"]))


@pytest.mark.parametrize(
    "pattern", ["[0-9]{3}-[a-z]{1,9}x", "a/b|\u00e9\u4e2d{2}", '(yes|no)( "maybe")?', "\\d?[^a]\\$"]
)
@pytest.mark.parametrize("seed", range(3))
def test_regular_expressions_match_as_python_reads_them(pattern, seed):
    said = spoken(maker(Constraints(regex=pattern)), seed)
    assert re.fullmatch(pattern, said)


LARK = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[1-9][0-9]{0,3}/\n'
GBNF = 'root ::= number ("+" number)*\nnumber ::= [1-9] [0-9]? [0-9]? [0-9]?\n'


@pytest.mark.parametrize("grammar", [LARK, GBNF])
@pytest.mark.parametrize("seed", range(3))
def test_grammars_are_followed(grammar, seed):
    said = spoken(maker(Constraints(grammar=grammar)), seed)
    assert re.fullmatch(r"[1-9][0-9]{0,3}(\+[1-9][0-9]{0,3})*", said)


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK])
def test_choices_leave_exactly_the_tokens_that_lead_to_one(tokenizer):
    """Token by token: one may follow if a choice begins with what there would be then.

    Where only one letter can follow, llguidance leaves of its tokens the one that the tokenizer itself would write.
    """
    choices = ("red", "green", "redder \u4e2d", "1,2")
    step = maker(Constraints(choices=choices), tokenizer)()
    special = set(tokenizer.get_added_tokens_decoder())
    texts = {token: tokenizer.decode([token]) for token in range(tokenizer.get_vocab_size()) if token not in special}
    # Leading spaces are taken off a text, and what is half a letter is not to be seen.
    texts = {token: text for token, text in texts.items() if text and "\ufffd" not in text}
    texts = {token: text for token, text in texts.items() if "\u2581" not in (tokenizer.id_to_token(token) or "")}
    for written in ("", "re", "red", "redd", "green", "1", "1,"):
        # Letter by letter, which is one of many ways to write it and as good as any.
        ids = [next(token for token, text in texts.items() if text == letter) for letter in written]
        expected = {token for token, text in texts.items() if any(one.startswith(written + text) for one in choices)}
        expected |= set(EOS) if written in choices else set()
        found = allowed(step, ids)
        found = {one for one in found if one in texts or one in special}
        forced = len({texts.get(one, "")[:1] for one in expected}) == 1 and written not in choices
        assert found <= expected if forced and found else found == expected


def test_what_a_call_gives_depends_on_its_ids_alone():
    """Beams come and go, and guesses are taken back: one that went another way before gives what a new one gives."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yy"]}}, "required": ["b"]}
    make = maker(Constraints(json_schema={**schema, "additionalProperties": False}))
    texts = ['{"a": 12, "b": "yy"}', '{"b":"x"}', '{"a": 1', "", '{\n "b"', "nonsense"]
    rows = [BYTE_LEVEL.encode(text).ids for text in texts]
    rows = [row[:length] for row in rows for length in range(len(row) + 1)] + [[*rows[0], END]]
    generator, step = np.random.default_rng(0), make()
    for index in generator.integers(len(rows), size=200):
        assert allowed(step, rows[index]) == allowed(make(), rows[index])
    # At the end and after nonsense nothing but an end is left.
    assert allowed(step, rows[-1]) == allowed(step, BYTE_LEVEL.encode("nonsense").ids) == set(EOS)


def test_an_end_that_is_banned_is_forced_where_nothing_else_is_left():
    step = maker(Constraints(choices=("no",)))()
    logits = np.zeros(LOGITS, np.float32)
    logits[list(EOS)] = -np.inf
    found = step(np.array([*PROMPT, *BYTE_LEVEL.encode("no").ids]), logits)
    assert set(np.flatnonzero(np.isfinite(found)).tolist()) == set(EOS)


@pytest.mark.parametrize("beams", [1, 4])
def test_beams_find_choices(beams):
    """More beams than there are ways to go on, so that some follow tokens that are banned; these come last."""
    step = maker(Constraints(choices=("red", "blue", "blues")))()
    request = Request(PROMPT, 20, [step])
    found = beam_search(FakeStep(LOGITS, 3), [request], BeamOptions(beams, num_return_sequences=1), eos=EOS)
    (best,) = found[0]
    assert BYTE_LEVEL.decode(list(best.token_ids), skip_special_tokens=True) in {"red", "blue", "blues"}
    assert np.isfinite(best.score)


def test_the_input_is_not_written_to_and_values_are_kept():
    step, logits = maker(Constraints(choices=("red",)))(), np.arange(LOGITS, dtype=np.float32)
    found = step(np.array(PROMPT), logits)
    kept = np.isfinite(found)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[kept], logits[kept])
    np.testing.assert_array_equal(logits, np.arange(LOGITS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regex": "[0-9"}, r"^`regex` cannot be used: .*unclosed character class"),
        ({"regex": r"[^\s\S]"}, r"^`regex` cannot be followed: "),
        ({"json_schema": "{"}, r"^`json_schema` cannot be read: "),
        ({"json_schema": "[1]"}, r"^`json_schema` cannot be read: a schema is a JSON object"),
        ({"json_schema": {"type": "strin"}}, r"^`json_schema` cannot be used: Invalid type: strin"),
        ({"json_schema": "false"}, r"^`json_schema` cannot be read: a schema is a JSON object"),
        ({"json_schema": {"minimum": 2, "maximum": 1, "type": "number"}}, r"^`json_schema` cannot be used: Unsat"),
        ({"json_schema": {"not": {}}}, r'^`json_schema` cannot be used: Unimplemented keys: \["not"\]'),
        ({"json_schema": {"const": {1}}}, r"^`json_schema` cannot be read: .*not JSON serializable"),
        ({"grammar": 'start: "a" b'}, r'^`grammar` cannot be used: .*unknown name: "b"'),
        ({"grammar": 'start: start "a"'}, r"^`grammar` cannot be followed: "),
        ({"grammar": "hello world"}, r"^`grammar` cannot be read: .*Expected ::="),
        ({"grammar": ""}, r"^`grammar` cannot be read: "),
        ({"grammar": 'root ::= "a'}, r"^`grammar` cannot be read: "),
    ],
)
def test_forms_that_cannot_be_are_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        compile_form(Constraints(**changes), BYTE_LEVEL, LOGITS, EOS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regex": "a", "choices": ("b",)}, "`regex` and `choices` cannot be used together"),
        ({"json_schema": "{}", "grammar": "x"}, "`json_schema` and `grammar` cannot be used together"),
        ({"choices": ()}, "`choices` must be texts that are not empty"),
        ({"choices": ("a", "")}, "`choices` must be texts that are not empty"),
        ({"choices": "abc"}, "`choices` must be texts that are not empty"),
        ({"regex": 5}, "`regex` must be a text, not 5"),
        ({"json_schema": 5}, "`json_schema` must be JSON text or a mapping, not 5"),
    ],
)
def test_forms_are_checked_with_the_options(changes, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Constraints(**changes)


def test_models_that_cannot_be_held_to_a_form(monkeypatch):
    asked = Constraints(regex="a")
    assert compile_form(Constraints(), BYTE_LEVEL, LOGITS, ()) is None
    with pytest.raises(UnsupportedError, match=r"^`regex` needs a model that can end"):
        compile_form(asked, BYTE_LEVEL, LOGITS, ())
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    for tokenizer in (words, object()):
        with pytest.raises(UnsupportedError, match=r"^`regex` does not work with this model: ") as caught:
            compile_form(asked, tokenizer, 3, (0,))
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UnsupportedError) as caught:
        compile_form(asked, BYTE_LEVEL, LOGITS, EOS)
    assert str(caught.value) == f"`regex` needs llguidance: {install_command('constraints')}"


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0},
        {"temperature": 1.3, "seed": 4, "top_p": 0.9, "logprobs": 2},
        {"seed": 4, "truncation": Truncation(mirostat_tau=3)},
        {"temperature": 0, "min_new_tokens": 150, "max_new_tokens": 200},
    ],
)
def test_a_decoder_answers_in_json(float_bundle, changes):
    found = triform.load(float_bundle).generate(
        "A person:", GenerationOptions(constraints=Constraints(json_schema=PERSON), **changes)
    )
    jsonschema.validate(json.loads(found.text), PERSON)
    assert found.finish_reason == "stop"
    if found.logprobs is not None:
        # Those of the model itself, to which the form is no matter.
        assert [one.id for one in found.logprobs] == list(found.token_ids)
        assert all(len(one.top) == 2 for one in found.logprobs)


def test_a_stop_string_ends_an_answer_before_its_form_does(float_bundle):
    options = GenerationOptions(temperature=0, stop=("b",), constraints=Constraints(regex="a{3}bc"))
    assert triform.load(float_bundle).generate("x", options, raw=True).text == "aaa"


LONG_NAMES = {
    "type": "object",
    "properties": {
        "name_of_the_ferry": {"type": "string", "maxLength": 3},
        "color_of_the_harbor": {"enum": ["a dark shade of green", "a bright shade of red"]},
    },
    "required": ["name_of_the_ferry", "color_of_the_harbor"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"temperature": 0.9, "seed": 2}], ids=["greedy", "drawn"])
@pytest.mark.parametrize("speculate", ["auto", "lookup"])
def test_what_is_forced_is_tried_at_once(float_bundle, changes, speculate):
    decoder, form = triform.load(float_bundle), Constraints(json_schema=LONG_NAMES)
    options = GenerationOptions(constraints=form, speculate="off", **changes)
    expected = decoder.generate("A ferry:", options)
    jsonschema.validate(json.loads(expected.text), LONG_NAMES)
    assert expected.proposed_tokens == 0
    found = decoder.generate("A ferry:", dataclasses.replace(options, speculate=speculate))
    assert found.token_ids == expected.token_ids
    assert found.accepted_tokens > 4


def test_what_is_forced():
    form = compile_form(Constraints(choices=("abcdef", "abcxyz")), BYTE_LEVEL, LOGITS, EOS)
    constraint = form.constraint(len(PROMPT))

    def forced(text, *more):
        ids = BYTE_LEVEL.encode(text, add_special_tokens=False).ids
        return BYTE_LEVEL.decode(constraint.forced(np.array([*PROMPT, *ids, *more])))

    assert "abc".startswith(forced(""))
    assert forced("abcd") == "ef"
    assert forced("abcx") == "yz"
    # What does not fit, and what is at its end, forces nothing.
    assert forced("q") == forced("abcdef", END) == ""
