"""Prefill and decode apart: an engine whose steps run on nodes, each a process with a model and a cache of its own.

`PDSeparatedExecutor` stands where a single process has its `EngineCore`: requests go in, updates come out. What goes to
which node is the `Router`'s business; this file has the processes, the connections and the thread that drives both.
Splitting the phases keeps long prompts from stalling running answers (Patel et al. 2024, "Splitwise"; Zhong et al.
2024, "DistServe"). Torch is in the nodes only.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, NoReturn

from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_core.groups import search_width
from sagellm_core.engine_core.limits import Limits, SchedulerConfig
from sagellm_core.engine_core.messages import CoreStats, Submission, Update
from sagellm_core.errors import EngineError, invalid, not_implemented
from sagellm_core.executor.multi_process import thread_share
from sagellm_core.executor.process import ChildProcess
from sagellm_core.nodes.link import Link, NodeSpec, reach
from sagellm_core.nodes.messages import Down, Halt, NodeAnswer, Setup, Up
from sagellm_core.nodes.router import Router
from sagellm_core.nodes.state import NodeState, Role, sum_up
from sagellm_core.wire import Connection, Fault
from sagellm_protocol.errors import Error, ErrorCode
from sagellm_protocol.sampling import SamplingParams

__all__ = ["NodeSpec", "PDSeparatedExecutor"]

_LOG = logging.getLogger("sagellm_core")
_RESTARTS = 3
_RESTART_WINDOW_S = 60.0
_RECONNECT_EVERY_S = 0.5
_TICK_S = 0.25
_STOP_WITHIN_S = 5.0
_SILENCE_S = 20.0


class PDSeparatedExecutor:
    """Runs requests on nodes. Driven by one thread (`run`); `deliver` is called on it.

    Raises EngineError (invalid_argument) for a configuration without prefix cache.
    """

    def __init__(
        self,
        config: LLMEngineConfig,
        specs: list[NodeSpec],
        deliver: Callable[[list[Update]], None],
        *,
        threshold_tokens: int,
        transport: str = "auto",
        host: str = "127.0.0.1",
        token: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not config.enable_prefix_cache:
            raise invalid(
                "blocks of other nodes are found in the prefix cache: it cannot be off", "enable_prefix_cache"
            )
        self.config = config
        self._specs = specs
        self._transport = transport
        self._host = host
        self._token = token or secrets.token_hex(16)
        self._clock = clock
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._router = Router(
            self._count(deliver), clock, block_size=config.kv_cache_block_size, threshold_tokens=threshold_tokens
        )
        self._links: dict[str, Link] = {}
        self._folder: Path | None = None
        self._door = threading.Lock()
        self._closed = False
        self._stopping = False
        self._ready = False
        self.asleep = False
        self.stats = CoreStats(block_size=config.kv_cache_block_size)
        self.failure: BaseException | None = None

    # -- from any thread ----------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        """Hand in a request; its updates come through `deliver`, the last one with a finish reason, whatever happens.

        Raises EngineError (unavailable) when the loop has ended.
        """
        with self._door:
            if self._closed:
                raise EngineError(ErrorCode.UNAVAILABLE, "the engine stopped")
            self.stats.prompt_tokens += len(submission.prompt)
            self._events.put(lambda: self._router.submit(submission))

    def cancel(self, seq_id: str) -> None:
        """End a request soon; unknown ids are passed over."""
        self._events.put(lambda: self._router.cancel(seq_id))

    def stop(self) -> None:
        self._events.put(None)

    def sleep(self) -> NoReturn:
        """Raise: nodes are ended, not put to sleep."""
        raise not_implemented("a runtime of several nodes cannot sleep; stop it, and start it again")

    wake = sleep

    def reload(self, new_executor: object, limits: object) -> NoReturn:
        """Raise: another model needs other nodes."""
        raise not_implemented("a runtime of several nodes cannot load another model; start another one")

    @property
    def healthy(self) -> bool:
        """Whether some node that decodes runs, or is coming back."""
        able = [node for node in self._router.nodes.values() if node.role is not Role.PREFILL]
        return self._ready and not self._stopping and any(node.up or node.returning for node in able)

    def refusal(self, num_prompt: int, max_total: int | None, sampling: SamplingParams) -> str | None:
        """Why a prompt of this length can never run on the nodes that decode; None when it can."""
        able = [node for node in self.nodes if node.role is not Role.PREFILL and node.stats.kv_blocks]
        blocks = min((node.stats.kv_blocks for node in able), default=0)
        length = min((node.max_model_len for node in able), default=0)
        limits = SchedulerConfig(self.config.max_batch_size, None, length)
        return Limits(limits, blocks, self.config.kv_cache_block_size).refusal(
            num_prompt, max_total, search_width(sampling)
        )

    @property
    def nodes(self) -> list[NodeState]:
        """The nodes as they are now."""
        return list(self._router.nodes.values())

    def pids(self) -> dict[str, int]:
        """Process ids of the nodes on this host, by name."""
        return {name: link.child.pid for name, link in self._links.items() if link.child is not None}

    @property
    def router(self) -> Router:
        return self._router

    # -- on the driving thread ----------------------------------------------------------------------------------

    def run(self, on_ready: Callable[[BaseException | None], None]) -> None:
        """Start the nodes, report through `on_ready` (None, or why not), then route until `stop`."""
        try:
            self._start()
        except BaseException as error:  # whoever waits for the start gets it
            self._end_nodes()
            on_ready(error)
            return
        self._ready = True
        on_ready(None)
        try:
            self._route()
        finally:
            self._stopping = True
            with self._door:
                self._closed = True
            self._drain()
            self._router.end_all(Error(code=ErrorCode.UNAVAILABLE, message="the engine stopped", retryable=True))
            self._end_nodes()

    def _route(self) -> None:
        ticked = self._clock()
        while True:
            try:
                event = self._events.get(timeout=_TICK_S)
            except Empty:
                pass
            else:
                if event is None:
                    return
                event()
            self._gather()
            now = self._clock()
            if now - ticked >= _TICK_S:
                self._tick(now, now - ticked)
                ticked = now

    def _tick(self, now: float, passed: float) -> None:
        """Look after deadlines, and after nodes that neither speak nor close their connection (stopped, cut off)."""
        self._router.expire()
        if passed > _SILENCE_S / 2:  # it was this process that stood still
            for node in self.nodes:
                node.heard_at = now
        for node in self._router.silent(now - _SILENCE_S):
            _LOG.error("node %s has said nothing for %.0f s", node.name, _SILENCE_S)
            link = self._links[node.name]
            node.heard_at = now
            if link.child is not None:
                link.child.process.kill()
            elif link.connection is not None:
                link.connection.close()

    def _drain(self) -> None:
        """Requests that came with the order to stop are told like the others."""
        while not self._events.empty():
            event = self._events.get()
            if event is not None:
                event()

    def _start(self) -> None:
        """Start every node at once and wait for all. Raises what the first that fails says."""
        self._folder = Path(tempfile.mkdtemp(prefix="sage-nodes-"))
        for spec in self._specs:
            state = self._router.add_node(spec.name, spec.role, lambda _: None)
            link = self._links[spec.name] = Link(spec, state)
            state.send = link.send
            self._connect(link)
        while any(not link.state.up for link in self._links.values()):
            event = self._events.get()
            if event is None:
                raise EngineError(ErrorCode.UNAVAILABLE, "the engine was stopped while it started")
            event()
            if self.failure is not None:
                raise self.failure
        first = next(iter(self._links.values())).state.stats
        self.stats.bytes_per_token, self.stats.dtype = first.bytes_per_token, first.dtype
        self.stats.device = {**first.device, "nodes": {name: str(link.spec.role) for name, link in self._links.items()}}
        self._gather()

    def _connect(self, link: Link) -> None:
        """Start or reach a node and tell it what to load. Raises OSError, EngineError."""
        spec, host = link.spec, self._host
        if spec.address:
            host, _, port = spec.address.rpartition(":")
            connection = reach(host, int(port))
        else:
            assert self._folder is not None
            local = [each for each in self._specs if not each.address]
            link.child = ChildProcess(
                "sagellm_core.nodes.node",
                f"node {spec.name}",
                self._folder / f"{spec.name}-{len(link.ends)}.log",
                NodeAnswer,
                env=thread_share(self.config, len(local)),
            )
            connection = link.child.control
        link.connection = connection
        settings = self.config.model_dump(mode="json")
        folder = "" if spec.address else str(self._folder)
        connection.send(Setup(spec.name, settings, self._token, host, self._transport, folder))
        threading.Thread(target=self._read, args=(link, connection), name=f"sage-from-{spec.name}", daemon=True).start()

    def _read(self, link: Link, connection: Connection) -> None:
        """On a thread of its own: everything that a node says becomes an event."""
        try:
            while True:
                message, _ = connection.receive()
                self._events.put(lambda message=message: self._on_message(link, message))  # type: ignore[misc]
        except (OSError, EOFError) as error:
            why = str(error)
            self._events.put(lambda: self._on_lost(link, connection, why))

    def _on_message(self, link: Link, message: Any) -> None:
        if isinstance(message, Fault):
            self.failure = message.error()
        elif isinstance(message, Down):
            _LOG.error("node %s cannot go on: %s", link.spec.name, message.fault.title)
            if link.connection is not None:
                link.connection.close()
        else:
            self._router.on_message(link.state, message)
            if isinstance(message, Up):
                _LOG.info("node %s (%s) is up", link.spec.name, link.spec.role)

    def _on_lost(self, link: Link, connection: Connection, why: str) -> None:
        """A node is gone: on order, or by itself. Bring it back where that has a chance."""
        if link.connection is not connection or self._stopping:
            return
        connection.close()
        link.connection = None
        if link.child is not None:
            why = link.child.obituary_after_end()
            link.child.kill()
        if not self._ready:
            self.failure = self.failure or EngineError(
                ErrorCode.DISTRIBUTED_RUNTIME_ERROR, f"Node {link.spec.name} did not start", cause=why
            )
            return
        _LOG.error("node %s is lost: %s", link.spec.name, why)
        now = self._clock()
        link.ends = [at for at in link.ends if now - at < _RESTART_WINDOW_S] + [now]
        returning = bool(link.spec.address) or len(link.ends) <= _RESTARTS
        self._router.on_lost(
            link.state, f"node {link.spec.name} was lost while it ran the request", returning=returning
        )
        if link.spec.address:
            threading.Thread(target=self._reconnect, args=(link,), name="sage-reconnect", daemon=True).start()
        elif returning:
            self._connect(link)

    def _reconnect(self, link: Link) -> None:
        while not self._stopping:
            try:
                self._connect(link)
            except OSError:
                sleep(_RECONNECT_EVERY_S)
            else:
                return

    def _end_nodes(self) -> None:
        self._stopping = True
        for link in self._links.values():
            if link.child is not None:
                link.child.expect_end()
            link.send(Halt())
        deadline = monotonic() + _STOP_WITHIN_S
        for link in self._links.values():
            if link.child is not None:
                link.child.stop(Halt(), max(deadline - monotonic(), 0.1))
            elif link.connection is not None:
                link.connection.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- counters -----------------------------------------------------------------------------------------------

    def _count(self, deliver: Callable[[list[Update]], None]) -> Callable[[list[Update]], None]:
        def counted(updates: list[Update]) -> None:
            self.stats.generation_tokens += sum(len(update.tokens) for update in updates)
            deliver(updates)

        return counted

    def _gather(self) -> None:
        """The nodes' counters as those of one engine: sums; the cache's use is that of the nodes that decode."""
        sum_up(self.stats, self.nodes, self._router.num_waiting)
