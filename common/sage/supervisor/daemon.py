"""The life of one daemon: start, readiness, watching, restarts, stop.

starting ──ready──► ready ◄──► unhealthy
   │ first start      │ exits, or silent for too long
   ▼                  ▼
 failed          backing-off ──► starting …          crash-loop (gave up)
stop at any time: stopping ──► stopped
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from sage.common import daemon_scan
from sage.common.config.ports import SagePorts, port_holder
from sage.common.home import SageHome
from sage.common.logs import get_logger, tail
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus
from sage.supervisor import processes
from sage.supervisor.handle import ProcessHandle
from sage.supervisor.logfiles import LogFile
from sage.supervisor.policy import HealthPolicy, Probe, RestartPolicy, Tuning, Verdict
from sage.supervisor.probe import Health, look
from sage.supervisor.record import Entry
from sage.supervisor.spec import DaemonSpec

__all__ = ["FAILED", "SETTLED", "Daemon"]

SETTLED = frozenset({"ready", "failed", "crash-loop", "stopped"})
"""The states in which whoever waits for a start has an answer."""
FAILED = frozenset({"failed", "crash-loop"})
"""Those of them in which a person is needed."""

_LOG_LINES_IN_ERROR = 8
_KILLED_S = 30.0
_log = get_logger("sage.supervisor")


class Daemon:
    """One daemon under supervision. `changed()` is called after every change of its status; `environ` is what it gets
    beside the variables of its spec, at every start."""

    def __init__(
        self,
        spec: DaemonSpec,
        home: SageHome,
        tuning: Tuning,
        changed: Callable[[Daemon], None],
        environ: Mapping[str, str],
    ) -> None:
        self.spec = spec
        self.log = LogFile(home.logs / f"{spec.name}.log", tuning.log_max_bytes, tuning.log_backups)
        self.status = DaemonStatus(
            spec.name, spec.kind, "stopped", 0, spec.host, spec.port, spec.url, spec.model, log=str(self.log.path)
        )
        self._home = home
        self._tuning = tuning
        self._changed = changed
        self._environ = environ
        self._restarts = RestartPolicy(tuning, random.uniform)
        self._handle: ProcessHandle | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._was_ready = False
        self._log_start = 0
        self._life: asyncio.Task[None] | None = None

    @property
    def entry(self) -> Entry:
        """The daemon as daemon.json shows it."""
        return Entry(self.status, self._handle.identity if self._handle else None, self.spec)

    @property
    def active(self) -> bool:
        """Whether somebody cares for it: it has a process or will get one."""
        return self._life is not None and not self._life.done()

    def begin(self) -> None:
        """Start it afresh; returns at once."""
        assert not self.active
        self.log.turn_over()
        self._restarts.reset()
        self._was_ready = False
        self.status.restarts = 0
        self.status.last_error = ""
        self._go("starting")

    def adopt(self, identity: ProcessIdentity, known: DaemonStatus | None) -> None:
        """Care for a process that another supervisor started; `known` is what it wrote of it."""
        if known is not None:
            self.status.restarts = known.restarts
            self.status.started_at, self.status.ready_at = known.started_at, known.ready_at
            self._was_ready = known.ready_at is not None
        self._handle = ProcessHandle(identity, None, self._wake.set)
        self._log_start = self.log.size()
        self._go(known.state if known is not None and known.running else "starting")

    def _go(self, state: str) -> None:
        self._stopping = False
        self._wake.clear()
        self._set(state)
        self._life = asyncio.create_task(self._live(), name=f"daemon {self.spec.name}")

    async def stop(self) -> None:
        """Stop it and wait until nothing of it is left."""
        self._stopping = True
        self._wake.set()
        if self._life is not None:
            await asyncio.wait([self._life])
        if self.status.state != "stopped":
            self._set("stopped")

    async def forsake(self) -> None:
        """Leave the process alone and stop caring for it (the supervisor ends, the daemon stays)."""
        if self._life is not None and not self._life.done():
            self._life.cancel()
            await asyncio.wait([self._life])
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    async def _live(self) -> None:
        while True:
            try:
                failure = await self._run_once()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a fault of ours must not leave a daemon without care
                _log.error("supervision failed", daemon=self.spec.name, exc_info=True)
                failure = f"the supervisor failed: {error!r}"
                await self._end()
            if self._stopping:
                self._set("stopped")
                return
            if not await self._after_failure(failure):
                return

    async def _after_failure(self, failure: str) -> bool:
        """Decide what follows an end that nobody asked for; True: start again now."""
        error = "\n".join([failure, *tail(self.log.path, _LOG_LINES_IN_ERROR, since=self._log_start)])
        if not self._was_ready:
            self._set("failed", error)
            return False
        delay = self._restarts.crashed(asyncio.get_running_loop().time())
        if delay is None:
            self._set("crash-loop", error)
            return False
        self._set("backing-off", error)
        await self._pause(delay)
        if self._stopping:
            self._set("stopped")
            return False
        self.status.restarts += 1
        return True

    async def _run_once(self) -> str:
        """One process from its start to its end; returns why it ended."""
        if self._handle is None and (refused := self._spawn()):
            return refused
        failure = await self._until_ready() or await self._watch()
        await self._end()
        code = self.status.exit_code
        if failure:
            return failure
        if code is None:
            return "the process ended"
        return f"exited with code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"

    def _spawn(self) -> str:
        """Start the process; why that is not possible, or "" when it is."""
        self._log_start = self.log.size()
        why = SagePorts.why_unavailable(self.spec.port, self.spec.host or "127.0.0.1")
        if why is not None:
            holder = port_holder(self.spec.port) if why == "in use" else None
            who = f" by pid {holder.pid}: {holder.command}" if holder and holder.pid else ""
            return f"port {self.spec.port} is {why}{who}"
        try:
            fd = self.log.open()
        except OSError as error:
            _log.error("no log file", daemon=self.spec.name, error=str(error))
            fd = os.open(os.devnull, os.O_WRONLY)
        try:
            child = processes.spawn(self.spec, self._home, self._environ, fd)
        except OSError as error:
            return f"cannot start {self.spec.argv[0]}: {error.strerror or error}"
        finally:
            os.close(fd)
        identity = ProcessIdentity.of(child.pid) or ProcessIdentity(child.pid, 0, "")
        self._handle = ProcessHandle(identity, child, self._wake.set)
        self.status.started_at, self.status.ready_at = time.time(), None
        self.status.exit_code = None
        self._set("starting")
        return ""

    async def _until_ready(self) -> str:
        """Wait for readiness; why it did not come, or "" when it did or the process ended or is to be stopped."""
        deadline = asyncio.get_running_loop().time() + self.spec.ready_timeout_s
        told = ""  # its own words are worth more than a later silence
        while not self._over():
            health = await self._look()
            told = told if told and health.probe is Probe.SILENT else health.reason
            if health.probe is Probe.OK and not self._over():
                self._restarts.ready(asyncio.get_running_loop().time())
                self._was_ready = True
                self.status.ready_at = self.status.ready_at or time.time()
                self._set("ready", "")
                return ""
            if asyncio.get_running_loop().time() >= deadline:
                return f"not ready after {self.spec.ready_timeout_s:g} s: {told}"
            await self._pause(self._tuning.ready_poll_s)
        return ""

    async def _watch(self) -> str:
        """Look after a ready process; why it must be replaced, or "" when it ended or is to be stopped."""
        policy = HealthPolicy(self._tuning, restart_sick=self.spec.kind != "gateway")
        while not self._over():
            await self._pause(self._tuning.probe_interval_s)
            if self._over():
                break
            health = await self._look()
            verdict = policy.seen(health.probe)
            if verdict is Verdict.RESTART:
                return f"unhealthy: {health.reason}"
            state = "ready" if verdict is Verdict.HEALTHY else "unhealthy"
            if state != self.status.state or (state == "unhealthy" and health.reason != self.status.last_error):
                self._set(state, health.reason if state == "unhealthy" else "")
        return ""

    async def _look(self) -> Health:
        spec = self.spec
        health = await look(spec.probe_host, spec.port, spec.health_path, self._tuning.probe_timeout_s)
        if health.probe is Probe.OK and self.status.state == "starting":
            stranger = self._stranger_on_port()
            if stranger:
                return Health(Probe.NOT_READY, stranger)
        return health

    def _stranger_on_port(self) -> str:
        """Whether the one who answers on our port is not our daemon: who it is, else ""."""
        holder = port_holder(self.spec.port)
        if holder is None or holder.pid == 0:
            return ""
        family = daemon_scan.daemon_environments(self._home, self.spec.name)  # it or a worker of it
        if any(pid == holder.pid for pid, _ in family):
            return ""
        return f"port {self.spec.port} is held by pid {holder.pid}: {holder.command}"

    def _over(self) -> bool:
        return self._stopping or self._handle is None or self._handle.exited

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the process ends or a stop is asked for."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _end(self) -> None:
        """Make sure that nothing of the process is left: SIGTERM, the grace time, SIGKILL for the whole session."""
        handle = self._handle
        if handle is None:
            return
        if not handle.exited:
            self._set("stopping")
            handle.send(signal.SIGTERM)
            await _exit_of(handle, self.spec.stop_grace_s)
        if not handle.exited:
            _log.warning("did not stop in time, killing it", daemon=self.spec.name, grace_s=self.spec.stop_grace_s)
            handle.send(signal.SIGKILL)
            await _exit_of(handle, _KILLED_S)
        await _deaths_of(processes.kill_group(handle.identity.pid, self._home, self.spec.name), _KILLED_S)
        handle.close()
        self.status.exit_code = handle.exit_code
        self._handle = None
        if not self._stopping:
            self._wake.clear()

    def _set(self, state: str, error: str | None = None) -> None:
        if error is not None:
            self.status.last_error = error
        self.status.state = state
        self.status.pid = self._handle.identity.pid if self._handle else 0
        level = _log.warning if state in ("failed", "crash-loop", "backing-off", "unhealthy") else _log.info
        why: dict[str, Any] = {"error": self.status.last_error.partition("\n")[0]} if self.status.last_error else {}
        level(f"{self.spec.name} is {state}", pid=self.status.pid, **why)
        self._changed(self)


async def _exit_of(handle: ProcessHandle, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await handle.ended.wait()
    except TimeoutError:
        return


async def _deaths_of(killed: list[ProcessIdentity], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while any(one.alive() for one in killed) and loop.time() < deadline:  # noqa: ASYNC110 - they are nobody's children
        await asyncio.sleep(0.01)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
