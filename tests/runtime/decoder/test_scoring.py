"""Log-probabilities, perplexity and stop strings of a decoder against PyTorch on the same checkpoint."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors as tokenizer_processors
from transformers import AutoModelForCausalLM, AutoTokenizer

import triform
from tests.checkpoints.decoders import byte_level_tokenizer
from tests.runtime.text.test_tokenizer import BYTE_FALLBACK, BYTE_LEVEL
from triform.export.samples import texts
from triform.runtime.decoder.scoring import continuation_losses, losses_of
from triform.runtime.errors import BundleError, InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.text.token_stream import stream_ids

PROMPT = "The ferry left the harbor"


@pytest.fixture(scope="module")
def reference(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval(), AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def decoder(float_bundle):
    return triform.load(float_bundle)


def log_softmax_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def test_the_score_of_a_text(decoder, reference):
    model, tokenizer = reference
    ids = tokenizer(PROMPT)["input_ids"]
    table = log_softmax_of(model, ids)
    found = decoder.score(PROMPT)
    assert list(found.token_ids) == ids
    assert "".join(found.tokens) == PROMPT
    assert found.logprobs[0] is None
    expected = [table[place, token].item() for place, token in enumerate(ids[1:])]
    assert found.logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert decoder.score("a").logprobs == (None,)


def test_the_score_of_two_tokens(decoder, reference):
    """The shortest text with a log-probability."""
    model, tokenizer = reference
    text = tokenizer.decode(tokenizer(PROMPT)["input_ids"][:2])
    first, second = tokenizer(text)["input_ids"]
    expected = log_softmax_of(model, [first, second])[0, second].item()
    assert decoder.score(text).logprobs == (None, pytest.approx(expected, abs=1e-4))


def test_logprobs_are_those_of_the_models_own_distribution(decoder, reference):
    """Whatever is done to the logits before the token is chosen."""
    model, tokenizer = reference
    options = GenerationOptions(
        max_new_tokens=6, temperature=2.0, top_k=50, seed=1, logprobs=3, penalties=Penalties(repetition_penalty=1.5)
    )
    found = decoder.generate(PROMPT, options, raw=True)
    prompt = tokenizer(PROMPT)["input_ids"]
    table = log_softmax_of(model, [*prompt, *found.token_ids])[len(prompt) - 1 :]
    assert [one.id for one in found.logprobs] == list(found.token_ids)
    for place, one in enumerate(found.logprobs):
        assert one.logprob == pytest.approx(table[place, one.id].item(), abs=1e-4)
        top = table[place].topk(3)
        assert [(other.id, other.logprob) for other in one.top] == [
            (token, pytest.approx(value, abs=1e-4))
            for token, value in zip(*map(torch.Tensor.tolist, top[::-1]), strict=True)
        ]
        assert one.text == tokenizer.decode([one.id])
    alone = decoder.generate(PROMPT, GenerationOptions(max_new_tokens=2, temperature=0, logprobs=0), raw=True)
    assert [one.top for one in alone.logprobs] == [()] * len(alone.token_ids)
    assert decoder.generate(PROMPT, GenerationOptions(max_new_tokens=2), raw=True).logprobs is None


def generated(model, tokenizer, **settings):
    ids = tokenizer(PROMPT, return_tensors="pt")
    found = model.generate(**ids, max_new_tokens=30, do_sample=False, pad_token_id=0, **settings)
    return found[0, ids["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def plain(reference):
    """What transformers generates when nothing is asked."""
    return generated(*reference)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"penalties": Penalties(repetition_penalty=1.3)}, {"repetition_penalty": 1.3}),
        ({"penalties": Penalties(no_repeat_ngram_size=2)}, {"no_repeat_ngram_size": 2}),
        (
            {"min_new_tokens": 25, "constraints": Constraints(logit_bias={2: 20.0})},
            {"min_new_tokens": 25, "sequence_bias": [[[2], 20.0]]},
        ),
        ({"constraints": Constraints(forced_eos_token_id=(2,))}, {"forced_eos_token_id": 2}),
        (
            {"constraints": Constraints(suppress_tokens=tuple(range(100, 250)), begin_suppress_tokens=(50, 60))},
            {"suppress_tokens": list(range(100, 250)), "begin_suppress_tokens": [50, 60]},
        ),
        (
            {"penalties": Penalties(exponential_decay_length_penalty=(5, 1.5))},
            {"exponential_decay_length_penalty": (5, 1.5)},
        ),
    ],
)
def test_whole_generations_equal_transformers(decoder, reference, plain, options, theirs):
    found = decoder.generate(PROMPT, GenerationOptions(max_new_tokens=30, temperature=0, **options), raw=True)
    expected = generated(*reference, **theirs)
    assert list(found.token_ids) == expected
    assert expected != plain


def test_bad_words_are_banned_in_both_spellings(decoder):
    free = decoder.generate(PROMPT, GenerationOptions(max_new_tokens=30, temperature=0), raw=True).text
    words = tuple(sorted({word for word in free.split() if word.isalpha()}, key=len)[-2:])
    assert words
    options = GenerationOptions(max_new_tokens=30, temperature=0, constraints=Constraints(bad_words=words))
    ids = decoder.generate(PROMPT, options, raw=True).token_ids
    tokenizer = byte_level_tokenizer()
    for spelling in (text for word in words for text in (word, " " + word)):
        banned = tokenizer.encode(spelling, add_special_tokens=False).ids
        assert not any(list(ids[i : i + len(banned)]) == banned for i in range(len(ids)))


def test_a_stop_string_ends_a_generation(decoder):
    plain = GenerationOptions(max_new_tokens=60, temperature=0)
    whole = decoder.generate(PROMPT, plain, raw=True)
    # Three letters in the middle, most likely of several tokens, and where they come first.
    stop = whole.text[len(whole.text) // 2 :][:3]
    options = GenerationOptions(max_new_tokens=60, temperature=0, stop=("never there", stop))
    pieces = list(decoder.stream(PROMPT, options, raw=True))
    assert "".join(piece.text for piece in pieces) == whole.text[: whole.text.find(stop)]
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert len(pieces) < len(whole.token_ids)
    found = decoder.generate(PROMPT, options, raw=True)
    assert (found.text, found.finish_reason) == (whole.text[: whole.text.find(stop)], "stop")
    assert found.token_ids == whole.token_ids[: len(found.token_ids)]
    absent = GenerationOptions(max_new_tokens=60, temperature=0, stop=("never there",))
    assert decoder.generate(PROMPT, absent, raw=True).text == whole.text


def test_options_that_fail_do_so_before_anything_runs(decoder):
    options = GenerationOptions(constraints=Constraints(suppress_tokens=(999_999,)))
    with pytest.raises(InputError, match="`suppress_tokens` names token 999999"):
        decoder.stream(PROMPT, options)
    mirostat = GenerationOptions(max_new_tokens=5, seed=1, truncation=Truncation(mirostat_tau=3.0))
    assert decoder.generate(PROMPT, mirostat).token_ids == decoder.generate(PROMPT, mirostat).token_ids


def continuation_of(*tables):
    """The losses of 2, 0 and 1 after a context, with logits after it and after the first two of them."""
    step = SimpleNamespace(
        prefill=lambda context: tables[0],
        logits_in_chunks=lambda ids: (table[None] for _, table in zip(ids, tables[1:], strict=True)),
    )
    return continuation_losses(step, [5, 6], [2, 0, 1])


def test_each_token_of_a_continuation_is_scored_after_those_before_it():
    """Weights of 1, 2 and 5 of 8, in other places each time: 5/8, 2/8 and 5/8."""
    tables = [np.log(np.array(weights, np.float32)) for weights in ([1, 2, 5], [2, 5, 1], [2, 5, 1])]
    losses, greedy = continuation_of(*tables)
    assert losses == pytest.approx([math.log(8 / 5), math.log(4), math.log(8 / 5)], rel=1e-6)
    assert not greedy
    tables[1] = tables[1][[1, 0, 2]]
    assert continuation_of(*tables)[1]
    for value in (math.nan, math.inf):
        with pytest.raises(BundleError, match="logits that are not numbers"):
            continuation_of(np.array([0, value, 1], np.float32), *tables[1:])


def test_the_perplexity_of_a_file_is_that_of_its_text(decoder):
    text = texts.read_text("evaluation")
    found = decoder.file_perplexity(io.StringIO(text))
    assert found.perplexity == pytest.approx(decoder.perplexity(text), rel=1e-12)
    assert found.tokens == len(decoder.score(text).token_ids)
    assert found.loss == pytest.approx(-np.mean(decoder.score(text).logprobs[1:]), rel=1e-9)
    for short in ("", "a"):
        with pytest.raises(InputError, match="at least two tokens"):
            decoder.file_perplexity(io.StringIO(short))


@pytest.mark.parametrize("beginning", [[], [1], [1, 5]])
def test_every_window_begins_as_a_text_does(decoder, reference, beginning):
    model, _ = reference
    tokenizer = byte_level_tokenizer()
    if beginning:
        special = [tokenizer.id_to_token(token) for token in beginning]
        tokenizer.post_processor = tokenizer_processors.TemplateProcessing(
            single=" ".join([*special, "$A"]), special_tokens=list(zip(special, beginning, strict=True))
        )
    window, size = 16, len(beginning)
    ids = tokenizer.encode(texts.read_text("evaluation")[:150]).ids
    assert ids[:size] == beginning and len(ids) > 3 * window
    expected, end = [], 1
    while end < len(ids):
        reached = min(window if end == 1 else end + window // 2, len(ids))
        # As much of the text as there is room for behind the beginning.
        seen = [*beginning, *ids[max(size, reached - window + size) : reached]]
        table = log_softmax_of(model, seen)
        expected += [-table[place - 1, seen[place]].item() for place in range(len(seen) - (reached - end), len(seen))]
        end = reached
    found = [float(loss) for part in losses_of(decoder._step, ids, window, tokenizer) for loss in part]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@settings(max_examples=150)
@given(st.text(alphabet="ab ,.\n\u00e9\u4e2d\U0001f600th'", max_size=400), st.integers(1, 120))
@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte-level", "sentencepiece"])
def test_a_text_read_in_parts_has_the_tokens_of_the_whole(tokenizer, text, part):
    assert list(stream_ids(tokenizer, io.StringIO(text, newline=""), part)) == tokenizer.encode(text).ids


@pytest.mark.parametrize("part", [100, 1000, 5000])
def test_a_real_text_read_in_parts(part):
    tokenizer = byte_level_tokenizer(2000)
    tokenizer.post_processor = tokenizer_processors.TemplateProcessing(
        single="<s> $A <|end|>", special_tokens=[("<s>", 1), ("<|end|>", 2)]
    )
    text = texts.read_text("evaluation") + "\n\n" + texts.read_text("calibration")
    expected = tokenizer.encode(text).ids
    assert list(stream_ids(tokenizer, io.StringIO(text, newline=""), part)) == expected
    assert expected[0] == 1 and expected[-1] == 2


def test_a_text_read_in_parts_is_never_tokenized_whole():
    class Watched:
        """A tokenizer, and the most characters that it was given at a time."""

        inner, most = byte_level_tokenizer(2000), 0

        def encode(self, text, **options):
            self.most = max(self.most, len(text))
            return self.inner.encode(text, **options)

    tokenizer, text = Watched(), texts.read_text("evaluation")
    assert len(text) > 4000
    assert len(list(stream_ids(tokenizer, io.StringIO(text), 500))) > 1000
    # A part, and a quarter of as many as two that were not joined.
    assert tokenizer.most <= 1000
