"""Which operators of a graph a provider leaves to the CPU, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triform.runtime.graphs.providers.names import CUDA, short_name

# Operators on shapes, which onnxruntime leaves to the CPU on purpose: they compute nothing that matters.
_ON_SHAPES = {"Cast", "Concat", "Gather", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Unsqueeze"}
_FOR_GPU = "export the model with `ExportOptions.target` gpu for it"
# Operators of bundles made for the CPU that a provider has no kernel for, and what to do.
_REMEDIES: Mapping[str, Mapping[str, str]] = {
    CUDA: {
        # In float32; it has some for float16.
        "GroupQueryAttention": _FOR_GPU,
        "MatMulIntegerToFloat": _FOR_GPU,
    },
}
_NO_QUANTIZED_PRODUCTS = "export the model with `ExportOptions.quantize` none for it"


@dataclass(frozen=True)
class Assignment:
    """Where the operators of a graph run.

    Attributes:
        operators: how many there are.
        left: those that the provider leaves to the CPU, by type.
    """

    operators: int
    left: Counter[str]

    @property
    def listed(self) -> str:
        """What is left to the CPU, the most frequent first: "24 MatMulIntegerToFloat, 2 Squeeze"."""
        return ", ".join(f"{count} {operator}" for operator, count in self.left.most_common())


def assignment(session: Any, provider: str) -> Assignment:
    """Where the operators of a session's graph run; the session was opened to record it."""
    placed = [
        (node.op_type, subgraph.ep_name)
        for subgraph in session.get_provider_graph_assignment_info()
        for node in subgraph.get_nodes()
    ]
    return Assignment(len(placed), Counter(operator for operator, name in placed if name != provider))


def fallback_note(assigned: Assignment, provider: str, graph: str) -> str | None:
    """One line about the operators that a provider leaves to the CPU; None if they only compute shapes."""
    left = assigned.left
    if not set(left) - _ON_SHAPES:
        return None
    note = (
        f"provider {short_name(provider)} leaves {left.total()} of {assigned.operators} operators of {graph} to the "
        f"cpu: {assigned.listed}"
    )
    remedy = _remedy(left, provider)
    return f"{note}; {remedy}" if remedy else note


def _remedy(left: Counter[str], provider: str) -> str | None:
    of_provider = _REMEDIES.get(provider, {})
    known = next((remedy for operator, remedy in of_provider.items() if operator in left), None)
    # No provider but the CPU has a kernel for this one.
    return known or (_NO_QUANTIZED_PRODUCTS if "MatMulIntegerToFloat" in left else None)
