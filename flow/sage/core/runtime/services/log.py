"""The log of what services answered, and services that answer from it.

A file of frames, appended while a job runs: length, CRC-32, and (in msgpack) the call's key, what is the same for equal
calls of its operator, whether it was answered or failed, and the answer or error as values in state are written. The
log is the job's own: see `sage.core.state.serialization`. A frame that was cut short, and what follows, is left out.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from sage.common.errors import ServiceError, StateError
from sage.core.api.function.call_origin import CallOrigin, current_origin
from sage.core.api.function.service_calls import ServiceProvider
from sage.core.runtime.answer import Answer
from sage.core.runtime.services.registry import ServiceProxy
from sage.core.state.serialization import dump, load

__all__ = ["AnswerFile", "RecordingServices", "ReplayedServices", "read_answers"]

_HEAD = struct.Struct("<II")
_SUFFIX = ".answers"

Frame = tuple[bytes, bytes, bool, bytes]


class AnswerFile:
    """Takes the answers of one run, in a file of its own in `folder`; open until nobody refers to it.

    Thread-safe. What was appended survives a kill of the process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._fd: int | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """In another process: a file of its own."""
        return type(self), (self._folder,)

    def append(self, key: bytes, alike: bytes, answer: Any, error: BaseException | None) -> None:
        """Raises ServiceError when it cannot be written: a gap would be found only when the log is needed."""
        try:
            value = dump(answer if error is None else error)
        except StateError as failure:
            kind = type(answer if error is None else error).__name__
            if error is None:
                raise ServiceError(
                    f"A {kind} that a service answered cannot be recorded",
                    cause=failure.cause,
                    hint="answer with plain data, or switch services.record off",
                ) from failure
            value = dump(ServiceError(f"{kind}: {error}"))
        frame = msgspec.msgpack.encode((key, alike, error is None, value))
        try:
            with self._lock:
                if self._fd is None:
                    self._fd = self._opened()
                os.write(self._fd, _HEAD.pack(len(frame), zlib.crc32(frame)) + frame)
        except OSError as failure:
            raise ServiceError(
                f"Answers of services cannot be recorded in {self._folder}", cause=failure.strerror or str(failure)
            ) from failure

    def _opened(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, fd)
        return fd


def read_answers(folder: Path) -> Iterator[Frame]:
    """All frames of all runs, the oldest first."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        data = path.read_bytes()
        position = 0
        while position + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, position)
            start = position + _HEAD.size
            frame = data[start : start + length]
            if len(frame) < length or zlib.crc32(frame) != checksum:
                break
            yield msgspec.msgpack.decode(frame, type=Frame)
            position = start + length


def _digest(name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """What makes two calls equal."""
    try:
        content = dump((name, method, list(args), sorted(kwargs.items())))
    except StateError:
        content = repr((name, method, args, sorted(kwargs.items()))).encode("utf-8", "surrogateescape")
    return sha256(content).digest()


class RecordingServices:
    """The services of an environment; what they answer to operators is recorded, in the order in which it came."""

    def __init__(self, services: ServiceProvider, file: AnswerFile) -> None:
        self._services = services
        self._file = file

    @property
    def names(self) -> list[str]:
        """Those that are registered."""
        return list(getattr(self._services, "names", ()))

    def get(self, name: str) -> Any:
        """What stands before the service; its plain attributes can be read."""
        return ServiceProxy(self, name, self._services.get(name))

    def call(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See ServiceProvider."""
        keep = self._keeper(name, method, args, kwargs)
        try:
            answer = self._services.call(name, method, args, kwargs)
        except Exception as error:
            keep(None, error)
            raise
        keep(answer, None)
        return answer

    def submit(
        self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> Answer[Any]:
        """See ServiceProvider."""
        keep = self._keeper(name, method, args, kwargs)
        outcome: Answer[Any] = Answer()

        def answered(future: Future[Any]) -> None:
            try:
                answer = future.result()
                keep(answer, None)
            except Exception as error:
                if future.exception() is error:
                    keep(None, error)
                outcome.set_exception(error)
            else:
                outcome.set_result(answer)

        self._services.submit(name, method, args, kwargs, timeout).add_done_callback(answered)
        return outcome

    def _keeper(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records the answer of one call; calls that no operator makes are not recorded."""
        origin = current_origin()
        if origin is None:
            return lambda answer, error: None
        digest = _digest(name, method, args, kwargs)
        return partial(self._file.append, origin.key(digest), origin.alike(digest))


class ReplayedServices:
    """Answers from a log; no service is made or called.

    A call is known by its record's position and its content. Where records came in another order than then, equal calls
    of the operator get the recorded answers in turn.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.names = names
        self._folder = folder
        self._lock = threading.Lock()
        self._answers: dict[bytes, tuple[bool, bytes]] = {}
        self._alike: dict[bytes, deque[bytes]] = {}
        for key, alike, good, value in read_answers(folder):
            self._answers[key] = good, value
            self._alike.setdefault(alike, deque()).append(key)

    def get(self, name: str) -> Any:
        """Whatever method it is asked for is looked up in the log."""
        return ServiceProxy(self, name)

    def call(self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See ServiceProvider. Raises ServiceError for a call that was not recorded."""
        origin = current_origin()
        found = None if origin is None else self._found(origin, _digest(name, method, args, kwargs))
        if found is None:
            called = name if method is None else f"{name}.{method}"
            raise ServiceError(
                f"There is no recorded answer of {called!r} for this call",
                cause=f"{self._folder} has {len(self._answers)} answers, none to these arguments",
                hint="record with services.record: true; a changed program asks other things",
            )
        good, value = found
        answer = load(value)
        if not good:
            raise answer
        return answer

    def submit(
        self, name: str, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None
    ) -> Answer[Any]:
        """See ServiceProvider."""
        future: Answer[Any] = Answer()
        try:
            future.set_result(self.call(name, method, args, kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def _found(self, origin: CallOrigin, digest: bytes) -> tuple[bool, bytes] | None:
        exact = self._answers.get(origin.key(digest))
        if exact is not None:
            return exact
        with self._lock:
            keys = self._alike.get(origin.alike(digest))
            if not keys:
                return None
            keys.rotate(-1)
            return self._answers[keys[-1]]
