"""What an encoder computed for a batch of sources, as the decoder takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


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
