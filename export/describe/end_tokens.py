"""Collects the tokens that end an answer, from every file of a checkpoint that names some."""

from __future__ import annotations

import json
import re
from typing import Any

from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.chat_templates import chat_templates
from triform.runtime.bundle.export_record import EndToken

# The assistant's message in a probe: no template changes it, and no template contains it.
_ANSWER = "0qx0"
_USER, _SYSTEM = {"role": "user", "content": "1"}, {"role": "system", "content": "1"}
_ASSISTANT = {"role": "assistant", "content": _ANSWER}
_PARTS = [
    {"role": role, "content": [{"type": "text", "text": text}]}
    for role, text in (("user", "1"), ("assistant", _ANSWER))
]
# Probes that end with the answer come first: inside a conversation, the token after it may be a mere separator.
_PROBES: tuple[list[dict[str, Any]], ...] = (
    [_USER, _ASSISTANT], [_SYSTEM, _USER, _ASSISTANT], _PARTS, [_USER, _ASSISTANT, _USER]
)  # fmt: skip
# How tokens that are not text are written, where the tokenizer does not mark them as special.
_MARKUP = re.compile(r"<.+>|\[.+\]", re.DOTALL)


def end_tokens(checkpoint: Checkpoint) -> list[EndToken]:
    """The end tokens of a decoder, each once, with what names it.

    They are those of the generation config (of a GGUF file, all that the file names), of config.json, of the tokenizer,
    and the token after an assistant's message in its chat templates. transformers' `generate` only knows the first.
    """
    vocab_size = int(checkpoint.model.config.get_text_config().vocab_size)
    ends = checkpoint.model.generation_config.eos_token_id
    return ends_named_by(checkpoint.source, checkpoint.tokenizer, vocab_size, ends)


def ends_named_by(source: Source, tokenizer: Any, vocab_size: int, ends: int | list[int] | None) -> list[EndToken]:
    """See `end_tokens`.

    Args:
        source: has config.json.
        tokenizer: of transformers.
        vocab_size: of the model.
        ends: those of the generation config.
    """
    special = tokenizer.added_tokens_decoder
    named = [("generation config", token) for token in _listed(ends)]
    # An id that is an ordinary word is left over from another vocabulary.
    named += [("config", token) for token in _config_ends(source) if token in special]
    named += [("tokenizer", token) for token in _listed(tokenizer.eos_token_id) if token < vocab_size]
    named += [("chat template", token) for token in template_ends(tokenizer) if token < vocab_size]
    if not named:
        named = [("config", token) for token in _config_ends(source) if token < vocab_size]
    sources: dict[int, list[str]] = {}
    for file, token in named:
        sources.setdefault(token, []).append(file)
    return [
        EndToken(token, str(tokenizer.convert_ids_to_tokens(token)), list(dict.fromkeys(named_by)))
        for token, named_by in sources.items()
    ]


def template_ends(tokenizer: Any) -> list[int]:
    """The tokens that the chat templates of a tokenizer write after an assistant's message, by rendering one."""
    with quiet():
        tokens = [_template_end(tokenizer, template) for template in chat_templates(tokenizer).values()]
    return list(dict.fromkeys(token for token in tokens if token is not None))


def _template_end(tokenizer: Any, template: str) -> int | None:
    for probe in _PROBES:
        try:
            text = tokenizer.apply_chat_template(probe, chat_template=template, tokenize=False)
        except Exception:  # a template may raise anything
            continue
        _, answer, after = str(text).rpartition(_ANSWER)
        token = _first_token(tokenizer, after.lstrip()) if answer else None
        if token is not None:
            return token
    return None


def _first_token(tokenizer: Any, text: str) -> int | None:
    """The special token that a text begins with, the longest if there are several."""
    matching = [
        (len(str(token)), index)
        for index, token in tokenizer.added_tokens_decoder.items()
        if text.startswith(str(token)) and (token.special or _MARKUP.fullmatch(str(token)))
    ]
    return max(matching)[1] if matching else None


def _config_ends(source: Source) -> list[int]:
    """The end tokens in config.json; transformers' config would fill in the defaults of its class."""
    path = source.model_folder / "config.json"
    if source.gguf is not None or not path.is_file():
        return []
    config = json.loads(path.read_text(encoding="utf-8"))
    inner = config.get("text_config")
    return [
        *_listed(config.get("eos_token_id")),
        *_listed(inner.get("eos_token_id") if isinstance(inner, dict) else ()),
    ]


def _listed(ids: Any) -> list[int]:
    if ids is None:
        return []
    return [int(token) for token in (ids if isinstance(ids, list | tuple) else [ids]) if int(token) >= 0]
