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


def reason_of(error: Exception) -> str:
    """Why a template was not rendered, in one line: what it said itself, or the first line of an engine's error."""
    cause = error if isinstance(error, Refusal) else error.__cause__ or error.__context__
    if isinstance(cause, Refusal):
        return " ".join(str(cause).split())
    return next(iter(str(error).splitlines()), type(error).__name__)
