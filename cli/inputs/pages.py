"""Reads pages: JSON objects of words and where each stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from triform.runtime.errors import InputError

if TYPE_CHECKING:
    from triform.runtime.text.pages import Page, Text

# The fields of a page; the last may be left out.
_WORDS, _BOXES, _SIZE = "words", "boxes", "page"


def is_page(fields: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the words and boxes of a page."""
    return _WORDS in fields and _BOXES in fields


def page_of(fields: Mapping[str, Any]) -> Page:
    """The page of a JSON object with words, their boxes and perhaps the page's width and height.

    Raises:
        InputError: see `Page`.
    """
    # It imports numpy, which takes time.
    from triform.runtime.text.pages import Page

    for name in (_WORDS, _BOXES):
        if not isinstance(fields[name], list):
            raise InputError(f"its {name!r} is not a list")
    return Page(fields[_WORDS], fields[_BOXES], fields.get(_SIZE))


def text_or_page(text: str, where: str) -> Text:
    """A text; the page instead, if it is the JSON of one.

    Args:
        text: the text.
        where: where it comes from, for messages.

    Raises:
        InputError: see `Page`.
    """
    try:
        value = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict) or not is_page(value):
        return text
    try:
        return page_of(value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
