"""Calls of other threads in a task's thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sage.core.runtime.events import JobAborted
from sage.core.runtime.mailbox import Mailbox


def test_calls_run_in_order_and_wake_the_input() -> None:
    box = Mailbox(threading.Event())
    seen: list[Any] = []
    box.belongs_to(lambda: seen.append("woken"), lambda: None)
    box.post(lambda: seen.append(1))
    box.post(lambda: seen.append(2))
    assert seen == ["woken", "woken"]
    assert box.run()
    assert seen[2:] == [1, 2]
    assert not box.run()


def test_an_operator_that_waits_runs_only_its_own_calls() -> None:
    box, seen = Mailbox(threading.Event()), []
    box.post(lambda: seen.append("other"), owner="a")
    box.post(lambda: seen.append("own"), owner="b")
    box.wait("b", lambda: "own" in seen)
    assert seen == ["own"]
    box.run()
    assert seen == ["own", "other"]


def test_a_call_of_another_thread_ends_the_waiting() -> None:
    box, seen = Mailbox(threading.Event()), []
    thread = threading.Timer(0.01, lambda: box.post(lambda: seen.append(threading.get_ident()), owner="me"))
    thread.start()
    box.wait("me", lambda: bool(seen))
    thread.join()
    assert seen == [threading.get_ident()]


def test_waiting_ends_when_the_job_is_aborted() -> None:
    aborted = threading.Event()
    box = Mailbox(aborted)
    threading.Timer(0.01, aborted.set).start()
    with pytest.raises(JobAborted):
        box.wait("me", lambda: False)


def test_while_an_operator_waits_what_is_due_is_sent() -> None:
    box, sent = Mailbox(threading.Event()), []
    box.belongs_to(None, lambda: sent.append(1))
    box.wait("me", lambda: bool(sent))
    assert sent


def test_calls_behind_the_one_that_holds_the_task_stay() -> None:
    box, seen = Mailbox(threading.Event()), []
    box.post(lambda: seen.append("barrier"))
    box.post(lambda: seen.append("result"), owner="operator")
    box.post(lambda: seen.append("release"))
    assert box.run(lambda: "barrier" in seen)
    assert seen == ["barrier"]
    box.serve(lambda: "release" in seen, operators=False)
    assert seen == ["barrier", "release"]
    box.run()
    assert seen == ["barrier", "release", "result"]
