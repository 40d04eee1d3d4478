"""A run of an encoder graph, and its outputs for some sources as the decoder takes them."""

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
        inputs: names of what it takes.
        outputs: names of what to compute.
        arrays: by the name of an input; those that it does not take are ignored.

    Raises:
        BundleError: it takes an input that there is no array for.
        TriformError: onnxruntime failed.
    """
    for name in inputs:
        if name not in arrays:
            raise BundleError(f"the encoder takes an input {name}, which nothing is known of; export the model again")
    try:
        return session.run(list(outputs), {name: arrays[name] for name in inputs})
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise run_failure("encoder", error) from error


@dataclass(frozen=True)
class EncoderOutput:
    """The encoder's outputs for some sources.

    Attributes:
        values: by the name of the decoder's input that takes each; the first axis is the source.
    """

    values: Mapping[str, NDArray[Any]]

    @property
    def sources(self) -> int:
        """How many sources there are."""
        return len(next(iter(self.values.values())))

    def only(self, sources: Sequence[int]) -> EncoderOutput:
        """The outputs for some of the sources, in this order; copied unless these are all of them."""
        chosen = list(sources)
        if chosen == list(range(self.sources)):
            return self
        return EncoderOutput({name: value[chosen] for name, value in self.values.items()})
