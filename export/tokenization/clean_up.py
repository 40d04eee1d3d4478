"""Adds transformers' clean-up of decoded text to a tokenizer's decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# transformers' ``clean_up_tokenization``, in its order.
_REPLACED = {
    " .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m", " 's": "'s", " 've": "'ve",
    " 're": "'re",
}  # fmt: skip


def clean_up_decoding(tokenizer: Any, folder: Path) -> None:
    """Make the tokenizer.json in `folder` remove spaces before punctuation, if `tokenizer` does.

    Args:
        tokenizer: a fast tokenizer of transformers.
        folder: where its tokenizer.json was written.
    """
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # transformers ignores the setting for BPE.
    cleans = getattr(tokenizer, "clean_up_tokenization_spaces", False) and content["model"]["type"] != "BPE"
    if not cleans or content.get("decoder") is None:
        return
    replacing = [{"type": "Replace", "pattern": {"String": old}, "content": new} for old, new in _REPLACED.items()]
    content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"], {"type": "Fuse"}, *replacing]}
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
