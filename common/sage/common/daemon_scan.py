"""Finding daemons among the processes, whatever any file says.

Every daemon carries its `.sage/`, its name and its specification in its environment, which only its own user can read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from sage.common.home import SageHome
from sage.common.process import ProcessIdentity

__all__ = ["HOME_VARIABLE", "NAME_VARIABLE", "SPEC_VARIABLE", "Found", "daemon_environments", "scan"]

HOME_VARIABLE = "SAGE_HOME"
NAME_VARIABLE = "SAGE_DAEMON"
SPEC_VARIABLE = "SAGE_DAEMON_SPEC"


class Found(NamedTuple):
    """A living daemon: who it is, its specification as plain values (argv, host, port …), its environment."""

    identity: ProcessIdentity
    spec: dict[str, Any]
    env: dict[str, str]


def scan(home: SageHome) -> list[Found]:
    """The daemons of this home that live. Their workers, which inherit the environment, lead no session and do not
    count."""
    found = []
    for pid, env in daemon_environments(home):
        try:
            leads = os.getsid(pid) == pid
            spec = json.loads(env.get(SPEC_VARIABLE, ""))
        except (OSError, ValueError):
            continue
        identity = ProcessIdentity.of(pid)
        if leads and identity is not None and isinstance(spec, dict) and spec.get("name") == env[NAME_VARIABLE]:
            found.append(Found(identity, spec, env))
    return found


def daemon_environments(home: SageHome, name: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Every process that belongs to a daemon of this home (or to the one of that name), with its environment."""
    root = os.path.realpath(home.root)
    for pid, env in _environments() if sys.platform.startswith("linux") else _environments_psutil():
        own = env.get(NAME_VARIABLE)
        if own and name in (None, own) and os.path.realpath(env.get(HOME_VARIABLE, "")) == root:
            yield pid, env


def _environments() -> Iterator[tuple[int, dict[str, str]]]:
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all we need
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                data = file.read()
        except OSError:
            continue
        if NAME_VARIABLE.encode() in data:
            pairs = (item.partition("=") for item in os.fsdecode(data).split("\0") if item)
            yield int(name), {key: value for key, _, value in pairs}


def _environments_psutil() -> Iterator[tuple[int, dict[str, str]]]:
    import psutil

    for process in psutil.process_iter():
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue
        if NAME_VARIABLE in env:
            yield process.pid, env
