"""Decoders with states of fixed size: every loop writes the tokens that transformers' `generate` writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import triform
from tests.checkpoints.wandering import wandering_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import InputError
from triform.runtime.generation.shifting import ShiftingStep
from triform.runtime.graphs.decoding import step as decoder_step

# A convolution alone; one with a delta rule or a state space, beside attention or without any.
FAMILIES = ("lfm2", "qwen3_5_text", "falcon_h1", "mamba2")
RULES = "You are the keeper of a small lighthouse and answer every question about the sea briefly. "
QUESTIONS = ("How deep is it?", "Is the harbor old?", "Can you see ships?", "Name one.")
EOS = 2


class Subject:
    """A checkpoint that does not repeat itself, and its float bundle."""

    def __init__(self, folder, family):
        self.checkpoint, self.bundle = wandering_folder(folder / "checkpoint", family), folder / "bundle"
        export(
            str(self.checkpoint), self.bundle, ExportOptions(quantize="none", hidden_states=True, context_length=320)
        )
        self.model = AutoModelForCausalLM.from_pretrained(self.checkpoint).eval()
        self.decoder = triform.load_decoder(self.bundle, threads=1)

    def ids(self, text):
        return self.decoder._prompts.text_ids(text)

    def expected(self, text, count, **settings):
        """What transformers' `generate` adds to a text."""
        ids = torch.tensor([self.ids(text)])
        settings = {"do_sample": False, "pad_token_id": 0, **settings}
        output = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, **settings)
        return tuple(output[0, ids.shape[1] :].tolist())

    def after(self, ids):
        with torch.no_grad():
            return self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request, tmp_path_factory):
    return Subject(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(decoder_step, "CHUNK", 24)


@pytest.fixture
def decoder(subject):
    subject.decoder.forget()
    return subject.decoder


def greedy(count):
    return triform.GenerationOptions(max_new_tokens=count, temperature=0)


def same(found, expected):
    assert np.abs(found - expected).max() < 5e-4 * np.abs(expected).max()


@pytest.mark.parametrize("text", ["A", "How", QUESTIONS[0], RULES * 3])
def test_prompts_shorter_and_longer_than_a_chunk(subject, decoder, text):
    assert decoder.generate(text, greedy(20), raw=True).token_ids == subject.expected(text, 20)


def test_tokens_differ_from_one_another(subject, decoder):
    assert len(set(decoder.generate(RULES, greedy(20), raw=True).token_ids)) > 5


def test_rows_join_and_leave(subject, decoder):
    prompts = [RULES + QUESTIONS[0], "A", RULES * 2, RULES + QUESTIONS[1], QUESTIONS[2], RULES + QUESTIONS[3], "Why?"]
    # The model's own likely tokens end some rows early.
    ends = subject.expected(prompts[0], 3)[-1]
    options = triform.GenerationOptions(max_new_tokens=14, temperature=0, stop_token=(ends,))
    answers = [written[0].token_ids for written in decoder.generate_all(prompts, options, batch=3, raw=True)]
    assert answers == [subject.expected(text, 14, eos_token_id=[EOS, ends]) for text in prompts]
    assert len({len(answer) for answer in answers}) > 1


def test_beams(subject, decoder):
    for text in (QUESTIONS[0], RULES):
        found = decoder.generate(text, greedy(9), beams=triform.Beams(num_beams=3), raw=True)
        assert found.token_ids == subject.expected(text, 9, num_beams=3)


def test_several_beam_searches_in_a_batch(subject, decoder):
    answers = decoder.generate_all(QUESTIONS, greedy(7), beams=triform.Beams(num_beams=2), batch=2, raw=True)
    assert [each[0].token_ids for each in answers] == [subject.expected(text, 7, num_beams=2) for text in QUESTIONS]


def test_a_shared_beginning_is_read_once_two_prompts_have_it(subject, decoder):
    cached = []
    for question in QUESTIONS:
        found = decoder.generate(RULES + question, greedy(6), raw=True)
        assert found.token_ids == subject.expected(RULES + question, 6)
        cached.append(found.cached_tokens)
    ids = [subject.ids(RULES + question) for question in QUESTIONS]
    common = next(place for place, (a, b) in enumerate(zip(*ids[:2], strict=False)) if a != b)
    kept = common - common % 2
    assert cached == [0, 0, kept, kept]


def test_the_same_prompt_and_longer_ones(subject, decoder):
    first = decoder.generate(RULES, greedy(8), raw=True)
    again = decoder.generate(RULES, greedy(8), raw=True)
    assert again.token_ids == first.token_ids == subject.expected(RULES, 8)
    length = len(subject.ids(RULES))
    assert again.cached_tokens == (length - 2) // 2 * 2
    # All that was read and written: the last token of an answer is not.
    ids = [*subject.ids(RULES), *first.token_ids, 9, 8, 7]
    assert decoder._step.shared(ids) == length + 7
    same(decoder._step.prefill(ids), subject.after(ids))


def test_what_is_held_whole_is_read_again_for_its_logits(subject, decoder):
    """As after an answer of one token, which is never read itself."""
    ids = subject.ids(RULES)
    for _ in range(3):
        same(decoder._step.prefill(ids), subject.after(ids))


def test_what_was_read_last_is_not_taken_for_another_beginning(subject, decoder):
    step, generator = decoder._step, np.random.default_rng(3)
    ids = generator.integers(6, 400, 50).tolist()
    step.prefill(ids)
    for kept in (49, 48, 30, 3, 40, 0, 12):
        ids = [*ids[:kept], *generator.integers(6, 400, 50 - kept).tolist()]
        same(step.prefill(ids), subject.after(ids))
        same(step.next(7), subject.after([*ids, 7]))


def test_a_conversation_equals_its_whole_prompt(subject, decoder):
    chat, whole = (
        triform.Conversation(decoder, system=RULES, options=greedy(8)),
        triform.load_decoder(subject.bundle, threads=1),
    )
    for question in QUESTIONS:
        found = chat.send(question)
        messages = chat.messages[:-1]
        whole.forget()
        assert found.token_ids == whole.generate(messages, greedy(8)).token_ids
    chat.undo()
    chat.undo()
    found = chat.send("And at night?")
    whole.forget()
    assert found.token_ids == whole.generate(chat.messages[:-1], greedy(8)).token_ids


def test_a_prompt_cache_on_disk(subject, decoder, tmp_path):
    file = tmp_path / "rules.cache"
    first = decoder.generate(RULES + QUESTIONS[0], greedy(8), raw=True)
    decoder.save_prompt_cache(file, first.prompt_tokens)
    other = triform.load_decoder(subject.bundle, threads=1)
    count = other.load_prompt_cache(file)
    assert count == (first.prompt_tokens - 2) // 2 * 2
    for text in (RULES + QUESTIONS[0], RULES + QUESTIONS[0] + " And who sails?", RULES + QUESTIONS[1]):
        other.load_prompt_cache(file)
        found = other.generate(text, greedy(8), raw=True)
        assert found.token_ids == subject.expected(text, 8)
        assert found.cached_tokens == (0 if text.endswith(QUESTIONS[1]) else count)


def test_a_prompt_of_one_token_is_kept_whole(subject, decoder, tmp_path):
    found = decoder.generate("A", greedy(4), raw=True)
    decoder.save_prompt_cache(tmp_path / "short.cache", found.prompt_tokens)
    other = triform.load_decoder(subject.bundle, threads=1)
    assert other.load_prompt_cache(tmp_path / "short.cache") == 1
    text = "A ship."
    found = other.generate(text, greedy(6), raw=True)
    assert (found.token_ids, found.cached_tokens) == (subject.expected(text, 6), 1)


def test_contrastive_search(subject, decoder):
    """Against the formula of the paper, by transformers on the whole text each time."""
    ids, expected = list(subject.ids(QUESTIONS[0])), []
    for _ in range(8):
        probabilities, tokens = torch.tensor(subject.after(ids)).softmax(-1).topk(3)
        scores = []
        for probability, token in zip(probabilities, tokens.tolist(), strict=True):
            with torch.no_grad():
                output = subject.model(torch.tensor([[*ids, token]]), output_hidden_states=True, use_cache=False)
            states = output.hidden_states[-1][0]
            resemblance = torch.nn.functional.cosine_similarity(states[-1:], states[:-1]).max()
            scores.append(float(0.5 * probability - 0.5 * resemblance))
        expected.append(int(tokens[int(np.argmax(scores))]))
        ids.append(expected[-1])
    options = triform.GenerationOptions(penalty_alpha=0.5, top_k=3, max_new_tokens=8)
    assert list(decoder.generate(QUESTIONS[0], options, raw=True).token_ids) == expected


def test_probabilities_of_a_text(subject, decoder):
    ids = subject.ids(RULES)
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    same(decoder.logits(RULES), logits.numpy())
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).exp()
    assert decoder.perplexity(RULES) == pytest.approx(float(expected), rel=1e-3)


