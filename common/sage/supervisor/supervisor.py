"""The supervisor: all daemons of one `.sage/`, and daemon.json in step with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sage.common.errors import DaemonError, SageError, StateError
from sage.common.home import SageHome
from sage.common.logs import get_logger
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus
from sage.supervisor import processes, record, wire
from sage.supervisor.daemon import FAILED, SETTLED, Daemon
from sage.supervisor.logfiles import LogFile
from sage.supervisor.policy import Tuning
from sage.supervisor.spec import DaemonSpec

__all__ = ["Supervisor"]

_SLACK_S = 5.0
_log = get_logger("sage.supervisor")


class Supervisor:
    """Use inside a running event loop, and only while holding `.sage/lock`."""

    def __init__(self, home: SageHome, tuning: Tuning | None = None) -> None:
        self.home = home
        self.tuning = tuning or Tuning()
        self.daemons: dict[str, Daemon] = {}
        self.notes: list[str] = []
        self.done = asyncio.Event()
        self._me = {**ProcessIdentity.current()._asdict(), "started_at": time.time()}
        self._listeners: set[asyncio.Queue[DaemonStatus]] = set()
        self._order = asyncio.Lock()
        self._housekeeping: asyncio.Task[None] | None = None
        self.leave_daemons = False
        self._lock = _file_id(home.lock)
        self._quiet_since: float | None = None
        self._written: tuple[int, int, int] | None = None
        self.clients = 0

    def take_over(self) -> None:
        """Adopt the daemons that a killed supervisor left, clear the dead ones, begin to look after files."""
        known, self.notes = record.load(self.home)
        living = {found.spec.name: found for found in processes.find_daemons(self.home)}
        for name, entry in known.items():
            if name not in living and entry.identity is not None and entry.identity.alive():
                living[name] = processes.FoundDaemon(entry.identity, entry.spec, os.environ)
        for name, found in living.items():
            status = known[name].status if name in known else None
            daemon = Daemon(found.spec, self.home, self.tuning, self._changed, found.env)
            self.daemons[name] = daemon
            daemon.adopt(found.identity, status)
            _log.info("adopted", daemon=name, pid=found.identity.pid)
        self.save()
        self._housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")

    def statuses(self, names: Iterable[str] | None = None) -> list[DaemonStatus]:
        wanted = list(self.daemons) if names is None else [name for name in names if name in self.daemons]
        return [self.daemons[name].status for name in wanted]

    async def start(
        self,
        specs: Sequence[DaemonSpec],
        *,
        replace: bool = False,
        notes: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Begin to start what does not run yet; returns before it is ready. `environ`: what the daemons get beside
        the variables of their specs (default: what this process has).

        Raises DaemonError when one runs with another specification and `replace` is not set; nothing is started then.
        """
        async with self._order:
            if self.done.is_set():
                raise DaemonError("The supervisor is just ending", hint="Run the command again", code=wire.ENDING)
            different = [s for s in specs if self._runs(s.name) and not self.daemons[s.name].spec.same_as(s)]
            if different and not replace:
                raise _conflict(self.daemons[different[0].name], different[0])
            await asyncio.gather(*(self.daemons[spec.name].stop() for spec in different))
            self.notes = [*(note for note in self.notes if note not in notes), *notes][-20:]
            for spec in specs:
                if not self._runs(spec.name):
                    base = os.environ if environ is None else environ
                    self.daemons[spec.name] = Daemon(spec, self.home, self.tuning, self._changed, dict(base))
                    self.daemons[spec.name].begin()

    async def stop(self, names: Iterable[str] | None = None) -> list[DaemonStatus]:
        """Stop these daemons (all of them when None) and return what became of them.

        Raises DaemonError for a name that nobody knows. When none is left, `done` is set: the supervisor may end.
        """
        async with self._order:
            stopped = self._named(names)
            await asyncio.gather(*(daemon.stop() for daemon in stopped))
            if not any(daemon.active for daemon in self.daemons.values()):
                self.notes = []
                self.done.set()
            self.save()
            return [daemon.status for daemon in stopped]

    async def restart(self, names: Iterable[str] | None = None) -> list[str]:
        """Stop these daemons and begin to start them again; returns their names."""
        async with self._order:
            daemons = self._named(names)
            await asyncio.gather(*(daemon.stop() for daemon in daemons))
            for daemon in daemons:
                daemon.begin()
            return [daemon.spec.name for daemon in daemons]

    async def settle(self, names: Sequence[str]) -> AsyncGenerator[DaemonStatus, None]:
        """Every change of these daemons until all are ready or one has failed; begins with what they are now.

        A daemon that is up and stays unhealthy is not waited for beyond its time to become ready.
        """
        specs = [self.daemons[name].spec for name in names]
        patience = max([spec.ready_timeout_s + spec.stop_grace_s for spec in specs], default=0.0) + _SLACK_S
        deadline = asyncio.get_running_loop().time() + patience
        with self._listening() as changes:
            for status in self.statuses(names):
                yield status
            while not (changes.empty() and self._settled(names)):
                try:
                    async with asyncio.timeout_at(deadline):
                        status = await changes.get()
                except TimeoutError:
                    return
                if status.name in names:
                    yield status

    def _settled(self, names: Sequence[str]) -> bool:
        states = {status.state for status in self.statuses(names)}
        return bool(states & FAILED) or states <= SETTLED

    async def close(self, *, stop_daemons: bool) -> None:
        """End: with the daemons, or leaving them to the next supervisor."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
        act = Daemon.stop if stop_daemons else Daemon.forsake
        await asyncio.gather(*(act(daemon) for daemon in self.daemons.values()))
        if stop_daemons:
            self.save(supervisor_ends=True)

    def save(self, *, supervisor_ends: bool = False) -> None:
        """Write daemon.json; a full disk is logged and survived."""
        entries = [daemon.entry for daemon in self.daemons.values()]
        try:
            record.save(self.home, None if supervisor_ends else self._me, entries, self.notes)
            self._written = self._stamp()
        except StateError as error:
            self._written = None
            _log.error("cannot write daemon.json", error=str(error))

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            info = self.home.daemon_json.stat()
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns, info.st_size

    def _changed(self, daemon: Daemon) -> None:
        self.save()
        for listener in self._listeners:
            listener.put_nowait(DaemonStatus.from_record(daemon.spec.name, daemon.status.to_dict()))

    @contextlib.contextmanager
    def _listening(self) -> Iterator[asyncio.Queue[DaemonStatus]]:
        changes: asyncio.Queue[DaemonStatus] = asyncio.Queue()
        self._listeners.add(changes)
        try:
            yield changes
        finally:
            self._listeners.discard(changes)

    def _runs(self, name: str) -> bool:
        return name in self.daemons and self.daemons[name].active

    def _named(self, names: Iterable[str] | None) -> list[Daemon]:
        if names is None:
            return list(self.daemons.values())
        wanted = list(names)
        unknown = [name for name in wanted if name not in self.daemons]
        if unknown:
            raise DaemonError(
                f"There is no daemon {unknown[0]!r}",
                cause=f"known: {', '.join(sorted(self.daemons)) or 'none'}",
                hint="See them all:  sage llm status",
            )
        return [self.daemons[name] for name in wanted]

    async def _keep_house(self) -> None:
        """Rotate logs, keep daemon.json ours, end when there was nothing to care for and nobody to serve for long."""
        own = LogFile(self.home.logs / "supervisor.log", self.tuning.log_max_bytes, self.tuning.log_backups)
        while True:
            await asyncio.sleep(self.tuning.log_check_s)
            for log in (own, *(daemon.log for daemon in self.daemons.values())):
                if log.rotate_if_big():
                    _log.info("rotated", file=log.path.name)
            if self._ousted():
                return
            if self._written is None or self._written != self._stamp():
                _log.warning("daemon.json was changed or lost, writing it again")
                self.save()
            self._end_when_idle(time.monotonic())

    def _ousted(self) -> bool:
        """End when `.sage/` was removed under us; leave the daemons alone when a successor has taken them."""
        if self._lock is None or self._lock == _file_id(self.home.lock):
            return False
        self.leave_daemons = self.home.lock.exists()
        _log.warning("the lock is not ours any more, ending", daemons="left" if self.leave_daemons else "stopped")
        self.done.set()
        return True

    def _end_when_idle(self, now: float) -> None:
        if self.clients or any(daemon.active for daemon in self.daemons.values()):
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= self.tuning.idle_exit_s:
            _log.info("nothing to supervise, ending")
            self.done.set()


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _conflict(running: Daemon, wanted: DaemonSpec) -> SageError:
    was, now = running.spec, wanted
    names = ("argv", "host", "port", "model", "env", "kind")
    changed = [name for name in names if getattr(was, name) != getattr(now, name)]
    shown = [f"{name} {getattr(was, name)} → {getattr(now, name)}" for name in changed if name not in ("argv", "env")]
    return DaemonError(
        f"{now.name} is already running with other settings",
        cause="; ".join(shown) or f"different {' and '.join(changed)}",
        hint="Stop it first:  sage llm stop   (then start it again with the new settings)",
        details={"daemon": now.name, "changed": changed},
    )
