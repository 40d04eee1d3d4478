"""The keys of a file's architecture. Reads are recorded, so that a key that nothing reads is refused."""

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
        """The value of a key; a list if each layer has its own."""
        self._read.add(key)
        value = self._values.get(key, default)
        return value.tolist() if isinstance(value, np.ndarray) else value

    def is_read(self, key: str) -> bool:
        """Whether anything asked for a key."""
        return key in self._read

    def same(self, key: str, default: Any = None) -> Any:
        """The value of a key that must be the same in all layers.

        Raises:
            ExportError: layers have different values.
        """
        value = self.get(key, default)
        return self.check_same(key, value) if isinstance(value, list) else value

    def check_same(self, key: str, values: list[Any]) -> Any:
        """The value that all of a key's values have.

        Raises:
            ExportError: they differ, or there are none.
        """
        if len(set(values)) != 1:
            raise ExportError(
                f"{self._name} has a {self.architecture}.{key} that differs between layers, which is not supported"
            )
        return values[0]

    def need(self, key: str) -> Any:
        """The value of a key that every file of the architecture has, the same in all layers.

        Raises:
            ExportError: the key is missing, or layers have different values.
        """
        value = self.same(key)
        if value is None:
            raise ExportError(f"{self._name} has no {self.architecture}.{key}")
        return value

    def expect(self, key: str, value: Any) -> None:
        """Check that a key has its only supported value, or is missing.

        Raises:
            ExportError: it has another value.
        """
        own = self.get(key, value)
        if own != value:
            raise ExportError(f"{self._name} has {self.architecture}.{key} = {own}, which is not supported")

    def check_all_read(self) -> None:
        """Check that every key was read.

        Raises:
            ExportError: some were not, so their meaning is unknown; the error names them.
        """
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            names = ", ".join(f"{self.architecture}.{key}" for key in unknown[:3])
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise ExportError(f"{self._name} has keys that are not supported and may change its numbers: {names}{more}")
