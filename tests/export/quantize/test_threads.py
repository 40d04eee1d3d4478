"""Work in threads gives the results in order, each on one thread, and leaves PyTorch's number of threads as it was."""

from __future__ import annotations

import threading

import pytest
import torch

from triform.export.quantize.threads import in_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_are_in_order_and_made_at_once(three_threads):
    meet = threading.Barrier(3, timeout=20)

    def work(item):
        # None of the first three ends before all three have begun.
        if item < 3:
            meet.wait()
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    assert list(in_threads(work, range(7))) == [(item, 1, False) for item in range(7)]
    assert torch.get_num_threads() == 3
    assert torch.is_grad_enabled()


def test_new_threads_have_all_again(three_threads):
    list(in_threads(str, range(4)))
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [3]


def test_an_error_ends_the_rest(three_threads):
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ValueError("of item 1")
        return item

    with pytest.raises(ValueError, match="of item 1"):
        list(in_threads(work, range(10_000)))
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 3


def test_work_inside_of_work_stays_on_its_thread(three_threads):
    def names(_):
        return set(in_threads(lambda _: threading.current_thread().name, range(5)))

    assert all(len(inside) == 1 for inside in in_threads(names, range(3)))
