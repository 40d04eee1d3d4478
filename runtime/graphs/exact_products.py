"""Has ONNX Runtime add products of 8-bit numbers exactly on every processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triform.runtime.machine.processor import instructions

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

# Instructions that add such products in 32 bits, as Linux spells them.
_EXACT = frozenset({"avx512_vnni", "avx_vnni"})


def make_products_exact(settings: SessionOptions) -> None:
    """Ask for exact sums where the processor has no instructions for them, or the system does not say.

    Without VNNI, x86 processors add such products in 16 bits, where sums saturate. With this entry ONNX Runtime stores
    signed weights as unsigned ones there, whose products are exact and about 10 % slower. It takes a processor with AMX
    for one of these too (1.32: it compares the code for signed weights with that for unsigned ones), and products then
    take five times as long, because only signed weights have code for AMX.

    Args:
        settings: changed in place. Their graph optimization level must be at least extended, as it is by default.
    """
    if _EXACT.isdisjoint(instructions()):
        settings.add_session_config_entry("session.x64quantprecision", "1")
