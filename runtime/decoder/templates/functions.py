"""Functions that transformers makes available to templates."""

from __future__ import annotations


class Refusal(Exception):
    """A template called raise_exception, or it exceeds a limit."""


def raise_exception(message: str) -> None:
    """Let a template refuse a conversation.

    Raises:
        Refusal: always.
    """
    raise Refusal(message)


def strftime_now(form: str) -> str:
    """The current local date and time, in the format `form` of `datetime.strftime`."""
    from datetime import datetime

    return datetime.now().strftime(form)
