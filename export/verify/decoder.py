"""Verifies a decoder: the float graph against PyTorch, the quantized graph against the float graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from triform.export.runners import DecoderRunner, FedDecoder, RaggedDecoder
from triform.export.samples.batches import Array
from triform.models.decoder.hidden_states import LAST_HIDDEN_STATE
from triform.runtime.bundle.export_record import Parity, QuantizedParity
from triform.runtime.errors import ExportError, option

# Float32 sums in another order differ by about 1e-6 of the largest term per product, and dozens of layers add up.
RELATIVE_TOLERANCE = 5e-4
_CHUNK = 128


def reference_logits(model: PreTrainedModel, ids: list[int]) -> Array:
    """PyTorch's logits, float32 (len(ids), vocab_size), computed with transformers' eager attention."""
    with eager_attention(model):
        logits: Array = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    return logits


def reference_states(model: PreTrainedModel, ids: list[int]) -> Array:
    """PyTorch's last hidden states, float32 (len(ids), hidden_size), computed with transformers' eager attention."""
    with eager_attention(model):
        outputs = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    states: Array = outputs.hidden_states[-1][0].float().numpy()
    return states


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model compute as transformers does, outside of a trace and without gradients."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            yield
    finally:
        model.set_attn_implementation(implementation)


def verify_decoder(runner: RaggedDecoder, expected: Array, ids: list[int]) -> Parity:
    """Feed `ids` in four ways and compare each with PyTorch's logits.

    Args:
        runner: the float graph.
        expected: float32 (len(ids), vocab_size), from `reference_logits`.
        ids: at least 16 token ids.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    parity = decoder_parity(runner, expected, ids)
    check_parity(parity)
    return parity


def decoder_parity(runner: RaggedDecoder, expected: Array, ids: list[int]) -> Parity:
    """Measure the differences that `verify_decoder` checks, however large they are."""
    scale = float(np.abs(expected).max())
    third = len(ids) // 3
    return Parity(
        prefill=_difference(runner, expected, ids, [len(ids)]),
        chunked=_difference(runner, expected, ids, [third, 1, 7, len(ids) - third - 8]),
        step=_difference(runner, expected, ids, [len(ids) - 8, *[1] * 8]),
        ragged=_ragged_difference(runner, expected, ids),
        scale=scale,
        tolerance=RELATIVE_TOLERANCE * scale,
    )


def check_parity(parity: Parity) -> None:
    """Raise when any difference exceeds the tolerance.

    Raises:
        ExportError: a difference is too large; names the way of feeding, and by how much.
    """
    for name in ("prefill", "chunked", "step", "ragged"):
        difference = getattr(parity, name)
        # Written so that NaN fails too.
        if not difference <= parity.tolerance:
            raise ExportError(
                f"the exported graph does not compute what PyTorch does: {name} logits differ by {difference:.2g} "
                f"(allowed {parity.tolerance:.2g}); please report this model"
            )


def _difference(runner: RaggedDecoder, expected: Array, ids: list[int], chunks: list[int]) -> float:
    runner.start(1, len(ids))
    done, worst = 0, 0.0
    for size in chunks:
        logits, _ = runner.feed(np.array([ids[done : done + size]]), np.arange(size)[None])
        worst = _worst(worst, logits[0] - expected[done : done + size])
        done += size
    return worst


def _ragged_difference(runner: RaggedDecoder, expected: Array, ids: list[int]) -> float:
    """Two rows of the same text in one batch, the second shorter: a padded prefill, then single steps."""
    long, short, steps = len(ids) // 2, len(ids) // 3, 6
    runner.start(2, long + steps)
    rows = np.array([ids[:long], [*ids[:short], *[0] * (long - short)]])
    worst, sizes = 0.0, np.array([long, short])
    for _ in range(steps + 1):
        logits, _ = runner.feed(rows, (sizes - 1)[:, None], sizes)
        for row, end in enumerate(runner.lengths):
            worst = _worst(worst, logits[row, 0] - expected[end - 1])
        rows, sizes = np.array([[ids[end]] for end in runner.lengths]), np.array([1, 1])
    return worst


def _worst(worst: float, difference: Array) -> float:
    # np.maximum and not max(), which can lose a NaN.
    return float(np.maximum(worst, np.abs(difference).max()))


def quantized_decoder_parity(
    original: Callable[[list[int]], Array], quantized: FedDecoder, ids: list[int], window: int
) -> QuantizedParity:
    """Compare a quantized graph's predictions with the original's.

    Args:
        original: from token ids to logits, float32 (tokens, vocab_size).
        quantized: the graph to measure.
        ids: a text, read in windows; each starts with an empty cache.
        window: tokens per window.
    """
    agreements, divergences, losses = [], [], []
    for start in range(0, len(ids), window):
        piece = ids[start : start + window]
        if len(piece) < 2:
            continue
        # torch, because numpy takes the exponential of a large vocabulary on one core.
        expected, actual = (
            torch.from_numpy(logits).log_softmax(-1) for logits in (original(piece), all_logits(quantized, piece))
        )
        agreements.append((expected.argmax(-1) == actual.argmax(-1)).numpy())
        divergences.append(torch.nn.functional.kl_div(actual, expected, reduction="none", log_target=True).sum(-1))
        targets = torch.tensor(piece[1:])[:, None]
        losses.append([-table[:-1].gather(-1, targets)[:, 0].numpy() for table in (expected, actual)])
    original_losses, quantized_losses = (np.concatenate(parts) for parts in zip(*losses, strict=True))
    return QuantizedParity(
        top1_agreement=float(np.concatenate(agreements).mean()),
        # Rounding can make the sum of equal distributions negative.
        mean_kl=max(0.0, float(np.concatenate(divergences).mean())),
        perplexity_original=float(np.exp(original_losses.mean())),
        perplexity_quantized=float(np.exp(quantized_losses.mean())),
        tokens=len(original_losses),
    )


def all_logits(runner: FedDecoder, ids: list[int]) -> Array:
    """Logits of every position, float32 (len(ids), vocab_size), fed in chunks."""
    runner.start(1, len(ids))
    parts = []
    for start in range(0, len(ids), _CHUNK):
        chunk = np.array([ids[start : start + _CHUNK]])
        parts.append(runner.feed(chunk, np.arange(chunk.shape[1])[None])[0][0])
    return np.concatenate(parts)


def verify_states(runner: DecoderRunner, expected: Array, ids: list[int]) -> None:
    """Feed `ids` in several runs and compare every token's hidden state with PyTorch's.

    Args:
        runner: the float graph.
        expected: from `reference_states`.
        ids: at least 16 token ids.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    runner.start(1, len(ids))
    parts, done = [], 0
    for size in (len(ids) - 10, 1, 9):
        _, extra = runner.feed(np.array([ids[done : done + size]]), np.zeros((1, 1)))
        parts.append(extra[LAST_HIDDEN_STATE][0])
        done += size
    difference = float(np.abs(np.concatenate(parts) - expected).max())
    allowed = RELATIVE_TOLERANCE * float(np.abs(expected).max())
    # Written so that NaN fails too.
    if not difference <= allowed:
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: hidden states differ by {difference:.2g} "
            f"(allowed {allowed:.2g}); export without {option('hidden_states')}, and please report this model"
        )
