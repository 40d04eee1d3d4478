"""Verifies a decoder: the float graph against PyTorch, the quantized graph against the float graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from triform.export.runners import Chunk, DecoderRunner, FedDecoder, Feeding, RaggedDecoder, Result, fed
from triform.export.samples.batches import Array
from triform.models.decoder.hidden_states import LAST_HIDDEN_STATE
from triform.models.errors import first_line
from triform.runtime.bundle.export_record import Parity, QuantizedParity
from triform.runtime.errors import ExportError, option

# Float32 sums in another order differ by about 1e-6 of the largest term per product, and dozens of layers add up.
RELATIVE_TOLERANCE = 5e-4
_CHUNK = 128
_RAGGED_STEPS = 6
# The place among `parity_feedings` of the one that feeds chunks.
_CHUNKED = 1


def reference_logits(model: PreTrainedModel, ids: list[int]) -> Array:
    """PyTorch's logits, float32 (len(ids), vocab_size), computed with transformers' eager attention.

    Raises:
        ExportError: the model itself cannot read a text, as with a config that asks for more experts than there are.
    """
    logits: Array = _read(model, ids).logits[0].float().numpy()
    return logits


def reference_states(model: PreTrainedModel, ids: list[int]) -> Array:
    """PyTorch's last hidden states, float32 (len(ids), hidden_size). Errors as `reference_logits`."""
    states: Array = _read(model, ids, output_hidden_states=True).hidden_states[-1][0].float().numpy()
    return states


def _read(model: PreTrainedModel, ids: list[int], **settings: bool) -> Any:
    try:
        with eager_attention(model):
            return model(input_ids=torch.tensor([ids]), use_cache=False, **settings)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise ExportError(
            f"transformers' own model does not read a text of {len(ids)} tokens: {first_line(error)}; "
            "correct its config, or fetch the model again"
        ) from error


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


