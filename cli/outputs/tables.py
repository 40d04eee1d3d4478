"""Formats tables and numbers for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triform.runtime.bundle.export_record import EncoderParity, EndToken, Parity


def rows(pairs: Iterable[tuple[str, str]]) -> str:
    """Two aligned columns."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in listed)


def megabytes(size: int) -> str:
    """Bytes as decimal megabytes."""
    return f"{size / 1e6:.1f} MB"


def end_tokens(tokens: Iterable[EndToken]) -> str:
    """The tokens that end an answer, each with the files that name it."""
    return ", ".join(f"{token.text} {token.id} ({', '.join(token.named_by)})" for token in tokens)


def parity_rows(parity: Parity) -> list[tuple[str, str]]:
    """The rows of a decoder's parity report."""
    differences = {name: getattr(parity, name) for name in ("prefill", "chunked", "step", "ragged")}
    lines = [
        (f"parity, {name}", f"{size:.1e} largest logit difference from PyTorch") for name, size in differences.items()
    ]
    lines += _allowed(differences.values(), parity.tolerance, f"largest logit {parity.scale:.1f}")
    if parity.quantized is not None:
        measured = parity.quantized
        lines += [
            ("top-1 agreement", f"{measured.top1_agreement:.1%} of {measured.tokens} tokens"),
            ("mean KL", f"{measured.mean_kl:.4f} nats"),
            ("perplexity", f"{measured.perplexity_original:.2f} before, {measured.perplexity_quantized:.2f} quantized"),
        ]
        if measured.word_errors is not None:
            lines.append(("words changed", f"{measured.word_errors:.2%} of {measured.words} that float32 writes"))
    if parity.prompts is not None:
        of_prompts = f"{parity.prompts.mean_kl:.4f} nats mean KL, perplexity {parity.prompts.perplexity_quantized:.2f}"
        lines.append(("long prompts", of_prompts))
    return lines


def encoder_parity_rows(parity: EncoderParity) -> list[tuple[str, str]]:
    """The rows of an encoder's parity report."""
    differences = {name: getattr(parity, name) for name in ("batch", "single")}
    lines = [(f"parity, {name}", f"{size:.1e} largest difference from PyTorch") for name, size in differences.items()]
    lines += _allowed(differences.values(), parity.tolerance, f"largest output {parity.scale:.1f}")
    if parity.quantized is not None:
        measured = parity.quantized
        rest = f"worst of {measured.rows} texts or images"
        if measured.cosine_mean is not None:
            lines.append(("cosine to float32", f"{measured.cosine_mean:.5f} mean, {measured.cosine_worst:.5f} {rest}"))
        if measured.score_mean is not None:
            lines.append(("scores off by", f"{measured.score_mean:.5f} mean, {measured.score_worst:.5f} {rest}"))
        if measured.token_errors is not None:
            lines.append(("tokens changed", f"{measured.token_errors:.2%} of those that float32 writes"))
    return lines


def _allowed(differences: Iterable[float], tolerance: float, of: str) -> list[tuple[str, str]]:
    """What float graphs are held to; a quantized one that differs by more is held to what its export measured."""
    return [("allowed", f"{tolerance:.1e} ({of})")] if max(differences) <= tolerance else []
