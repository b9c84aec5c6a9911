"""A small Redis of our own: RESP 2, streams, groups as far as their ids, WATCH / MULTI / EXEC. No Redis is needed to
run the tests; what it does is written from the documentation of the commands."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any


class Store:
    """What is kept; `fail_next` makes the next command of that name break its connection off."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[tuple[int, int], dict[str, str]]]] = {}
        self.values: dict[str, str] = {}
        self.groups: dict[tuple[str, str], str] = {}
        self.fail_next: str | None = None
        self.fail_after: str | None = None  # the command is done, its answer does not arrive
        self.changed = threading.Condition()
        self.versions: dict[str, int] = {}
        self.seen: set[str] = set()  # names of commands

    def add(self, stream: str, **fields: object) -> str:
        """As XADD."""
        with self.changed:
            return str(self.run(["XADD", stream, "*", *(str(x) for pair in fields.items() for x in pair)]))

    def fields(self, stream: str) -> list[dict[str, str]]:
        """All entries."""
        return [fields for _, fields in self.streams.get(stream, [])]

    def run(self, command: list[str]) -> Any:
        """A command; text answers are str, states _Simple, errors _Error."""
        method: Callable[..., Any] | None = getattr(self, f"_{command[0].lower()}", None)
        if method is None:
            return _Error(f"ERR unknown command '{command[0]}'")
        return method(*command[1:])

    def _ping(self) -> Any:
        return _Simple("PONG")

    def _client(self, *_: str) -> Any:
        return _Simple("OK")

    def _auth(self, user: str, password: str) -> Any:
        return _Simple("OK") if (user, password) == ("user", "secret") else _Error("WRONGPASS")

    def _set(self, key: str, value: str, *_: str) -> Any:
        self.values[key] = value
        self.versions[key] = self.versions.get(key, 0) + 1
        return _Simple("OK")

    def _exists(self, key: str) -> int:
        return int(key in self.values)

    def _xadd(self, stream: str, *rest: str) -> str:
        if rest[0].upper() == "MAXLEN":
            rest = rest[3:] if rest[1] in "~=" else rest[2:]
        if len(rest) < 3 or len(rest) % 2 == 0:
            raise AssertionError(f"wrong XADD: {rest}")
        entries = self.streams.setdefault(stream, [])
        newest = entries[-1][0] if entries else (0, 0)
        entry_id = (newest[0], newest[1] + 1) if rest[0] == "*" else _parsed(rest[0])
        entries.append((entry_id, dict(zip(rest[1::2], rest[2::2], strict=True))))
        self.changed.notify_all()
        return _shown(entry_id)

    def _xrevrange(self, stream: str, newest: str, oldest: str, *rest: str) -> list[Any]:
        count = int(rest[1]) if rest else None
        return [_entry(entry) for entry in self.streams.get(stream, [])[::-1][:count]]

    def _xgroup(self, action: str, stream: str, group: str, position: str, *rest: str) -> Any:
        if action == "CREATE":
            if (stream, group) in self.groups:
                return _Error("BUSYGROUP Consumer Group name already exists")
            if "MKSTREAM" in rest:
                self.streams.setdefault(stream, [])
        self.groups[stream, group] = position
        return _Simple("OK")

    def _xread(self, *rest: str) -> Any:
        options = dict(zip(rest[0::2], rest[1::2], strict=False))
        at = rest.index("STREAMS") + 1
        half = (len(rest) - at) // 2
        wanted = dict(zip(rest[at : at + half], map(_parsed, rest[at + half :]), strict=True))

        def found() -> list[Any]:
            new = {
                s: [e for e in self.streams.get(s, []) if e[0] > p][: int(options["COUNT"])] for s, p in wanted.items()
            }
            return [[stream, [_entry(entry) for entry in entries]] for stream, entries in new.items() if entries]

        if not found():
            self.changed.wait_for(found, int(options["BLOCK"]) / 1000)
        return found() or None


class Connection:
    """Speaks with one client."""

    def __init__(self, store: Store, connection: socket.socket) -> None:
        self._store = store
        self._connection = connection
        self._file = connection.makefile("rb")
        self._queue: list[list[str]] | None = None
        self._watched: dict[str, int] = {}

    def serve(self) -> None:
        """Until the client goes away."""
        while command := self._command():
            with self._store.changed:
                self._store.seen.add(command[0])
                if self._broken(command, "fail_next"):
                    return
                answer = self._answer(command)
                if self._broken(command, "fail_after"):
                    return
            self._connection.sendall(_encoded(answer))

    def _broken(self, command: list[str], when: str) -> bool:
        if getattr(self._store, when) != command[0].upper():
            return False
        setattr(self._store, when, None)
        self._connection.close()
        return True

    def _answer(self, command: list[str]) -> Any:
        name, store = command[0].upper(), self._store
        if name == "HELLO":
            return _Error("ERR unknown command 'HELLO'")
        if name == "WATCH":
            self._watched = {key: store.versions.get(key, 0) for key in command[1:]}
            return _Simple("OK")
        if name in ("UNWATCH", "DISCARD"):
            self._watched, self._queue = {}, None
            return _Simple("OK")
        if name == "MULTI":
            self._queue = []
            return _Simple("OK")
        if name == "EXEC":
            queue, self._queue = self._queue or [], None
            unchanged = all(store.versions.get(key, 0) == version for key, version in self._watched.items())
            self._watched = {}
            return [store.run(queued) for queued in queue] if unchanged else None
        if self._queue is not None:
            self._queue.append(command)
            return _Simple("QUEUED")
        return store.run(command)

    def _command(self) -> list[str]:
        head = self._file.readline()
        if not head.startswith(b"*"):
            return []
        return [self._file.read(int(self._file.readline()[1:]) + 2)[:-2].decode() for _ in range(int(head[1:]))]


class _Simple(str):
    """A state."""


class _Error(str):
    """An error."""


def _parsed(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def _shown(entry_id: tuple[int, int]) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


def _entry(entry: tuple[tuple[int, int], dict[str, str]]) -> list[Any]:
    return [_shown(entry[0]), [text for pair in entry[1].items() for text in pair]]


def _encoded(answer: Any) -> bytes:
    if answer is None:
        return b"*-1\r\n"
    if isinstance(answer, _Simple):
        return f"+{answer}\r\n".encode()
    if isinstance(answer, _Error):
        return f"-{answer}\r\n".encode()
    if isinstance(answer, int):
        return f":{answer}\r\n".encode()
    if isinstance(answer, list):
        return f"*{len(answer)}\r\n".encode() + b"".join(map(_encoded, answer))
    data = str(answer).encode()
    return f"${len(data)}\r\n".encode() + data + b"\r\n"
