"""Conversations as JSON files: an object whose "messages" have the form that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.decoder.chat_template import Message
from triform.runtime.errors import InputError
from triform.runtime.files import whole_file
from triform.runtime.text.checks import invalid_at
from triform.runtime.text.encoding import decode_text


def write_conversation(path: Path, messages: Sequence[Message]) -> None:
    """Write a conversation; if that fails, an existing file is left as it was.

    Raises:
        InputError: the file cannot be written, or a message has a value that JSON cannot hold.
    """
    try:
        text = json.dumps({"messages": list(messages)}, ensure_ascii=False, indent=1)
        data = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be written: the conversation is not JSON ({error})") from None
    check_outside_bundles(path)
    try:
        with whole_file(path) as file:
            file.write(data + b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def read_conversation(path: Path) -> list[dict[str, Any]]:
    """Read a file from `write_conversation`, or one of the same form.

    Returns:
        the messages.

    Raises:
        InputError: the file cannot be read, or is not a conversation.
    """
    try:
        value = json.loads(decode_text(path.read_bytes(), str(path)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged, or not a conversation: it is not JSON") from None
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        raise InputError(f'{path} is not a conversation: it is not an object with a list "messages"')
    try:
        check_messages(messages)
    except InputError as error:
        raise InputError(f"{path} is not a conversation: {error}") from None
    return messages


def check_messages(messages: Sequence[Any]) -> None:
    """Check that each message is JSON with a role, and content or tool calls.

    Raises:
        InputError: a message is not; the error gives its number, counted from 1.
    """
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InputError(f"message {number} is not an object with a string 'role'")
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
