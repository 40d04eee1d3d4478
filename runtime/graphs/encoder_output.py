"""Runs an encoder graph, and keeps its outputs for the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import BundleError
from triform.runtime.graphs.protocols import BindableSession, Binding, GraphSession, Memory, Node
from triform.runtime.graphs.session import run_failure

# Keys are (sources, heads, length, head_dim).
_KEY_AXES = 4


def check_taken(inputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check that there is an array for each input.

    Raises:
        BundleError: there is none.
    """
    for name in inputs:
        if name not in arrays:
            raise BundleError(f"the encoder takes an unknown input, {name}; export the model again")


def run_encoder(
    session: GraphSession, inputs: Sequence[str], outputs: Sequence[str], arrays: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Run an encoder graph.

    Args:
        session: of the graph.
        inputs: names of its inputs.
        outputs: names of the outputs to compute.
        arrays: by the name of an input; arrays that the graph does not take are ignored.

    Returns:
        an array for each output.

    Raises:
        BundleError: there is no array for an input.
        TriformError: onnxruntime failed.
    """
    check_taken(inputs, arrays)
    try:
        return session.run(list(outputs), {name: arrays[name] for name in inputs})
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("encoder", error) from error


class EncoderOutput(Protocol):
    """The encoder's outputs for some sources, by the name of the decoder's input that takes each."""

    @property
    def sources(self) -> int:
        """The number of sources."""

    @property
    def length(self) -> int:
        """Tokens, or frames, that the encoder made of each source, padding included."""

    def only(self, sources: Sequence[int]) -> EncoderOutput:
        """Return the outputs for some of the sources, in this order; copied unless these are all of them."""

    def bind(self, binding: Binding) -> None:
        """Bind all outputs as inputs of the decoder."""


@dataclass(frozen=True)
class HostEncoderOutput:
    """The `EncoderOutput` of graphs for the CPU.

    Attributes:
        values: by the name of the decoder's input; the first axis is the source.
    """

    values: Mapping[str, NDArray[Any]]

    @property
    def sources(self) -> int:
        """See `EncoderOutput`."""
        return len(next(iter(self.values.values())))

    @property
    def length(self) -> int:
        """See `EncoderOutput`."""
        return length_of({name: value.shape for name, value in self.values.items()})

    def only(self, sources: Sequence[int]) -> HostEncoderOutput:
        """See `EncoderOutput`."""
        chosen = list(sources)
        if chosen == list(range(self.sources)):
            return self
        return HostEncoderOutput({name: value[chosen] for name, value in self.values.items()})

    def bind(self, binding: Binding) -> None:
        """See `EncoderOutput`."""
        from onnxruntime import OrtValue

        for name, value in self.values.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(value))


def length_of(shapes: Mapping[str, Sequence[int]]) -> int:
    """Tokens, or frames, of each source, by the shapes of an encoder's outputs: keys have them on their third axis."""
    return next(shape[2] for shape in shapes.values() if len(shape) == _KEY_AXES)


class SourceSession:
    """A decoder's session whose bindings hold the encoder's output, which is bound once because it never changes."""

    def __init__(self, session: GraphSession, encoded: EncoderOutput) -> None:
        self._session = session
        self._encoded = encoded
        # The outputs for the rows of runs, by the source of each row; see `io_binding_of`.
        self._of_rows: dict[tuple[int, ...], EncoderOutput] = {}

    def io_binding(self) -> Binding:
        """See `BindableSession`."""
        io = self._session.io_binding()
        self._encoded.bind(io)
        return io

    def io_binding_of(self, rows: NDArray[np.int64], count: int) -> Binding:
        """A binding for a run of some rows, with one source for each.

        Args:
            rows: of the run.
            count: rows of the whole batch; each source has as many, side by side.
        """
        sources = tuple((rows * self._encoded.sources // count).tolist())
        if sources not in self._of_rows:
            # A batch of rows of different lengths takes several runs, which together have `count` rows.
            while sum(map(len, self._of_rows)) + len(sources) > count:
                del self._of_rows[next(iter(self._of_rows))]
            self._of_rows[sources] = self._encoded.only(sources)
        io = self._session.io_binding()
        self._of_rows[sources].bind(io)
        return io

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None, /) -> None:
        """See `BindableSession`."""
        self._session.run_with_iobinding(iobinding, run_options)

    def get_inputs(self) -> Sequence[Node]:
        """See `BindableSession`."""
        return self._session.get_inputs()

    def get_input_memory_infos(self) -> Sequence[Memory]:
        """See `BindableSession`."""
        return self._session.get_input_memory_infos()

    def get_provider_options(self) -> Mapping[str, Mapping[str, str]]:
        """Those of each provider in use; see `is_recordable`."""
        return self._session.get_provider_options()

    def keep(self, sources: Sequence[int]) -> None:
        """Keep only some of the sources."""
        self._encoded = self._encoded.only(sources)
        self._of_rows.clear()


def binding_of(session: BindableSession, rows: NDArray[np.int64], count: int) -> Binding:
    """A binding for a run of some rows of a batch; where they answer sources, with one source for each.

    Args:
        session: of a decoder.
        rows: of the run.
        count: rows of the whole batch.
    """
    return session.io_binding_of(rows, count) if isinstance(session, SourceSession) else session.io_binding()
