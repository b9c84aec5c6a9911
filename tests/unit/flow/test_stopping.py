"""Back-pressure, cancel, abort, Ctrl-C (SPEC X4, K2): bounded memory, nothing read is lost, nothing left running."""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}/")]


@pytest.mark.parametrize("chaining", [True, False])
def test_a_slow_sink_holds_the_source_back(chaining: bool) -> None:
    """A source that could give millions is read only a little ahead of a sink that waits."""
    read = itertools.count()
    go, full = threading.Event(), threading.Event()
    latest = [0]

    def source() -> Iterator[int]:
        while True:
            latest[0] = next(read)
            yield latest[0]

    def sink(value: int) -> None:
        full.set()
        go.wait(10)

    env = LocalEnvironment("slow", {"chaining": chaining, "buffer.size": 64})
    env.from_source(source).map(lambda x: x).map(lambda x: x).sink(sink)
    handle = env.submit(block=False)
    assert full.wait(10)
    settled = -1
    deadline = time.monotonic() + 10
    while settled != latest[0] and time.monotonic() < deadline:
        settled = latest[0]
        time.sleep(0.1)
    assert latest[0] < 2 * 64 + 256 + 3 * 4 * 64 + 3 * 64
    handle.abort()
    go.set()
    handle.wait(10)


def test_flat_map_without_end_is_held_back() -> None:
    """One record that becomes endlessly many flows through a bounded channel."""
    made, taken = [0], [0]

    def endless(_: int) -> Iterator[int]:
        while True:
            made[0] += 1
            yield made[0]

    env = LocalEnvironment("endless", {"buffer.size": 16})

    def sink(value: int) -> None:
        taken[0] += 1
        if taken[0] == 500:
            handle_ready.wait(10)
            handle.abort()

    handle_ready = threading.Event()
    env.from_collection([1]).flat_map(endless).sink(sink, parallelism=2)
    handle = env.submit(block=False)
    handle_ready.set()
    handle.wait(10)
    assert made[0] - taken[0] < 16 * (2 * 4 + 4)


@pytest.mark.spec("X4")
@pytest.mark.parametrize("parallelism", [1, 3])
def test_cancel_lets_everything_that_was_read_run_out(parallelism: int) -> None:
    read: list[int] = []
    out: list[int] = []
    enough = threading.Event()

    def source() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number
            if number == 5000:
                enough.set()

    env = LocalEnvironment("cancel", {"parallelism": parallelism})
    env.from_source(source).map(lambda x: x).key_by(lambda x: x).map(lambda x: x).sink(out.append)
    handle = env.submit(block=False)
    assert enough.wait(20)
    assert handle.status() == "running"
    handle.cancel()
    assert handle.wait(20) == "cancelled"
    assert sorted(out) == list(range(len(out)))
    assert read == sorted(out)
    assert handle.metrics().records_in == handle.metrics().records_out == len(out)


def test_cancel_of_a_collection_stops_between_records() -> None:
    out: list[int] = []
    env = LocalEnvironment("slow")

    def slow(value: int) -> None:
        out.append(value)
        if value == 3:
            handle.cancel()
        time.sleep(0.005)

    started = threading.Event()
    env.from_collection(range(100_000)).filter(lambda x: started.wait(10)).sink(slow)
    handle = env.submit(block=False)
    started.set()
    assert handle.wait(20) == "cancelled"
    assert out == list(range(len(out)))
    assert len(out) < 1000


def test_cancel_wakes_a_source_that_waits() -> None:
    """A source that is blocked in its own code does not hold the job."""
    never = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        never.wait(60)

    out: list[int] = []
    env = LocalEnvironment("waits")
    env.from_source(source).sink(out.append)
    handle = env.submit(block=False)
    deadline = time.monotonic() + 10
    while not out and time.monotonic() < deadline:
        time.sleep(0.01)
    handle.cancel()
    assert handle.wait(5) == "cancelled"
    assert out == [1]
    never.set()


