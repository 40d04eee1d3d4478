"""JSON files with a hash of themselves: SHA-256 of the file's bytes with zeros in place of the hash's digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_BLANK = "0" * 64


def sealed(content: Mapping[str, Any], key: str) -> str:
    """The text of a JSON file with `content` and, under `key`, the file's own hash in hexadecimal."""
    blank = json.dumps({**content, key: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    before, _, after = blank.rpartition(_BLANK)
    return before + hashlib.sha256(blank.encode()).hexdigest() + after


def is_whole(data: bytes, checksum: str) -> bool:
    """Whether `checksum` is the hash of the bytes of a file, and occurs in them exactly once."""
    written = f'"{checksum}"'.encode()
    blank = data.replace(written, f'"{_BLANK}"'.encode())
    return data.count(written) == 1 and hashlib.sha256(blank).hexdigest() == checksum
