"""Losses of texts that are longer than a window, on a stand-in whose logits depend on all that it reads."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from triform.runtime.decoder import scoring
from triform.runtime.decoder.scoring import losses_of, perplexity, text_score, window_of
from triform.runtime.errors import InputError

VOCAB, START = 7, 6


def logits_after(ids):
    return np.random.default_rng([len(ids), *ids]).normal(size=VOCAB).astype(np.float32)


class Step:
    """Gives logits in chunks, of which the first is the shortest."""

    def __init__(self, logits=logits_after):
        self.logits, self.windows, self.resets = logits, [], 0
        self.cache = SimpleNamespace(reset=self._reset)

    def _reset(self):
        self.resets += 1

    def logits_in_chunks(self, ids):
        self.windows.append(list(ids))
        done, size = 0, 1
        while done < len(ids):
            end = min(done + size, len(ids))
            yield np.stack([self.logits(list(ids[: place + 1])) for place in range(done, end)])
            done, size = end, size + 20


def loss_after(context, token):
    return -float(torch.tensor(logits_after(context), dtype=torch.float64).log_softmax(0)[token])


def expected(ids, window, beginning):
    """Each token in the first window that has it; windows overlap by half, and begin with the special tokens."""
    found = [loss_after(ids[:place], ids[place]) for place in range(1, min(window, len(ids)))]
    end = window
    while end < len(ids):
        share = window - len(beginning)
        until = min(end + min(window // 2, share), len(ids))
        found += [loss_after(beginning + ids[until - share : place], ids[place]) for place in range(end, until)]
        end = until
    return found


@pytest.fixture
def beginning(monkeypatch, request):
    monkeypatch.setattr(scoring, "ids_around", lambda tokenizer: (request.param, []))
    return request.param


@pytest.mark.parametrize("beginning", [[], [START], [START, 0, START]], indirect=True)
@pytest.mark.parametrize("window", [2, 3, 5, 8, 40])
@pytest.mark.parametrize("length", [2, 3, 5, 9, 45])
def test_each_token_counts_once(beginning, window, length):
    if window < len(beginning) + 2:
        return
    ids = [*beginning, *np.random.default_rng(length).integers(0, START, length).tolist()]
    step = Step()
    parts = list(losses_of(step, iter(ids), window, None))
    assert np.concatenate(parts).tolist() == pytest.approx(expected(ids, window, beginning), abs=1e-5)
    assert step.resets == len(step.windows) and max(map(len, step.windows)) <= window
    found = perplexity(Step(), ids, window, None)
    mean = np.mean(expected(ids, window, beginning))
    assert found.tokens == len(ids)
    assert (found.loss, found.perplexity) == (pytest.approx(mean, abs=1e-5), pytest.approx(math.exp(mean), rel=1e-4))


@pytest.mark.parametrize("beginning", [[]], indirect=True)
@pytest.mark.parametrize("ids", [[], [3]])
def test_texts_without_a_second_token(beginning, ids):
    with pytest.raises(InputError, match=r"^perplexity needs a text of at least two tokens$"):
        perplexity(Step(), ids, 5, None)


@pytest.mark.parametrize("beginning", [[]], indirect=True)
@pytest.mark.parametrize("loss", [700.0, 720.0])
def test_the_exponential_of_a_large_loss(beginning, loss):
    """The other token is that much likelier; the largest float64 is about the exponential of 709.8."""
    step = Step(lambda ids: np.array([0.0, loss], np.float32))
    found = perplexity(step, [1, 0, 0], 5, None)
    assert (found.loss, found.perplexity) == (loss, math.exp(loss) if loss < 709 else math.inf)


@pytest.mark.parametrize("beginning", [[START]], indirect=True)
def test_the_windows_of_a_score(beginning):
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: f"{ids} {skip_special_tokens}")
    ids = [START, 1, 2, 3, 4, 5, 0, 1]
    for window, used in ((None, 6), (4, 4)):
        found = text_score(Step(), ids, window, 6, tokenizer)
        assert found.logprobs[1:] == pytest.approx([-loss for loss in expected(ids, used, beginning)], abs=1e-5)
        assert found.logprobs[0] is None and found.token_ids == tuple(ids)
        assert found.tokens[:2] == ("[6] False", "[1] False")
    assert text_score(Step(), [2], None, 6, tokenizer).logprobs == (None,)
    assert len(text_score(Step(), [2, 3], None, 6, tokenizer).logprobs) == 2


@pytest.mark.parametrize("beginning", [[START]], indirect=True)
def test_lengths_of_a_window(beginning):
    assert [window_of(window, 10, None) for window in (None, 3, 10)] == [10, 3, 10]
    for window in (2, 11):
        with pytest.raises(InputError, match=rf"^`window` must be from 3 to the model's 10 tokens, not {window}$"):
            window_of(window, 10, None)
