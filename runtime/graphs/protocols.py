"""The parts of ONNX Runtime's sessions and bindings that are used here, so that other classes can replace them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class Node(Protocol):
    """An input or output of a graph; a size in its shape that is not an int is open."""

    name: str
    type: str
    shape: list[int | str | None]


class Memory(Protocol):
    """The memory that an input is read from."""

    name: str


class Binding(Protocol):
    """The part of onnxruntime.IOBinding that is used."""

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue, /) -> None:
        """Bind a value to an input."""

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue, /) -> None:
        """Bind a value to an output."""

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: list[int], buffer_ptr: int, /
    ) -> None:
        """Bind an address of a device to an input."""

    def bind_output(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: list[int], buffer_ptr: int, /
    ) -> None:
        """Bind an address of a device to an output."""


class BindableSession(Protocol):
    """The part of onnxruntime.InferenceSession that a decoder's steps use."""

    def io_binding(self) -> Binding:
        """Make a binding, empty or with the inputs that never change."""

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None, /) -> None:
        """Run on the bound arrays."""

    def get_inputs(self) -> Sequence[Node]:
        """The graph's inputs."""

    def get_input_memory_infos(self) -> Sequence[Memory]:
        """The memory that each input is read from."""


class GraphSession(BindableSession, Protocol):
    """The part of onnxruntime.InferenceSession that is used."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], /) -> list[Any]:
        """Run on arrays by input name; return the outputs as arrays in host memory."""

    def get_outputs(self) -> Sequence[Node]:
        """The graph's outputs."""

    def get_providers(self) -> list[str]:
        """The providers in use, the first choice first."""
