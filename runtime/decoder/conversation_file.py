"""Conversations as JSON files: one object whose "messages" are what a chat template is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triform.runtime.decoder.chat_template import Message
from triform.runtime.errors import InputError
from triform.runtime.files import whole_file
from triform.runtime.text.encoding import decode_text
from triform.runtime.text.unicode_check import invalid_at


def write_conversation(path: Path, messages: Sequence[Message]) -> None:
    """Write a conversation, whole or not at all.

    Raises:
        InputError: it cannot be written, or something in a message cannot be JSON.
    """
    try:
        text = json.dumps({"messages": list(messages)}, ensure_ascii=False, indent=1)
        data = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be written: the conversation is not JSON ({error})") from None
    try:
        with whole_file(path) as file:
            file.write(data + b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def read_conversation(path: Path) -> list[dict[str, Any]]:
    """Read what `write_conversation` wrote, or another program in the same form.

    Raises:
        InputError: it cannot be read, or is no conversation.
    """
    try:
        value = json.loads(decode_text(path.read_bytes(), str(path)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged, or no conversation: it is not JSON") from None
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        raise InputError(f'{path} is no conversation: it is not an object with a list called "messages"')
    try:
        check_messages(messages)
    except InputError as error:
        raise InputError(f"{path} is no conversation: {error}") from None
    return messages


def check_messages(messages: Sequence[Any]) -> None:
    """Check that each message says who speaks and what.

    Raises:
        InputError: one does not.
    """
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"message {number} is not an object with a text called 'role'")
        content = message.get("content")
        calls = content is None and isinstance(message.get("tool_calls"), list)
        if not (isinstance(content, str | list) or calls):
            raise InputError(f"message {number} has no content")
        try:
            text = json.dumps(message, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"message {number} is not JSON ({error})") from None
        if invalid_at(text) is not None:
            raise InputError(f"message {number} is not valid Unicode text")
