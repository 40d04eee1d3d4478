"""Whether what was measured now is what the export measured: if not, the checkpoint is another."""

from __future__ import annotations

import math

from triform.export.verify.worst import worst_difference
from triform.runtime.bundle.export_record import EncoderParity, Parity, QuantizedEncoderParity, QuantizedParity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.errors import ExportError

# By how much the loss of a quantized graph may grow: other processors round in another way, and an export may have
# measured fewer tokens.
_GROWTH, _SLACK = 3.0, 1e-3
# Of a perplexity of PyTorch's model itself, for the same tokens.
_SAME_PERPLEXITY = 2e-3


def check_float_bundle(parity: Parity | EncoderParity, bundle: Bundle, source: str) -> None:
    """Check that a float bundle computes what its source does.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    worst = worst_difference(parity)
    # Written so that NaN fails.
    if not worst <= parity.tolerance:
        raise _another(bundle, source, f"outputs differ by {worst:.2g}, and {parity.tolerance:.2g} is allowed")


def check_as_recorded(measured: QuantizedParity | QuantizedEncoderParity, bundle: Bundle, source: str) -> None:
    """Check that a quantized bundle is as close to its source as it was to PyTorch when it was made.

    A bundle that was imported without a comparison has no such record, and is not checked.

    Raises:
        ExportError: it is farther away, or what the source predicts is not what the original predicted.
    """
    export = bundle.manifest.export
    parity = export.parity if isinstance(measured, QuantizedParity) else export.encoder_parity
    recorded = None if parity is None else parity.quantized
    if recorded is not None:
        _check_close(measured, recorded, bundle, source)


def check_prompts_as_recorded(measured: QuantizedParity, bundle: Bundle, source: str) -> None:
    """The same of a decoder's graph for long prompts."""
    parity = bundle.manifest.export.parity
    if parity is not None and parity.prompts is not None:
        _check_close(measured, parity.prompts, bundle, source)


def _check_close(
    measured: QuantizedParity | QuantizedEncoderParity,
    recorded: QuantizedParity | QuantizedEncoderParity,
    bundle: Bundle,
    source: str,
) -> None:
    for name, now, before in _losses(measured, recorded):
        # Written so that NaN fails.
        if not now <= _GROWTH * before + _SLACK:
            raise _another(bundle, source, f"{name} {now:.2g} ({before:.2g} when the bundle was made)")
    if isinstance(measured, QuantizedParity) and isinstance(recorded, QuantizedParity):
        now, before = measured.perplexity_original, recorded.perplexity_original
        if measured.tokens == recorded.tokens and not abs(now / before - 1) <= _SAME_PERPLEXITY:
            raise _another(bundle, source, f"its perplexity is {now:.5g}, and that of the original was {before:.5g}")


def _losses(
    measured: QuantizedParity | QuantizedEncoderParity, recorded: QuantizedParity | QuantizedEncoderParity
) -> list[tuple[str, float, float]]:
    """What quantization loses, in words, now and as recorded."""
    if isinstance(measured, QuantizedParity):
        return [("the divergence of predictions is", measured.mean_kl, getattr(recorded, "mean_kl", math.nan))]
    pairs = [("scores differ by", measured.score_mean, getattr(recorded, "score_mean", None))]
    if measured.cosine_mean is not None:
        before = getattr(recorded, "cosine_mean", None)
        pairs = [("1 - cosine of vectors is", 1 - measured.cosine_mean, None if before is None else 1 - before)]
    return [(name, now, math.nan if before is None else before) for name, now, before in pairs if now is not None]


def _another(bundle: Bundle, source: str, difference: str) -> ExportError:
    return ExportError(f"{source} is not what {bundle.folder} was made from: {difference}")
