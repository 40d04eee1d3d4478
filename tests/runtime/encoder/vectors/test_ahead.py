"""Work ahead of its use: in order, one item further, with errors in their place."""

from __future__ import annotations

import threading

import pytest

from triform.runtime.encoder.vectors.ahead import ahead


def test_results_are_in_order():
    assert list(ahead(range(5), lambda item: item * item)) == [0, 1, 4, 9, 16]
    assert list(ahead([], str)) == []


def test_one_item_is_worked_on_ahead():
    taken, worked = [], [threading.Event() for _ in range(4)]
    results = ahead((taken.append(item) or item for item in range(4)), lambda item: worked[item].set() or item)
    assert next(results) == 0
    assert worked[1].wait(timeout=60)
    assert taken == [0, 1]


def test_items_are_taken_by_the_caller():
    """They may come from a connection that belongs to a thread."""
    threads = list(ahead((threading.get_ident() for _ in range(3)), lambda item: (item, threading.get_ident())))
    assert {taken for taken, _ in threads} == {threading.get_ident()}
    assert all(taken != worked for taken, worked in threads)


def test_errors_come_after_the_results_before_them():
    def items():
        yield 1
        yield 2
        raise OSError("gone")

    results = ahead(items(), lambda item: 4 // item)
    assert [next(results), next(results)] == [4, 2]
    with pytest.raises(OSError, match="gone"):
        next(results)
    results = ahead([2, 0, 1], lambda item: 4 // item)
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)
