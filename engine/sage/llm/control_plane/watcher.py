"""Keeps the registry true: follows daemon.json, asks each engine for its health and its models."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec

from sage.common.home import SageHome
from sage.common.logs import get_logger
from sage.common.stack import read_status
from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator
from sage.llm.control_plane.manager import ControlPlaneManager
from sage.llm.control_plane.upstream import Upstream

_log = get_logger("sage.llm.control_plane")

TICK_SECONDS = 0.2
WELL_SECONDS = 5.0
ILL_SECONDS = 0.4
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=3.0)


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_DECODER = msgspec.json.Decoder(_Models)


class Watcher:
    """One background task. `home` is None where all engines were named on the command line."""

    def __init__(
        self, manager: ControlPlaneManager, coordinator: HttpExecutionCoordinator, home: SageHome | None
    ) -> None:
        self._manager = manager
        self._coordinator = coordinator
        self._home = home
        self._seen: tuple[int, int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._probes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Look once, then keep looking in the background."""
        self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        tasks = [task for task in (self._task, *self._probes) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def refresh(self) -> None:
        """Read daemon.json now, whether or not it changed: a pid in it may have died since."""
        if self._home is None:
            return
        self._seen = self._stamp()
        self._manager.sync(read_status(self._home))

    async def catch_up(self) -> None:
        """Return once each engine that daemon.json calls ready was asked for its models, so that who was told "ready"
        also finds it listed. Costs one stat() where nothing is new."""
        if self._home is not None and self._stamp() != self._seen:
            self.refresh()
        fresh = [one for one in self._manager.upstreams if one.is_news]
        for upstream in fresh:
            upstream.probed_at = time.monotonic()
        await asyncio.gather(*(self._probe(upstream) for upstream in fresh))

    async def _run(self) -> None:
        """Follow the file and probe whoever is due."""
        while True:
            try:
                if self._home is not None and (self._stamp() != self._seen or self._anyone_lost()):
                    self.refresh()
                self._probe_due()
            except Exception:  # whatever one look meets, the next one must still come
                _log.exception("looking after the engines failed")
            await asyncio.sleep(TICK_SECONDS)

    def _anyone_lost(self) -> bool:
        """Whether a managed engine is suspect: daemon.json may still call a dead process ready."""
        return any(upstream.managed and upstream.suspect for upstream in self._manager.upstreams)

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes whenever daemon.json is replaced."""
        assert self._home is not None
        try:
            stat = self._home.daemon_json.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _probe_due(self) -> None:
        """Start a probe of each engine that was not asked for a while: well ones seldom, others often."""
        now = time.monotonic()
        for upstream in self._manager.upstreams:
            pause = WELL_SECONDS if upstream.healthy and upstream.models else ILL_SECONDS
            if upstream.alive and now - upstream.probed_at >= pause:
                upstream.probed_at = now
                task = asyncio.get_running_loop().create_task(self._probe(upstream))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    async def _probe(self, upstream: Upstream) -> None:
        """Ask one engine for its health, and for its models where they may be new."""
        url, before = upstream.url, upstream.healthy
        try:
            well = await self._is_well(url)
            models = await self._models(url, self._coordinator.credentials(upstream)) if well else ()
            reason = "" if well or upstream.state == "starting" else "its /health says no"
        except TimeoutError:
            upstream.healthy = None  # busy is not down: whether it can be reached, the next request will tell
            return
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            well, models, reason = False, (), _reason(error)
        if upstream.url != url:
            return  # it moved while we asked
        if well:
            upstream.found_well(models)
        else:
            upstream.found_down(reason)
        if upstream.healthy != before:
            _log.info("engine is " + ("ready" if well else "down"), engine=upstream.name, url=url, reason=reason)
            self._manager.notify()

    async def _is_well(self, url: str) -> bool:
        """Ask for /health; a server that has no such route is well when it lists its models."""
        async with self._coordinator.session.get(url + "/health", timeout=_PROBE_TIMEOUT) as response:
            return response.status == 200 or response.status == 404

    async def _models(self, url: str, headers: dict[str, str]) -> tuple[str, ...]:
        """Return the ids that /v1/models lists."""
        asked = self._coordinator.session.get(url + "/v1/models", timeout=_PROBE_TIMEOUT, headers=headers)
        async with asked as response:
            return tuple(model.id for model in _DECODER.decode(await response.read()).data)


def _reason(error: Exception) -> str:
    """Return for people why a probe failed."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return (error.os_error.strerror or str(error.os_error)).lower()
    return type(error).__name__
