"""What a file's keys say of its architecture, each asked for by name, so that none is passed over."""

from __future__ import annotations

from typing import Any

import numpy as np

from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import ExportError


class Settings:
    """The keys that begin with the architecture's name, without it: "attention.head_count" and so on."""

    def __init__(self, file: GgufFile) -> None:
        self.architecture = file.architecture
        prefix = f"{self.architecture}."
        self._name = file.path.name
        self._values = {key.removeprefix(prefix): value for key, value in file.values.items() if key.startswith(prefix)}
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """A value, plain; a list where there is one for each layer."""
        self._read.add(key)
        value = self._values.get(key, default)
        return value.tolist() if isinstance(value, np.ndarray) else value

    def same(self, key: str, default: Any = None) -> Any:
        """A value that must be the same in all layers.

        Raises:
            ExportError: it differs from layer to layer.
        """
        value = self.get(key, default)
        if not isinstance(value, list):
            return value
        if len(set(value)) != 1:
            raise ExportError(
                f"{self._name} has another {self.architecture}.{key} in every layer, which is not supported"
            )
        return value[0]

    def need(self, key: str) -> Any:
        """A value that every file of the architecture has.

        Raises:
            ExportError: it is not there, or differs from layer to layer.
        """
        value = self.same(key)
        if value is None:
            raise ExportError(f"{self._name} has no {self.architecture}.{key}")
        return value

    def expect(self, key: str, value: Any) -> None:
        """Check that a key, where it is there, has the one value that is supported.

        Raises:
            ExportError: it has another.
        """
        own = self.get(key, value)
        if own != value:
            raise ExportError(f"{self._name} has {self.architecture}.{key} = {own}, which is not supported")

    def check_all_read(self) -> None:
        """Check that every key was asked for.

        Raises:
            ExportError: names those that were not: what they mean is not known here.
        """
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            names = ", ".join(f"{self.architecture}.{key}" for key in unknown[:3])
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise ExportError(f"{self._name} has keys that are not supported and may change its numbers: {names}{more}")
