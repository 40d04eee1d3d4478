"""Values of a GGUF file, of every type that the gguf package writes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType

from triform.export.checkpoint.gguf.container import open_gguf
from triform.runtime.errors import ExportError

INTEGERS = {f"{sign}INT{bits}": (int(sign == ""), bits) for sign in ("", "U") for bits in (8, 16, 32, 64)}
VALUES = {
    # The ends of each range.
    **{name: [-(2 ** (bits - 1)) * signed, 2 ** (bits - signed) - 1] for name, (signed, bits) in INTEGERS.items()},
    "FLOAT32": [-1.5, 3.0e38], "FLOAT64": [0.1, 1e300], "BOOL": [True, False], "STRING": ["", "a wörd"],
}  # fmt: skip


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "values.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, both in VALUES.items():
        kind = GGUFValueType[name]
        for place, value in enumerate(both):
            writer.add_key_value(f"{name}.{place}", value, kind)
        writer.add_key_value(f"{name}.list", both, GGUFValueType.ARRAY, kind)
    # What follows shows that no value took more or less than its bytes.
    writer.add_uint32("end", 7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_gguf(path).values


@pytest.mark.parametrize("name", VALUES)
def test_values_of_every_type(values, name):
    both = VALUES[name]
    expected = np.float32(both).tolist() if name == "FLOAT32" else both
    assert [values[f"{name}.{place}"] for place in (0, 1)] == expected
    assert [type(values[f"{name}.{place}"]) for place in (0, 1)] == [type(value) for value in both]
    assert list(values[f"{name}.list"]) == expected
    assert values["end"] == 7 and values["general.architecture"] == "llama"


def test_a_type_that_is_not_ggufs(tmp_path):
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.key", 5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    content = path.read_bytes()
    at = content.index(b"a.key") + len("a.key")
    path.write_bytes(content[:at] + (13).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ExportError, match=r"odd\.gguf has a value of type 13, which is not one of GGUF's"):
        open_gguf(path)
