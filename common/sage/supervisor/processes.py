"""Processes of daemons: start one, find those that a supervisor left behind, kill what is left of one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from sage.common import daemon_scan
from sage.common.errors import SageError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.supervisor.spec import DaemonSpec

__all__ = ["ENV_PREFIX", "FoundDaemon", "environment", "find_daemons", "kill_group", "spawn"]

ENV_PREFIX = daemon_scan.NAME_VARIABLE


def environment(spec: DaemonSpec, home: SageHome, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a daemon: `base` (of the command that started it) and the spec's own variables.

    It names home and daemon, so that the process can be found again.
    """
    env = {name: value for name, value in base.items() if not name.startswith(ENV_PREFIX)}
    env.update(spec.env)
    env[daemon_scan.HOME_VARIABLE] = str(home.root)
    env[daemon_scan.NAME_VARIABLE] = spec.name
    env["PYTHONUNBUFFERED"] = "1"
    record = spec.to_dict()
    del record["env"]
    env[daemon_scan.SPEC_VARIABLE] = json.dumps({**record, "env_keys": sorted(spec.env)})
    return env


def spawn(spec: DaemonSpec, home: SageHome, base: Mapping[str, str], log_fd: int) -> subprocess.Popen[bytes]:
    """Start the daemon in a session of its own. Raises OSError when the command cannot be run."""
    return subprocess.Popen(
        spec.argv,
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        cwd=home.root,
        env=environment(spec, home, base),
        start_new_session=True,
    )


class FoundDaemon(NamedTuple):
    """A living daemon and the environment that it was given."""

    identity: ProcessIdentity
    spec: DaemonSpec
    env: Mapping[str, str]


def find_daemons(home: SageHome) -> list[FoundDaemon]:
    """The living daemons of this home, told by their environment."""
    found = []
    for identity, record, env in daemon_scan.scan(home):
        try:
            own = {name: env[name] for name in record.get("env_keys", ()) if name in env}
            found.append(FoundDaemon(identity, DaemonSpec.from_dict(record, own), env))
        except (TypeError, SageError):  # not written by us
            continue
    return found


def kill_group(pid: int, home: SageHome, name: str) -> list[ProcessIdentity]:
    """SIGKILL whatever is left of a daemon's session after its leader `pid`; returns who that was, dying.

    Members are told by their environment, never by the number alone, which may be a stranger's by now.
    """
    killed = []
    for member, _ in daemon_scan.daemon_environments(home, name):
        with contextlib.suppress(OSError):
            identity = ProcessIdentity.of(member)
            if identity is not None and os.getsid(member) == pid:
                os.kill(member, signal.SIGKILL)
                killed.append(identity)
    return killed
