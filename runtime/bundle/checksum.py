"""The hash that a manifest carries of itself: SHA-256 of the file's bytes with zeros in place of the hash's digits."""

from __future__ import annotations

import hashlib
import json
from typing import Any

# The key whose value is the hash, in hexadecimal.
CHECKSUM = "manifest_sha256"
_BLANK = "0" * 64


def with_checksum(content: dict[str, Any]) -> str:
    """The text of a manifest that holds `content` and its own hash."""
    blank = json.dumps({**content, CHECKSUM: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    before, _, after = blank.rpartition(_BLANK)
    return before + hashlib.sha256(blank.encode()).hexdigest() + after


def is_whole(data: bytes, checksum: str) -> bool:
    """Whether the bytes of a manifest are those whose hash is `checksum`, which stands in them once."""
    written = f'"{checksum}"'.encode()
    blank = data.replace(written, f'"{_BLANK}"'.encode())
    return data.count(written) == 1 and hashlib.sha256(blank).hexdigest() == checksum
