"""Threads for calls that may hang."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from sage.core.runtime.worker_pool import WorkerPool


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_as_many_calls_run_at_once_as_there_may_be_threads() -> None:
    """However the quick calls before them fell: each finds a thread while fewer than `limit` are at work."""
    for _ in range(200):
        pool = WorkerPool(4, "pool")
        for _ in range(5):
            assert pool.submit(int).result(10) == 0
        meeting = threading.Barrier(4)
        for met in [pool.submit(meeting.wait, 10) for _ in range(4)]:
            assert met.result(20) in range(4)
        pool.close()


def test_one_thread_is_enough_for_calls_one_after_the_other() -> None:
    pool = WorkerPool(4, "single")
    threads = {pool.submit(threading.get_ident).result(10) for _ in range(50)}
    assert len(threads) == 1
    pool.close()


def test_a_call_that_hangs_holds_no_other() -> None:
    pool, go = WorkerPool(2, "pool"), threading.Event()
    hanging = pool.submit(go.wait, 20)
    assert [pool.submit(str, number).result(10) for number in range(20)] == [str(number) for number in range(20)]
    go.set()
    assert hanging.result(10) is True
    pool.close()
