"""Many threads and one decoder: each gets its own answer, or is told that the decoder is in use."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import triform
from triform import GenerationOptions

GREEDY = GenerationOptions(max_new_tokens=12, temperature=0)
PROMPTS = [f"{count} ships " * count for count in range(1, 9)]


@pytest.fixture(scope="module")
def expected(float_bundle):
    model = triform.load_decoder(float_bundle)
    return [model.generate(prompt, GREEDY).token_ids for prompt in PROMPTS]


def in_threads(work):
    """What `work` gives for each index of a prompt, all at once and three times over; None where it was refused."""
    begin = threading.Barrier(len(PROMPTS))

    def each(index):
        begin.wait()
        found = []
        for _ in range(3):
            try:
                found.append(work(index))
            except triform.InUseError:
                found.append(None)
        return found

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        return list(pool.map(each, range(len(PROMPTS))))


def test_a_decoder_in_use_refuses_and_never_mixes_answers(float_bundle, expected):
    model = triform.load_decoder(float_bundle)
    answers = in_threads(lambda index: model.generate(PROMPTS[index], GREEDY).token_ids)
    for right, found in zip(expected, answers, strict=True):
        assert all(answer in (right, None) for answer in found)
    assert model.generate(PROMPTS[0], GREEDY).token_ids == expected[0]


def test_a_shared_decoder_answers_everybody(float_bundle, expected):
    model = triform.load(float_bundle, shared=True)
    rows = [model.logits(prompt)[-1].tolist() for prompt in PROMPTS]

    def work(index):
        streamed = [piece.token_ids for piece in model.stream(PROMPTS[index], GREEDY)]
        assert [token for ids in streamed for token in ids] == list(expected[index])
        return model.logits(PROMPTS[index])[-1].tolist()

    assert in_threads(work) == [[row] * 3 for row in rows]


def test_batches_run_side_by_side(float_bundle, expected):
    model = triform.load_decoder(float_bundle)
    alone = [written[0].token_ids for written in model.generate_all(PROMPTS, GREEDY)]

    def work(index):
        (answer,) = model.generate_all([PROMPTS[index]], GREEDY)
        return answer[0].token_ids

    assert in_threads(work) == [[ids] * 3 for ids in alone]


def test_an_open_stream_holds_the_decoder(float_bundle):
    model = triform.load_decoder(float_bundle)
    stream = model.stream(PROMPTS[0], GREEDY)
    next(stream)
    with ThreadPoolExecutor(1) as other:
        for call in (model.forget, lambda: model.perplexity("a b"), lambda: model.score("a b")):
            with pytest.raises(triform.InUseError, match="in use by another thread"):
                other.submit(call).result()
        stream.close()
        other.submit(model.forget).result()


def test_a_draft_is_in_use_too(float_bundle):
    model, draft = triform.load_decoder(float_bundle), triform.load_decoder(float_bundle)
    model.use_draft(draft)
    stream = model.stream(PROMPTS[0], GREEDY)
    next(stream)
    with ThreadPoolExecutor(1) as other:
        with pytest.raises(triform.InUseError):
            other.submit(draft.forget).result()
        stream.close()
        other.submit(draft.forget).result()
