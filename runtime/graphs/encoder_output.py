"""Runs an encoder graph, and keeps its outputs for the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from triform.runtime.errors import BundleError
from triform.runtime.graphs.protocols import GraphSession
from triform.runtime.graphs.session import run_failure


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
    for name in inputs:
        if name not in arrays:
            raise BundleError(f"the encoder takes an unknown input, {name}; export the model again")
    try:
        return session.run(list(outputs), {name: arrays[name] for name in inputs})
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("encoder", error) from error


@dataclass(frozen=True)
class EncoderOutput:
    """The encoder's outputs for some sources.

    Attributes:
        values: by the name of the decoder input that takes each; the first axis is the source.
    """

    values: Mapping[str, NDArray[Any]]

    @property
    def sources(self) -> int:
        """The number of sources."""
        return len(next(iter(self.values.values())))

    def only(self, sources: Sequence[int]) -> EncoderOutput:
        """Return the outputs for some of the sources, in this order; copied unless these are all of them."""
        chosen = list(sources)
        if chosen == list(range(self.sources)):
            return self
        return EncoderOutput({name: value[chosen] for name, value in self.values.items()})