def verify_rows(runner: FedDecoder, expected: Array, ids: list[int]) -> None:
    """Feed all of `ids` but the last, then this one, and compare with PyTorch's logits.

    For a graph that differs from a verified one in its products alone: they see many rows at once, and one.

    Args:
        runner: the graph.
        expected: float32 (len(ids), vocab_size), from `reference_logits`.
        ids: at least two token ids.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    sizes = [len(ids) - 1, 1]
    difference = _difference(fed(runner, [_in_chunks(ids, sizes)]), expected, sizes)
    _check_difference("logits with the blocks of the file", difference, RELATIVE_TOLERANCE * _scale(expected))


def decoder_parity(runner: RaggedDecoder, expected: Array, ids: list[int]) -> Parity:
    """Measure the differences that `verify_decoder` checks, however large they are."""
    return parity_of(fed(runner, parity_feedings(ids)), expected, ids)


def parity_feedings(ids: list[int]) -> list[Feeding]:
    """A text in four ways: at once, in chunks, in single steps at its end, and as two rows of different lengths."""
    return [_in_chunks(ids, sizes) for sizes in _sizes(len(ids))] + [_ragged(ids)]


def unshared_feedings(ids: list[int]) -> list[Feeding]:
    """Those of `parity_feedings` that are not part of a `shared_feeding`."""
    feedings = parity_feedings(ids)
    return feedings[:_CHUNKED] + feedings[_CHUNKED + 1 :]


def _sizes(count: int) -> list[list[int]]:
    third = count // 3
    return [[count], [third, 1, 7, count - third - 8], [count - 8, *[1] * 8]]


def _in_chunks(ids: list[int], sizes: list[int]) -> Feeding:
    ends = list(itertools.accumulate(sizes))
    chunks = [
        Chunk(np.array([ids[end - size : end]]), np.arange(size)[None]) for size, end in zip(sizes, ends, strict=True)
    ]
    return Feeding(1, len(ids), tuple(chunks))


def _ragged(ids: list[int]) -> Feeding:
    """Two rows of the same text in one batch, the second shorter: a padded prefill, then single steps."""
    long, short = _ragged_lengths(len(ids))
    rows = np.array([ids[:long], [*ids[:short], *[0] * (long - short)]])
    first = Chunk(rows, np.array([[long - 1], [short - 1]]), np.array([long, short]))
    steps = [
        Chunk(np.array([[ids[long + step]], [ids[short + step]]]), np.zeros((2, 1), np.int64), np.array([1, 1]))
        for step in range(_RAGGED_STEPS)
    ]
    return Feeding(2, long + _RAGGED_STEPS, (first, *steps))


def _ragged_lengths(count: int) -> tuple[int, int]:
    return count // 2, count // 3


def parity_of(results: Iterator[Result], expected: Array, ids: list[int]) -> Parity:
    """Measure the differences from PyTorch's logits.

    Args:
        results: of `parity_feedings`; what follows them is left.
        expected: float32 (len(ids), vocab_size).
        ids: the text.
    """
    scale = _scale(expected)
    prefill, chunked, step = (_difference(results, expected, sizes) for sizes in _sizes(len(ids)))
    return Parity(
        prefill=prefill,
        chunked=chunked,
        step=step,
        ragged=_ragged_difference(results, expected, len(ids)),
        scale=scale,
        tolerance=RELATIVE_TOLERANCE * scale,
    )


def check_parity(parity: Parity) -> None:
    """Raise when any difference exceeds the tolerance.

    Raises:
        ExportError: a difference is too large; names the way of feeding, and by how much.
    """
    for name in ("prefill", "chunked", "step", "ragged"):
        _check_difference(f"{name} logits", getattr(parity, name), parity.tolerance)


def _check_difference(what: str, difference: float, allowed: float) -> None:
    # Written so that NaN fails too.
    if not difference <= allowed:
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: {what} differ by {difference:.2g} "
            f"(allowed {allowed:.2g}); please report this model"
        )


def _scale(logits: Array) -> float:
    return float(np.abs(logits).max())


def _difference(results: Iterator[Result], expected: Array, sizes: list[int]) -> float:
    done, worst = 0, 0.0
    for size in sizes:
        worst = _worst(worst, next(results)[0][0] - expected[done : done + size])
        done += size
    return worst


def _ragged_difference(results: Iterator[Result], expected: Array, count: int) -> float:
    worst = 0.0
    for step in range(_RAGGED_STEPS + 1):
        logits, _ = next(results)
        for row, length in enumerate(_ragged_lengths(count)):
            worst = _worst(worst, logits[row, 0] - expected[length + step - 1])
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
        targets = torch.tensor([*piece[1:], 0])[:, None]
        of_piece = []
        results = (torch.from_numpy(logits[0]) for logits, _ in fed(quantized, [logits_feeding(piece)]))
        # A chunk at a time, because the tables of a large vocabulary take much memory.
        for rows in zip(_rows(original(piece)), results, _rows(targets), strict=True):
            # torch, because numpy takes the exponential of a large vocabulary on one core.
            expected, actual = (logits.log_softmax(-1) for logits in rows[:2])
            agreements.append((expected.argmax(-1) == actual.argmax(-1)).numpy())
            divergences.append(torch.nn.functional.kl_div(actual, expected, reduction="none", log_target=True).sum(-1))
            of_piece.append([-table.gather(-1, rows[2])[:, 0].numpy() for table in (expected, actual)])
        # Nothing follows the last token.
        losses.append([np.concatenate(parts)[:-1] for parts in zip(*of_piece, strict=True)])
    original_losses, quantized_losses = (np.concatenate(parts) for parts in zip(*losses, strict=True))
    return QuantizedParity(
        top1_agreement=float(np.concatenate(agreements).mean()),
        # Rounding can make the sum of equal distributions negative.
        mean_kl=max(0.0, float(np.concatenate(divergences).mean())),
        perplexity_original=float(np.exp(original_losses.mean())),
        perplexity_quantized=float(np.exp(quantized_losses.mean())),
        tokens=len(original_losses),
    )


def _rows(table: Array | torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.as_tensor(table).split(_CHUNK)


def all_logits(runner: FedDecoder, ids: list[int]) -> Array:
    """Logits of every position, float32 (len(ids), vocab_size), fed in chunks."""
    feeding = logits_feeding(ids)
    return logits_of(fed(runner, [feeding]), feeding)


def logits_feeding(ids: list[int]) -> Feeding:
    """A text in chunks, with the logits of every position."""
    sizes = [len(ids[start : start + _CHUNK]) for start in range(0, len(ids), _CHUNK)]
    return _in_chunks(ids, sizes)


def shared_feeding(ids: list[int], count: int) -> Feeding:
    """A text as `logits_feeding`, but that its first `count` tokens are fed as `parity_feedings` feeds chunks.

    `chunked_results` gives what parity is measured on, so that these tokens need not be fed twice.
    """
    sizes = _sizes(count)[_CHUNKED]
    rest = [min(_CHUNK, len(ids) - start) for start in range(count, len(ids), _CHUNK)]
    return _in_chunks(ids, [*sizes, *rest])


def chunked_results(logits: Array) -> Iterator[Result]:
    """What feeding chunks gives for the beginning of a text, of its logits, float32 (tokens, vocab_size)."""
    start = 0
    for size in _sizes(len(logits))[_CHUNKED]:
        yield logits[None, start : start + size], {}
        start += size


def logits_of(results: Iterator[Result], feeding: Feeding) -> Array:
    """Logits of every position, float32 (tokens, vocab_size).

    Args:
        results: of `feeding`; what follows them is left.
        feeding: from `logits_feeding`.
    """
    return np.concatenate([next(results)[0][0] for _ in feeding.chunks])


def states_feeding(ids: list[int]) -> Feeding:
    """A text in several runs, for its hidden states."""
    feeding = _in_chunks(ids, [len(ids) - 10, 1, 9])
    return Feeding(1, len(ids), tuple(Chunk(chunk.input_ids, np.zeros((1, 1))) for chunk in feeding.chunks))


def verify_states(runner: DecoderRunner, expected: Array, ids: list[int]) -> None:
    """Feed `ids` in several runs and compare every token's hidden state with PyTorch's.

    Args:
        runner: the float graph.
        expected: from `reference_states`.
        ids: at least 16 token ids.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    check_states(fed(runner, [states_feeding(ids)]), expected)


def check_states(results: Iterator[Result], expected: Array) -> None:
    """Compare every token's hidden state with PyTorch's.

    Args:
        results: of `states_feeding`; what follows them is left.
        expected: from `reference_states`.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    states = np.concatenate([next(results)[1][LAST_HIDDEN_STATE][0] for _ in range(3)])
    difference = float(np.abs(states - expected).max())
    allowed = RELATIVE_TOLERANCE * float(np.abs(expected).max())
    # Written so that NaN fails too.
    if not difference <= allowed:
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: hidden states differ by {difference:.2g} "
            f"(allowed {allowed:.2g}); export without {option('hidden_states')}, and please report this model"
        )
