"""Every encoder proves itself: the float graph against PyTorch, the quantized graph against the float one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from triform.runtime.errors import ExportError
from triform.runtime.manifest import EncoderParity, QuantizedEncoderParity

Array = NDArray[Any]
# One input of the model: its arrays by name, without the batch axis.
Sample = Mapping[str, Array]

# As for decoders; see verify.py.
_RELATIVE_TOLERANCE = 5e-4


class EncoderRunner:
    """An encoder graph fed and read through plain numpy. What verifies a graph does not share the runtime's code."""

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]
        # Those with an axis for tokens, of which a padded row has too many.
        self.ragged = {output.name for output in self._session.get_outputs() if output.shape[1:2] == ["sequence"]}

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Every output, by name."""
        found = self._session.run(self.outputs, dict(arrays))
        return dict(zip(self.outputs, found, strict=True))


def padded(samples: Sequence[Sample], pad: int) -> dict[str, Array]:
    """Samples as one batch: token rows padded on the right, everything else stacked."""
    batch = {}
    for name in samples[0]:
        longest = max(len(sample[name]) for sample in samples)
        fill = pad if name == "input_ids" else 0
        rows = []
        for sample in samples:
            row = sample[name]
            if row.ndim == 1:
                row = np.concatenate([row, np.full(longest - len(row), fill, row.dtype)])
            rows.append(row)
        batch[name] = np.stack(rows)
    return batch


def compare_with_reference(
    runner: EncoderRunner, names: Sequence[str], expected: Sequence[torch.Tensor], samples: Sequence[Sample], pad: int
) -> EncoderParity:
    """Run the samples as one batch and one by one, and compare each with PyTorch's outputs for the batch.

    Args:
        runner: a float graph.
        names: of the outputs.
        expected: what PyTorch gives for the padded batch, in the order of `names`.
        samples: at least two, of different lengths where there are tokens.
        pad: token id that pads.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    parity = measure(runner, names, expected, samples, pad)
    # Written so that NaN fails.
    if not (parity.batch <= parity.tolerance and parity.single <= parity.tolerance):
        raise ExportError(
            f"the graph does not match PyTorch: outputs differ by {max(parity.batch, parity.single):.2e}, allowed are "
            f"{parity.tolerance:.2e}; please report this model"
        )
    return parity


def measure(
    runner: EncoderRunner, names: Sequence[str], expected: Sequence[torch.Tensor], samples: Sequence[Sample], pad: int
) -> EncoderParity:
    """The differences of `compare_with_reference`, without judging them."""
    wanted = dict(zip(names, (tensor.float().numpy() for tensor in expected), strict=True))
    together = runner.run(padded(samples, pad))
    scale = max(float(np.abs(tensor).max()) for tensor in wanted.values())
    batch = single = 0.0
    for index, sample in enumerate(samples):
        alone = runner.run(padded([sample], pad))
        for name in names:
            length = len(sample["attention_mask"]) if name in runner.ragged else None
            row = wanted[name][index][:length]
            batch = _worst(batch, together[name][index][:length] - row)
            single = _worst(single, alone[name][0] - row)
    return EncoderParity(batch, single, scale, _RELATIVE_TOLERANCE * scale)


def compare_quantized(
    original: Callable[[Mapping[str, Array]], Array],
    quantized: EncoderRunner,
    name: str,
    samples: Sequence[Sample],
    pad: int,
) -> QuantizedEncoderParity:
    """Cosines of output `name`, each sample's flattened, between a quantized graph and what it came from.

    Args:
        original: called with the arrays of one sample, gives the output as it should be.
        quantized: the graph to judge.
        name: of its output.
        samples: the inputs, run one by one.
        pad: token id that pads.
    """
    cosines = []
    for sample in samples:
        arrays = padded([sample], pad)
        first, second = (found.ravel().astype(np.float64) for found in (original(arrays), quantized.run(arrays)[name]))
        lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
        cosines.append(float(first @ second) / max(lengths, 1e-30))
    return QuantizedEncoderParity(float(np.mean(cosines)), float(np.min(cosines)), len(cosines))


def _worst(worst: float, difference: Array) -> float:
    # np.maximum and not max(): a NaN must come through.
    return float(np.maximum(worst, np.abs(difference).max()))
