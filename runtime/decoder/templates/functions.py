"""Functions that transformers gives templates."""

from __future__ import annotations


class Refusal(Exception):
    """Raised by a template through raise_exception, or by what a template calls."""


def raise_exception(message: str) -> None:
    """What transformers gives templates to refuse a conversation."""
    raise Refusal(message)


def strftime_now(form: str) -> str:
    """What transformers gives templates to tell the date."""
    from datetime import datetime

    return datetime.now().strftime(form)


def reason_of(error: Exception) -> str:
    """Why a template was not rendered, in one line: what it said itself, or the first line of an engine's error."""
    cause = error if isinstance(error, Refusal) else error.__cause__ or error.__context__
    if isinstance(cause, Refusal):
        return " ".join(str(cause).split())
    return next(iter(str(error).splitlines()), type(error).__name__)