def test_a_context_that_shifts(subject, decoder):
    """A context of 16: when it is full, the first tokens stay and half of the rest."""
    context, keep = 16, 3
    ids = np.random.default_rng(0).integers(6, 400, 34).tolist()
    step = ShiftingStep(decoder._step, context, keep)
    held, found = ids[:10], step.prefill(ids[:10])
    for token in ids[10:]:
        same(found, subject.after(held))
        held = [*held, token]
        if len(held) > context:
            held = held[:keep] + held[-((context - keep) // 2) :]
        found = step.next(token)


def test_a_run_that_fails_leaves_nothing_behind(subject, decoder, monkeypatch):
    original = decoder_step.run_step

    def failing(session, binding):
        original(session, binding)
        raise InputError("the memory is full")

    decoder.generate(RULES, greedy(4), raw=True)
    monkeypatch.setattr(decoder_step, "run_step", failing)
    with pytest.raises(InputError, match="the memory is full"):
        decoder.generate(RULES + QUESTIONS[0], greedy(4), raw=True)
    monkeypatch.setattr(decoder_step, "run_step", original)
    text = RULES + QUESTIONS[0]
    found = decoder.generate(text, greedy(8), raw=True)
    assert (found.token_ids, found.cached_tokens) == (subject.expected(text, 8), 0)


def test_what_removes_tokens_is_refused(subject, decoder, float_bundle):
    with pytest.raises(InputError, match="lookup tries tokens that may have to be removed, which a model with"):
        decoder.generate("A", triform.GenerationOptions(speculate="lookup", max_new_tokens=2), raw=True)
    with pytest.raises(InputError, match="this model cannot use a draft: it has states of fixed size"):
        decoder.use_draft(triform.load_decoder(subject.bundle, threads=1))


# Mean divergence from PyTorch in nats, about twice what was measured.
@pytest.mark.parametrize(("scheme", "divergence"), [("int8", 1e-3), ("int4", 0.1)])
def test_quantized_weights(tmp_path, scheme, divergence):
    """A family with a recurrence, whose projections are quantized and whose states are not."""
    checkpoint = wandering_folder(tmp_path / "checkpoint", "falcon_h1")
    export(str(checkpoint), tmp_path / "bundle", ExportOptions(quantize=scheme, block_size=32))
    decoder = triform.load_decoder(tmp_path / "bundle", threads=1)
    ids = torch.tensor([decoder._prompts.text_ids(RULES)])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(checkpoint)(input_ids=ids, use_cache=False).logits[0]
    found = torch.from_numpy(decoder.logits(RULES)).log_softmax(-1)
    difference = torch.nn.functional.kl_div(found, expected.log_softmax(-1), reduction="batchmean", log_target=True)
    assert float(difference) < divergence
    steps = [decoder._step.prefill(ids[0, :9].tolist())] + [
        decoder._step.next(token) for token in ids[0, 9:20].tolist()
    ]
    assert len(steps) == 12 and all(np.isfinite(logits).all() for logits in steps)


def test_the_manifest_describes_the_states(subject, decoder, float_bundle):
    assert (decoder.manifest.schema_version, triform.load(float_bundle).manifest.schema_version) == (3, 2)
    cache = decoder.manifest.cache
    decoder.generate("A", greedy(1), raw=True)
    assert {name: array.shape[1:] for name, array in decoder._step.cache.buffers.states.items()} == {
        f"states.{index}": tuple(state.shape) for index, state in enumerate(cache.states)
    }
