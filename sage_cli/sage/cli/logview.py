"""Printing logs, shared by ``sage llm logs``, ``sage monitor logs`` and ``sage llm serve --foreground``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sage.cli.output import result, say, style
from sage.cli.suggest import nearest
from sage.common.errors import NotRunningError, UsageError
from sage.common.home import SageHome
from sage.tui.data.tail import LogTail, log_files

POLL_SECONDS = 0.2
_LIKELY_LINE_BYTES = 1000
_LEAST_BYTES = 128 << 10

Line = tuple[str, str]


class LogView:
    """The logs of one home: their last lines, then what is added, without a gap between the two."""

    def __init__(self, home: SageHome, names: list[str] | None = None, *, sleep: Callable[[float], None] = time.sleep):
        self._home = home
        self._names = names
        self._sleep = sleep
        self._tails: dict[str, LogTail] = {}

    def last(self, count: int) -> Iterator[Line]:
        """(log, line) for the last ``count`` lines of each log."""
        first_bytes = max(_LEAST_BYTES, count * _LIKELY_LINE_BYTES)
        for name, path in self._files().items():
            self._tails[name] = LogTail(path, first_bytes)
            lines = _all(self._tails[name])
            yield from ((name, line) for line in lines[max(0, len(lines) - count) :])

    def added(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Line]:
        """(log, line) for what is written from now on, rotated and new logs included, until ``stop`` says so."""
        while not stop():
            for name, path in self._files().items():
                if name not in self._tails:
                    self._tails[name] = LogTail(path)
                yield from ((name, line) for line in _all(self._tails[name]))
            self._sleep(POLL_SECONDS)

    def _files(self) -> dict[str, Path]:
        found = log_files(self._home.logs)
        return {name: path for name, path in found.items() if not self._names or name in self._names}


def show_logs(home: SageHome, names: list[str], *, count: int, following: bool, as_json: bool) -> None:
    """Print the last ``count`` lines of each log, then (``following``) what is added, until Ctrl-C.

    Raises UsageError for an unknown name, NotRunningError where nothing has written a log yet.
    """
    known = list(log_files(home.logs))
    _check(names, known, home, following)
    view = LogView(home, names)
    wanted = names or known
    width = max(len(name) for name in wanted) if len(wanted) > 1 else 0
    print_lines(view.last(count), width=width, as_json=as_json)
    if following:
        say(style("Following; Ctrl-C leaves.", "dim"))
        print_lines(view.added(), width=width, as_json=as_json)


def print_lines(lines: Iterator[Line], *, width: int, as_json: bool = False) -> None:
    """Each line on stdout, with its log's name in a column of ``width`` (0: without)."""
    for name, line in lines:
        if as_json:
            result(json.dumps({"log": name, "line": line}, ensure_ascii=False))
        else:
            result(f"{style(name.ljust(width), 'cyan')} | {line}" if width else line)


def _all(tail: LogTail) -> list[str]:
    """Everything that can be read now (one poll reads a bounded piece)."""
    lines: list[str] = []
    while more := tail.poll().lines:
        lines.extend(more)
    return lines


def _check(names: list[str], known: list[str], home: SageHome, following: bool) -> None:
    if not known and not following:
        raise NotRunningError(
            "There are no logs yet", cause=f"{home.logs} is empty.", hint="Start the services:  sage llm serve"
        )
    for name in names:
        if name not in known and not (following and not known):
            match = nearest(name, known)
            hint = f"Did you mean:  sage llm logs {match[0]}" if match else "sage llm logs"
            raise UsageError(f"There is no log {name!r}", cause=f"There are: {', '.join(known)}.", hint=hint)
