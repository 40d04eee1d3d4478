"""What is used of ONNX Runtime's sessions and bindings, so that another class can stand in for either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class Node(Protocol):
    """An input or output of a graph; a size that is not an int is open."""

    name: str
    type: str
    shape: list[int | str | None]


class Memory(Protocol):
    """Where an input is read from."""

    name: str


class Binding(Protocol):
    """What is used of an onnxruntime.IOBinding."""

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue, /) -> None:
        """Bind a value to an input."""

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue, /) -> None:
        """Bind a value to an output."""


class BindableSession(Protocol):
    """What a decoder's steps use of an onnxruntime.InferenceSession."""

    def io_binding(self) -> Binding:
        """A binding of nothing, or of what never changes."""

    def run_with_iobinding(self, iobinding: Any, /) -> None:
        """Run on what is bound."""

    def get_inputs(self) -> Sequence[Node]:
        """The graph's inputs."""

    def get_input_memory_infos(self) -> Sequence[Memory]:
        """The memory each of them is read from."""


class GraphSession(BindableSession, Protocol):
    """What is used of an onnxruntime.InferenceSession."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], /) -> list[Any]:
        """Run on arrays by input name; the outputs, as arrays in host memory."""

    def get_outputs(self) -> Sequence[Node]:
        """The graph's outputs."""

    def get_providers(self) -> list[str]:
        """The providers in use, the first choice first."""
