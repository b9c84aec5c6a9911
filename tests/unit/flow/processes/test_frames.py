"""Frames between processes, and what functions print there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import PipelineError
from sage.core.runtime.processes.frames import Connection, FrameKind, packed, unpacked
from sage.core.runtime.processes.messages import portable
from sage.core.runtime.processes.output import ForwardedStream


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    one, other = (Connection(end) for end in socket.socketpair())
    yield one, other
    for connection in (one, other):
        connection.close()
        connection.receive()


def sent(ends: tuple[Connection, Connection], value: Any) -> Any:
    """A value through the socket; large ones need someone who reads meanwhile."""
    writer = threading.Thread(target=lambda: ends[0].send(FrameKind.BATCH, *packed(value), gate=7, channel=3))
    writer.start()
    frame = ends[1].receive()
    writer.join()
    assert frame is not None
    assert (frame.kind, frame.gate, frame.channel) == (FrameKind.BATCH, 7, 3)
    return unpacked(frame.body, frame.buffers)


def test_frames_arrive_whole_and_in_order(ends: tuple[Connection, Connection]) -> None:
    assert [sent(ends, value) for value in (1, "a" * 3_000_000, None, [(1, 2.5)])] == [
        1,
        "a" * 3_000_000,
        None,
        [(1, 2.5)],
    ]


def test_large_arrays_go_beside_the_pickle_and_can_be_written(ends: tuple[Connection, Connection]) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(200_000)
    body, buffers = packed(array)
    assert len(body) < 1000
    assert len(buffers) == 1
    received = sent(ends, array)
    received += 1
    assert received[5] == 6


def test_functions_and_classes_of_a_function_go_by_value(ends: tuple[Connection, Connection]) -> None:
    class Own:
        def __init__(self, value: int) -> None:
            self.value = value

    assert sent(ends, [Own(4)])[0].value == 4
    assert sent(ends, lambda x: x + 1)(1) == 2


def test_what_cannot_be_sent_is_told() -> None:
    with pytest.raises(PipelineError, match="cannot be sent to another process") as raised:
        packed([threading.Lock()])
    assert "threads" in raised.value.hint


def test_the_other_end_gone_is_no_frame(ends: tuple[Connection, Connection]) -> None:
    ends[0]._socket.sendall(b"\x01half a head")
    ends[0].close()
    assert ends[1].receive() is None
    with pytest.raises(BrokenPipeError):
        ends[1].send(FrameKind.EVENT, b"x")


def test_errors_that_do_not_survive_pickling_are_told_in_words() -> None:
    class AwkwardError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    told = portable(AwkwardError(1, 2), 5)
    assert "AwkwardError: 1 and 2" in str(told)
    assert "in worker process 5" in told.__notes__[0]
    kept = portable(ValueError("plain"), 5)
    assert type(kept) is ValueError


@given(st.lists(st.text(alphabet="ab\n", max_size=20), max_size=30))
def test_forwarded_text_is_whole_and_cut_at_lines(texts: list[str]) -> None:
    parts: list[str] = []
    stream = ForwardedStream(parts.append)
    for text in texts:
        stream.write(text)
        stream.flush_lines()
    assert all(part.endswith("\n") for part in parts)
    stream.flush()
    assert "".join(parts) == "".join(texts)


def test_much_text_goes_at_once() -> None:
    parts: list[str] = []
    stream = ForwardedStream(parts.append)
    for number in range(5000):
        print(number, file=stream)
    assert len(parts) > 1
    stream.flush()
    assert "".join(parts) == "".join(f"{number}\n" for number in range(5000))
