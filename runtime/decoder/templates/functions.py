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
