"""What transformers does to text after a tokenizer's decoder, made part of the decoder."""

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
    """Let the tokenizer.json in `folder` join punctuation to the words before it, if `tokenizer` does so itself.

    Args:
        tokenizer: a fast tokenizer of transformers.
        folder: where its tokenizer.json was written.
    """
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # transformers leaves what BPE decodes alone, whatever the setting says.
    asked = getattr(tokenizer, "clean_up_tokenization_spaces", False) and content["model"]["type"] != "BPE"
    if not asked or content.get("decoder") is None:
        return
    replacing = [{"type": "Replace", "pattern": {"String": old}, "content": new} for old, new in _REPLACED.items()]
    content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"], {"type": "Fuse"}, *replacing]}
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