def test_a_source_is_not_read_on_after_cancel() -> None:
    """One that was quick and became slow: what it gives later is not taken from it."""
    read: list[int] = []
    out: list[int] = []
    slow, go = threading.Event(), threading.Semaphore(0)

    def source() -> Iterator[int]:
        for number in itertools.count():
            if number == 2000:
                slow.set()
            if number >= 2000:
                go.acquire(timeout=10)
            read.append(number)
            yield number

    env = LocalEnvironment("later")
    env.from_source(source).sink(out.append)
    handle = env.submit(block=False)
    assert slow.wait(10)
    handle.cancel()
    assert handle.wait(10) == "cancelled"
    go.release(100)
    deadline = time.monotonic() + 5
    while any(thread.name.endswith("-reader") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert out == list(range(2000))
    assert len(read) <= 2001


def test_a_file_that_is_read_stays_open(tmp_path: pathlib.Path) -> None:
    (tmp_path / "lines").write_text("a\nb\n")
    with open(tmp_path / "lines") as lines:
        out: list[str] = []
        env = LocalEnvironment("file")
        env.from_source(lines).map(str.strip).sink(out.append)
        env.submit()
        assert not lines.closed
    assert out == ["a", "b"]


def test_abort_leaves_a_hanging_function_behind() -> None:
    never, hanging = threading.Event(), threading.Event()

    def hang(value: int) -> None:
        hanging.set()
        never.wait(60)

    env = LocalEnvironment("hangs")
    env.from_collection([1]).sink(hang)
    handle = env.submit(block=False)
    assert hanging.wait(10)
    handle.abort()
    assert handle.wait(10) == "cancelled"
    never.set()


def test_wait_has_a_deadline() -> None:
    go = threading.Event()
    env = LocalEnvironment("waits")
    env.from_collection([1]).sink(lambda x: go.wait(10))
    handle = env.submit(block=False)
    with pytest.raises(TimeoutError):
        handle.wait(0.01)
    go.set()
    assert handle.wait(10) == "finished"


@pytest.mark.parametrize("fails", [True, False])
def test_no_thread_is_left(fails: bool) -> None:
    env = LocalEnvironment("threads", {"parallelism": 3, "chaining": False})
    env.from_source(iter(range(1000))).map(lambda x: 1 // (x - 500 if fails else 1)).sink(lambda x: None)
    handle = env.submit(block=False)
    try:
        handle.wait(20)
    except PipelineError:
        assert fails
    deadline = time.monotonic() + 5
    while threads_of("threads") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads_of("threads") == []


SCRIPT = """
import itertools, sys, time
from sage.core.api import LocalEnvironment

def source():
    for number in itertools.count():
        yield number
        time.sleep(0.001)

def slow(x):
    if "--hang" in sys.argv:
        sys.stdout.write("hanging\\n")  # one write: print() makes two, and four tasks would mix them
        sys.stdout.flush()
        time.sleep(600)
    return x

env = LocalEnvironment("interrupted", {"parallelism": 2})
env.from_source(source).map(slow).print()
env.submit()
"""
RUN = "import sys; from sage.core.runner import run_file; sys.exit(run_file(sys.argv[1], argv=sys.argv[2:]).exit_code)"


pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def started(tmp_path: pathlib.Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    script = tmp_path / "pipeline.py"
    script.write_text(SCRIPT)
    running: list[subprocess.Popen[str]] = []

    def start(*argv: str) -> subprocess.Popen[str]:
        environment = os.environ | {"SAGE_HOME": str(tmp_path / ".sage")}
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(script), *argv],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.spec("X4", "X11")
def test_ctrl_c_stops_cleanly(started: Callable[..., subprocess.Popen[str]]) -> None:
    """What was read is printed, the exit code is 130."""
    process = started()
    assert process.stdout is not None
    first = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    stderr = process.stderr.read() if process.stderr is not None else ""
    process.wait(20)
    numbers = sorted(first + [int(line) for line in rest.split()])
    assert process.returncode == 130
    assert numbers == list(range(len(numbers)))
    assert "Ctrl-C again" in stderr
    assert "Traceback" not in stderr


@pytest.mark.spec("X4")
def test_a_second_ctrl_c_aborts(started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started("--hang")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


BACKGROUND = """
import time
from sage.core.api import LocalEnvironment
from sage.core.api.function import SinkFunction

class Sink(SinkFunction):
    def process(self, value):
        print(value, flush=True)

    def close(self):
        print("closed", flush=True)

def source():
    while True:
        yield "record"
        time.sleep(0.01)

env = LocalEnvironment("background")
env.from_source(source).sink(Sink)
job = env.submit(block=False)
job.wait()
"""


def test_ctrl_c_stops_a_job_in_the_background(tmp_path: pathlib.Path) -> None:
    """A plain script that dies of Ctrl-C does not go on in silence."""
    script = tmp_path / "pipeline.py"
    script.write_text(BACKGROUND)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "record\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert out.endswith("closed\n")
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT
