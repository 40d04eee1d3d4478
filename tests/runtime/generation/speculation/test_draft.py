"""A draft changes how many runs an answer takes, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest

import triform
from tests.checkpoints.decoders import llama_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Penalties
from triform.runtime.generation.speculation.pace import Pace

PROMPT = "The ferry left the harbor. " * 4


@pytest.fixture(scope="module")
def plain(float_bundle):
    return triform.load(float_bundle)


@pytest.fixture
def drafted(float_bundle, int4_bundle):
    """The same model, and its own four-bit weights as a draft that agrees often but not always."""
    decoder = triform.load(float_bundle)
    decoder.use_draft(triform.load(int4_bundle))
    return decoder


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """However little it pays: the clock of a machine that runs tests decides nothing."""

    def wanted(pace, most):
        # Two plain steps first, with whose time the others are compared.
        return min(4, most) if most >= 2 and pace._runs[0] > 1 else 0

    monkeypatch.setattr(Pace, "wanted", wanted)


CHANGES = [
    {"temperature": 0},
    {"temperature": 0.1, "seed": 3},
    {"temperature": 0, "penalties": Penalties(repetition_penalty=1.2)},
    {"temperature": 0, "logprobs": 1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(map(str, changes)))
def test_the_same_tokens(plain, drafted, changes):
    options = GenerationOptions(max_new_tokens=80, **changes)
    expected = plain.generate(PROMPT, dataclasses.replace(options, speculate="off"), raw=True)
    found = drafted.generate(PROMPT, options, raw=True)
    assert (found.token_ids, found.text) == (expected.token_ids, expected.text)
    assert 0 < found.accepted_tokens < found.proposed_tokens
    assert expected.proposed_tokens == 0
    # Another prompt, and the first one again: what the draft's cache holds of others does not matter.
    drafted.generate("Another one", options, raw=True)
    assert drafted.generate(PROMPT, options, raw=True).token_ids == expected.token_ids


def test_a_draft_that_is_the_model_itself_is_always_right(float_bundle, plain, monkeypatch):
    runs = []
    decoder = triform.load(float_bundle)
    decoder.use_draft(triform.load(float_bundle))
    original = decoder._step.extend
    monkeypatch.setattr(decoder._step, "extend", lambda tokens: runs.append(len(tokens)) or original(tokens))
    options = GenerationOptions(max_new_tokens=43, temperature=0, min_new_tokens=43)
    found = decoder.generate(PROMPT, options, raw=True)
    assert found.token_ids == plain.generate(PROMPT, options, raw=True).token_ids
    # One token comes with the prompt, two come alone, and eight runs give five each.
    assert runs == [1, 1] + [5] * 8
    assert (found.proposed_tokens, found.accepted_tokens) == (32, 32)


def test_it_is_not_asked_when_told_so(drafted):
    for asked in ("off", "lookup"):
        drafted._loops._draft = lambda ids, count: pytest.fail("asked")
        drafted.generate(PROMPT, GenerationOptions(max_new_tokens=20, temperature=0, speculate=asked), raw=True)


def test_a_draft_whose_context_is_full(float_bundle, tmp_path, plain):
    export(
        str(llama_folder(tmp_path / "short", max_position_embeddings=48)),
        tmp_path / "b",
        ExportOptions(quantize="none"),
    )
    decoder = triform.load(float_bundle)
    decoder.use_draft(triform.load(tmp_path / "b"))
    options = GenerationOptions(max_new_tokens=60, temperature=0, min_new_tokens=60)
    found = decoder.generate("The ferry", options, raw=True)
    assert found.token_ids == plain.generate("The ferry", options, raw=True).token_ids
    assert 0 < found.proposed_tokens < 48


def test_another_vocabulary_is_refused(float_bundle, real_bundle):
    with pytest.raises(InputError, match=r"cannot be the draft model of .*: their vocabularies differ"):
        triform.load(float_bundle).use_draft(triform.load(real_bundle))
