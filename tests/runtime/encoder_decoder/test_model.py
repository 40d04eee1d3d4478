"""`EncoderDecoder` in Python: log-probabilities as transformers has them, what is refused, and what the clock says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.errors import InputError
from triform.runtime.generation import answers
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties
from triform.runtime.opening import load_encoder_decoder

TEXT = "The house is small."
PLAIN = Ask()


@pytest.fixture(scope="module")
def model(t5):
    return load_encoder_decoder(t5)


@pytest.fixture(scope="module")
def reference(written):
    """What transformers generates greedily: the new tokens, and log-probabilities of the whole vocabulary at each."""

    def generate(text, **settings):
        original, tokenizer = written.model(), written.tokenizer()
        with torch.no_grad():
            made = original.generate(
                **tokenizer(text, return_tensors="pt"),
                do_sample=False,
                num_beams=1,
                output_logits=True,
                return_dict_in_generate=True,
                **settings,
            )
        return made.sequences[0, 1:].tolist(), torch.log_softmax(torch.stack(made.logits)[:, 0], -1)

    return generate


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_equal_transformers(model, reference, stream):
    tokens, table = reference(TEXT, max_new_tokens=12)
    options = GenerationOptions(max_new_tokens=12, temperature=0, logprobs=3)
    if stream:
        pieces = list(model.stream(TEXT, options, ask=PLAIN))
        found = [one for piece in pieces for one in piece.logprobs]
        assert all(len(piece.logprobs) == len(piece.token_ids) for piece in pieces)
    else:
        answer = model.generate(TEXT, options, ask=PLAIN)
        assert list(answer.token_ids) == tokens
        found = answer.logprobs
    assert [one.id for one in found] == tokens
    for one, row in zip(found, table, strict=True):
        assert one.logprob == pytest.approx(float(row[one.id]), abs=2e-4)
        likeliest = row.topk(3)
        assert [top.id for top in one.top] == likeliest.indices.tolist()
        assert [top.logprob for top in one.top] == pytest.approx(likeliest.values.tolist(), abs=2e-4)


def test_logprobs_are_of_the_model_before_any_processor(model, reference):
    penalty = {"repetition_penalty": 5.0}
    tokens, table = reference(TEXT, max_new_tokens=8, **penalty)
    options = GenerationOptions(max_new_tokens=8, temperature=0, logprobs=0, penalties=Penalties(**penalty))
    found = model.generate(TEXT, options).logprobs
    assert [one.id for one in found] == tokens
    assert [one.logprob for one in found] == pytest.approx(
        [float(row[one]) for row, one in zip(table, tokens, strict=True)], abs=2e-4
    )
    assert {one.top for one in found} == {()}


def test_without_logprobs_there_are_none(model):
    assert model.generate(TEXT, GenerationOptions(max_new_tokens=4)).logprobs is None
    assert {piece.logprobs for piece in model.stream(TEXT, GenerationOptions(max_new_tokens=4))} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculate": "lookup"}, "`speculate` lookup is for decoders, and this model reads a source; leave it out"),
        ({"on_overflow": "shift"}, "`on_overflow` shift is for decoders"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "`penalty_alpha` is for decoders"),
        ({"constraints": Constraints(suppress_tokens=(10**6,))}, "`suppress_tokens` names token 1000000"),
    ],
)
def test_what_the_model_cannot_do(model, options, message):
    asked = GenerationOptions(**options)
    for call in (model.generate, model.stream):
        with pytest.raises(InputError, match=message):
            call(TEXT, asked)
    with pytest.raises(InputError, match=message):
        model.generate_all([TEXT], asked)


def test_logprobs_of_several_answers_are_refused(model):
    asked, message = GenerationOptions(logprobs=1), "`logprobs` are for one answer at a time, without beams; leave them"
    for beams in (Beams(num_beams=2), Beams(best_of=2)):
        with pytest.raises(InputError, match=message):
            model.generate(TEXT, GenerationOptions(logprobs=1, temperature=0.5), beams=beams)
    with pytest.raises(InputError, match=message):
        model.generate_all([TEXT], asked)


def test_a_batch_of_none_is_refused(model):
    with pytest.raises(InputError, match="`batch` must be at least 1, not 0"):
        model.generate_all([TEXT], batch=0)


class Clock:
    """Time that passes only where the model works: 5 to read a source, 2 for a prompt, 1 for a token."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def taking(self, seconds, work):
        def slow(*arguments, **more):
            self.now += seconds
            return work(*arguments, **more)

        return slow


@pytest.fixture
def clocked(model, monkeypatch):
    clock, reader = Clock(), model.reader

    def slowed(step):
        return SimpleNamespace(prefill=clock.taking(2, step.prefill), next=clock.taking(1, step.next))

    one, several = reader.step, reader.batch_step
    monkeypatch.setattr(answers, "time", clock)
    monkeypatch.setattr(reader, "read", clock.taking(5, reader.read))
    monkeypatch.setattr(reader, "step", lambda encoded: slowed(one(encoded)))
    monkeypatch.setattr(reader, "batch_step", lambda encoded: slowed(several(encoded)))
    return model


@pytest.mark.parametrize("beams", [None, Beams(num_beams=2), Beams(best_of=2)])
def test_prefill_is_the_time_to_the_first_token(clocked, beams):
    limit = 6
    options = GenerationOptions(max_new_tokens=limit, min_new_tokens=limit, temperature=1.0, seed=1)
    found = clocked.generate(TEXT, options, beams=beams)
    assert len(found.token_ids) == limit
    assert found.timings.prefill == 7
    assert found.timings.tokens == (1,) * (limit - 1)
    assert found.timings.decode_tokens_per_second == 1
    assert found.prefill_tokens_per_second == found.prompt_tokens / 7


def test_an_answer_of_one_token_has_no_speed(clocked):
    timings = clocked.generate(TEXT, GenerationOptions(max_new_tokens=1, temperature=0)).timings
    assert (timings.prefill, timings.tokens, timings.decode_tokens_per_second) == (7, (), 0)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_form_is_compiled_once_a_call(exported_family, compiled, beams):
    model = load_encoder_decoder(exported_family("fsmt")[1])
    schema = Constraints(json_schema={"enum": [12, 345]})
    options = GenerationOptions(max_new_tokens=6, temperature=0, constraints=schema)
    found = list(model.generate_all([TEXT] * 100, options, beams=Beams(num_beams=beams), batch=25))
    assert len(found) == 100
    assert len(compiled) == 1
    assert {answer.text for (answer,) in found} <= {"12", "345"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [(TEXT, "^a list is needed, not a single str"), (None, "^a list is needed, not None"),
     ([TEXT, None], "^text 2 is None, which is not a text$"), ([TEXT, " "], "^text 2 is empty$")],
)  # fmt: skip
def test_what_is_no_list_of_texts(model, texts, message):
    with pytest.raises(InputError, match=message):
        list(model.generate_all(texts, ask=PLAIN))
