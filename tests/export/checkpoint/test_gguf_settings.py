"""Keys of a GGUF file's architecture: which are found, which must be the same, and which nobody reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError


def settings(**values):
    values = {key.replace("__", "."): value for key, value in values.items()}
    return Settings(SimpleNamespace(architecture="llama", path=Path("folder/model.gguf"), values=values))


def test_only_those_of_the_architecture_count():
    own = settings(llama__block_count=3, llama4__block_count=5, general__name="a")
    assert own.need("block_count") == 3
    own.check_all_read()


def test_what_is_missing():
    own = settings(llama__a=0)
    assert (own.get("b"), own.get("b", 7), own.same("b", 8), own.get("a", 7)) == (None, 7, 8, 0)
    assert own.need("a") == 0
    with pytest.raises(ExportError, match=r"^model\.gguf has no llama\.b$"):
        own.need("b")


def test_layers_must_agree():
    own = settings(llama__heads=np.array([4, 4, 4]), llama__widths=[4, 4, 5], llama__none=[])
    assert own.get("heads") == [4, 4, 4] and own.need("heads") == 4
    for key in ("widths", "none"):
        with pytest.raises(ExportError, match=rf"^model\.gguf has a llama\.{key} that differs between layers"):
            own.need(key)


def test_the_only_value_that_is_supported():
    own = settings(llama__scale=2)
    own.expect("scale", 2)
    own.expect("missing", 5)
    with pytest.raises(ExportError, match=r"^model\.gguf has llama\.scale = 2, which is not supported$"):
        own.expect("scale", 3)


@pytest.mark.parametrize(
    ("unread", "named"),
    [
        (["b"], r"llama\.b$"),
        (["d", "b", "c"], r"llama\.b, llama\.c, llama\.d$"),
        (["d", "b", "c", "e"], r"llama\.b, llama\.c, llama\.d and 1 more$"),
    ],
)
def test_what_nobody_reads_is_named(unread, named):
    own = settings(llama__a=1, **{f"llama__{key}": 1 for key in unread})
    assert own.get("a") == 1 and own.is_read("a") and not own.is_read(unread[0])
    with pytest.raises(ExportError, match=rf"keys that are not supported and may change its numbers: {named}"):
        own.check_all_read()
