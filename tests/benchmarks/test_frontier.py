"""What the frontier of sizes and losses says, compared with PyTorch's own losses."""

import numpy as np
import pytest
import torch

from benchmarks.frontier import Loss, Point, differences, loss_of

TOKENS, VOCABULARY = 70, 11


def test_losses_are_those_of_pytorch():
    draw = np.random.default_rng(3)
    original, actual = draw.normal(0, 2, (2, TOKENS, VOCABULARY)).astype(np.float32)
    ids = draw.integers(0, VOCABULARY, TOKENS).tolist()
    windows = [slice(0, 67), slice(67, TOKENS)]
    parts = [differences(original[window], actual[window], ids[window]) for window in windows]
    scored = [index for index in range(TOKENS) if index not in (66, 69)]
    first, second = (torch.from_numpy(table[scored]).double() for table in (original, actual))
    targets = torch.tensor(ids)[[index + 1 for index in scored]]
    kl = torch.nn.functional.kl_div(second.log_softmax(-1), first.log_softmax(-1), log_target=True, reduction="none")
    losses = [torch.nn.functional.cross_entropy(table, targets) for table in (first, second)]
    loss = loss_of(parts)
    assert loss.kl == pytest.approx(float(kl.sum(-1).mean()), rel=1e-9)
    assert loss.growth == pytest.approx(float((losses[1] - losses[0]).exp() - 1), rel=1e-9)


def test_other_texts_are_those_beside_the_evaluation_text():
    losses = {"evaluation": Loss(9.0, 9.0), "de": Loss(0.25, 0.5), "code": Loss(0.75, 0.125)}
    assert Point("Triform", "int4", 1, losses).others == Loss(0.5, 0.3125)
