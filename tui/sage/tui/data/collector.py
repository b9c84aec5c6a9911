"""The one object that looks: files, sockets, processes → one immutable :class:`Snapshot` at a time.

It blocks while it looks (at most about two seconds, when daemons hang), so the dashboard calls it from a thread of its
own. It keeps what rates need between calls and nothing else; it never writes under ``.sage``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sage.common.stack import StackStatus, read_status
from sage.tui.data.jobs import JobReader
from sage.tui.data.model import EmbeddingView, EngineView, GatewayView, Snapshot, StackView
from sage.tui.data.system import SystemReader
from sage.tui.data.views import embedding_view, engine_view, gateway_view
from sage.tui.data.watch import Watch

if TYPE_CHECKING:
    from sage.common.home import SageHome

__all__ = ["Collector"]


class Collector:
    """Collects snapshots of one ``.sage`` home. Not thread-safe: one caller at a time.

    ``clock`` is monotonic and measures rates and ages; ``wall`` is the time of day.
    """

    def __init__(
        self,
        home: SageHome,
        *,
        timeout_s: float = 0.8,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        system: SystemReader | None = None,
    ) -> None:
        self.home = home
        self.selected_job: str | None = None
        self._timeout = timeout_s
        self._clock = clock
        self._wall = wall
        self._system = system or SystemReader(home.root)
        self._jobs = JobReader(home)
        self._watches: dict[str, Watch] = {}
        self._status = StackStatus(supervisor_alive=False, supervisor_pid=None)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sage-scrape")

    def collect(self) -> Snapshot:
        """Look once. Never raises for what daemons, files or the database do."""
        status = self._read_status()
        self._follow(status)
        watches = list(self._watches.values())
        now = self._clock()
        list(self._pool.map(lambda watch: watch.ask(now), watches))
        for watch in watches:
            watch.remember()
        now, wall = self._clock(), self._wall()
        jobs, note = self._jobs.read(now, wall, selected=self.selected_job)
        engines, gateway, embeddings = self._loads(now)
        return Snapshot(
            taken_at=wall,
            home=str(self.home.root),
            system=self._system.read(),
            stack=StackView(
                supervisor_pid=status.supervisor_pid,
                supervisor_alive=status.supervisor_alive,
                daemons=tuple(watch.view(now, wall) for watch in watches),
            ),
            engines=engines,
            gateway=gateway,
            embeddings=embeddings,
            jobs=jobs,
            notes=(*status.notes, note) if note else tuple(status.notes),
        )

    def _read_status(self) -> StackStatus:
        """What runs; while daemon.json is damaged, the daemons of the last good one together with the note."""
        status = read_status(self.home)
        if status.notes and not status.daemons:
            status.daemons = self._status.daemons
        self._status = status
        return status

    def _follow(self, status: StackStatus) -> None:
        known, self._watches = self._watches, {}
        for daemon in status.daemons:
            watch = known.pop(daemon.name, None) or Watch(daemon, self._timeout)
            watch.follow(daemon)
            self._watches[daemon.name] = watch
        for gone in known.values():
            gone.close()

    def _loads(self, now: float) -> tuple[tuple[EngineView, ...], GatewayView | None, tuple[EmbeddingView, ...]]:
        engines: list[EngineView] = []
        embeddings: list[EmbeddingView] = []
        gateway: GatewayView | None = None
        for name, watch in self._watches.items():
            common = (watch.state, watch.meter, watch.past, watch.fresh(now))
            match watch.record.kind:
                case "llm":
                    engines.append(engine_view(name, watch.record.model, *common))
                case "embedding":
                    embeddings.append(embedding_view(name, watch.record.model, *common))
                case "gateway":
                    gateway = gateway_view(*common)
        return tuple(engines), gateway, tuple(embeddings)

    def close(self) -> None:
        """Let go of connections, threads and the database."""
        for watch in self._watches.values():
            watch.close()
        self._jobs.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
