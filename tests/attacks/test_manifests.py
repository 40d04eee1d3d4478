"""Manifests of any shape, with hashes that agree: read, or refused in one line that can be printed."""

from __future__ import annotations

import copy
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.bundles import sealed
from tests.runtime.bundle.test_reading import FILES
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.errors import BundleError

CONTENTS = [json.loads(file.read_text(encoding="utf-8")) for file in FILES]
DEEP = json.loads("[" * 200 + "]" * 200)
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), "", "x", "float32", "logits", "decoder.onnx", "../x", "/etc/passwd", "\x1b]0;x\x07", "\u202e",
    "\ud800", "y" * 9000, [], [[]], [None], [0], ["a"], {}, {"": 0}, {"a": {}}, DEEP,
]  # fmt: skip
ONE = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def mutate(content, chance):
    """One change at a random place: another value, none at all, another part of the manifest, or one key more."""
    path = chance.choice(list(places(content))[1:])
    place, last = at(content, path[:-1]), path[-1]
    way = chance.randrange(5)
    if way == 0:
        del place[last]
    elif way == 1:
        place[last] = copy.deepcopy(at(content, chance.choice(list(places(content)))))
    elif way == 2 and isinstance(place, dict):
        place[f"{last}{chance.choice(['', '2', chr(27), 'x' * 5000])}"] = place.pop(last)
    else:
        place[last] = copy.deepcopy(chance.choice(VALUES))


def outcome(folder, text):
    """What comes of a manifest's text: None where it is read, else the refusal, which is one line."""
    (folder / "manifest.json").write_bytes(text)
    try:
        read_manifest(folder)
    except BundleError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 1000
        return message
    return None


@ONE
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_any_mutation(tmp_path, seed, count):
    chance = random.Random(seed)
    content = copy.deepcopy(chance.choice(CONTENTS))
    for _ in range(count):
        mutate(content, chance)
    content.pop("manifest_sha256", None)
    outcome(tmp_path, sealed(content).encode("utf-8", "surrogatepass"))


@ONE
@given(st.integers(0, len(FILES) - 1), st.integers(0, 10**6), st.binary(min_size=1, max_size=6))
def test_any_bytes_in_it_are_refused(tmp_path, index, place, content):
    data = FILES[index].read_bytes()
    place %= len(data)
    other = data[:place] + content + data[place + len(content) :]
    assert other == data or outcome(tmp_path, other) is not None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[", b"[" * 10**5, b"{}", b"null", b"9" * 10**5, b'{"schema_version": 2' + b" " * 2**24 + b"}",
        b'{"schema_version": ' + b"9" * 10**4 + b"}", b"\xff\xfe{\x00}\x00", b'{"a": "\\ud800"}',
        b'{"schema_version": NaN}', b'{"schema_version": 2, "manifest_sha256": "' + b"0" * 64 + b'"}',
        b'{"schema_version": 2, "manifest_sha256": 5}', b'{"schema_version": true, "manifest_sha256": ""}',
    ],
    ids=lambda text: repr(text[:30]),
)  # fmt: skip
def test_what_is_no_manifest(tmp_path, text):
    assert outcome(tmp_path, text) is not None
