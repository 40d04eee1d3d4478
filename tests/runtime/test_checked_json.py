"""JSON that becomes dataclasses: types, what is missing, what is ignored, and files with their own hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from triform.runtime.checked_json import Mismatch, build, is_whole, sealed


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    by_name: dict[str, Inner] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    early: bool | str | None = None
    maybe: Literal["x", "y"] | None = None
    numbers: list[int] | int | None = None


INNER = {"count": 3}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"inner": INNER}, Outer(Inner(3))), ({"inner": INNER, "more": [1]}, Outer(Inner(3))),
        ({"inner": {"count": -1, "share": 2, "names": ["a", ""]}}, Outer(Inner(-1, 2.0, ["a", ""]))),
        ({"inner": INNER, "by_name": {"k": INNER}}, Outer(Inner(3), {"k": Inner(3)})),
        ({"inner": INNER, "kind": "b", "early": False}, Outer(Inner(3), kind="b", early=False)),
        ({"inner": INNER, "early": "never", "maybe": "y"}, Outer(Inner(3), early="never", maybe="y")),
        ({"inner": INNER, "early": None, "maybe": None}, Outer(Inner(3))),
        ({"inner": INNER, "numbers": [1, 2]}, Outer(Inner(3), numbers=[1, 2])),
        ({"inner": INNER, "numbers": 7}, Outer(Inner(3), numbers=7)),
    ],
)  # fmt: skip
def test_what_fits(value, expected):
    assert build(Outer, value) == expected


def test_whole_numbers_become_floats():
    share = build(Inner, {"count": 1, "share": 2}).share
    assert share == 2.0 and isinstance(share, float)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], " must be an object"),
        (None, " must be an object"),
        ({}, "the key inner is missing"),
        ({"inner": 3}, "inner must be an object"),
        ({"inner": {}}, "the key inner.count is missing"),
        ({"inner": {"count": "3"}}, "inner.count must be a int, not '3'"),
        ({"inner": {"count": True}}, "inner.count must be a int, not True"),
        ({"inner": {"count": 3.0}}, "inner.count must be a int, not 3.0"),
        ({"inner": {"count": None}}, "inner.count must be a int, not None"),
        ({"inner": {"count": 3, "share": False}}, "inner.share must be a float, not False"),
        ({"inner": {"count": 3, "share": float("nan")}}, "inner.share must be a finite number, not nan"),
        ({"inner": {"count": 3, "share": float("-inf")}}, "inner.share must be a finite number, not -inf"),
        ({"inner": {"count": 3, "share": 10**400}}, "inner.share is too large a number"),
        ({"inner": {"count": 3, "names": "ab"}}, "inner.names must be a list"),
        ({"inner": {"count": 3, "names": ["a", 1]}}, "inner.names[1] must be a str, not 1"),
        ({"inner": INNER, "by_name": []}, "by_name must be an object"),
        ({"inner": INNER, "by_name": {"k": {}}}, "the key by_name.k.count is missing"),
        ({"inner": INNER, "kind": "c"}, "kind must be a or b, not 'c'"),
        ({"inner": INNER, "kind": 1}, "kind must be a or b, not 1"),
        ({"inner": INNER, "kind": None}, "kind must be a or b, not None"),
        ({"inner": INNER, "early": 1}, "early must be a str, not 1"),
        ({"inner": INNER, "maybe": "z"}, "maybe must be x or y, not 'z'"),
        ({"inner": INNER, "numbers": [1, "a"]}, "numbers must be a int, not [1, 'a']"),
    ],
)
def test_what_does_not_fit_is_named(value, said):
    with pytest.raises(Mismatch) as caught:
        build(Outer, value)
    assert str(caught.value) == said


def test_the_key_that_leads_there():
    with pytest.raises(Mismatch, match=r"^it\.k\.count must be"):
        build(dict[str, Inner], {"k": {"count": ""}}, "it")


def test_a_file_with_its_own_hash():
    text = sealed({"a": "ä", "digest": "old"}, "digest")
    value = json.loads(text)
    assert list(value) == ["a", "digest"] and value["a"] == "ä"
    blank = text.replace(value["digest"], "0" * 64)
    assert hashlib.sha256(blank.encode()).hexdigest() == value["digest"]
    assert text.endswith("}\n") and "ä" in text and '\n  "a"' in text
    assert is_whole(text.encode(), value["digest"])
    assert not is_whole(text.replace("ä", "b").encode(), value["digest"])
    assert not is_whole(text.encode(), "0" * 64)


def test_a_hash_that_is_there_twice():
    """A copy of the digits elsewhere would be blanked, too, and so could be anything."""
    digits = json.loads(sealed({"a": ""}, "digest"))["digest"]
    text = json.dumps({"a": digits, "digest": digits})
    assert not is_whole(text.encode(), digits)
    # Zeros that the content has of its own are not the digits' place.
    text = sealed({"a": "0" * 64}, "digest")
    assert json.loads(text)["a"] == "0" * 64 and is_whole(text.encode(), json.loads(text)["digest"])
