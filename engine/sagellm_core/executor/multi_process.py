"""An engine of several ranks, each a process of its own: tensor parallelism and pipeline stages.

A plan is encoded once and sent to all. Every rank answers every order, so an error that all ranks survive (they are
still in step with each other) fails one step; when a rank dies, or stays behind where another failed, the ranks are
ended together and the engine with them.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from sagellm_core.backends.base import warn_of_device_ids
from sagellm_core.config import LLMEngineConfig
from sagellm_core.engine_core.plan import SchedulerOutput, StepOutput
from sagellm_core.errors import EngineError, invalid
from sagellm_core.executor.base import NOT_LOADED, CommStats, WorkerInfo, check_comm_type
from sagellm_core.executor.messages import Answer, Done, Load, Loaded, ReadBlocks, Sleep, Step, Stop, Wake, WriteBlocks
from sagellm_core.executor.process import ChildProcess
from sagellm_core.wire import Fault, encode
from sagellm_protocol.errors import ErrorCode

_LOG = logging.getLogger("sagellm_core")
_JOIN_WITHIN_S = 300.0
_STRAGGLERS_WITHIN_S = 15.0
_LOADERS_WITHIN_S = 0.5
_STOP_WITHIN_S = 5.0
_OUT_OF_STEP = (ErrorCode.COMM_TIMEOUT, ErrorCode.DISTRIBUTED_RUNTIME_ERROR)


class MultiProcessExecutor:
    """`tensor_parallel_size * pipeline_parallel_size` ranks on this host; any number from 1 on."""

    def __init__(self, config: LLMEngineConfig, folder: Path, max_model_len: int) -> None:
        self.config = config
        self.folder = folder
        self.max_model_len = max_model_len
        self.world_size = config.tensor_parallel_size * config.pipeline_parallel_size
        self.info = NOT_LOADED
        self.comm = CommStats()
        self.ranks: list[ChildProcess] = []
        self._place: Path | None = None
        self._lost: EngineError | None = None
        self._block_bytes: list[int] = []

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> WorkerInfo:
        """Start the ranks and wait until all have loaded. Raises what the first of them raised."""
        configs = [_rank_config(self.config, rank, self.world_size) for rank in range(self.world_size)]
        check_comm_type(self.config.comm_type)
        self._place = Path(tempfile.mkdtemp(prefix="sage-ranks-"))
        try:
            for rank, config in enumerate(configs):
                child = ChildProcess(
                    "sagellm_core.executor.rank",
                    f"rank {rank}",
                    self._place / f"rank-{rank}.log",
                    Answer,
                    env=thread_share(self.config, self.world_size),
                )
                self.ranks.append(child)
                meeting = str(self._place / "meeting")
                settings = config.model_dump(mode="json", exclude_unset=True)
                folder = str(self.folder)
                child.control.send(Load(settings, folder, self.max_model_len, rank, meeting, _JOIN_WITHIN_S))
            answers = [answer for answer, _ in self._answers()]
        except OSError as error:
            self._end()
            raise EngineError(
                ErrorCode.DISTRIBUTED_RUNTIME_ERROR, "Cannot start the ranks", cause=str(error)
            ) from error
        except BaseException:
            self._end()
            raise
        infos = [answer.info for answer in answers if isinstance(answer, Loaded)]
        self._block_bytes = [info.block_bytes for info in infos]
        self.info = _together(infos, self.config)
        warn_of_device_ids(self.info.device.get("kind"), self.config.device_ids)
        return self.info

    def watch(self, on_lost: Callable[[EngineError], None]) -> None:
        def tell(child: ChildProcess) -> None:
            on_lost(self._lost or EngineError(ErrorCode.DISTRIBUTED_RUNTIME_ERROR, f"The {child.obituary()}"))

        for child in self.ranks:
            child.on_end(tell)

    def sleep(self) -> None:
        self._send(Sleep())
        self._answers()

    def wake(self) -> None:
        self._send(Wake())
        self._answers()

    def stop(self) -> None:
        """End the ranks: asked first, killed where they do not listen."""
        for child in self.ranks:
            child.expect_end()
        for child in self.ranks:
            try:
                child.control.send(Stop())
            except OSError:
                continue
        deadline = monotonic() + _STOP_WITHIN_S
        for child in self.ranks:
            child.stop(Stop(), max(deadline - monotonic(), 0.1))
        self._end()

    def abandon(self) -> None:
        for child in self.ranks:
            child.expect_end()
            child.process.kill()

    # -- orders -------------------------------------------------------------------------------------------------

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        self.submit(plan)
        return self.result()

    def submit(self, plan: SchedulerOutput) -> None:
        self._send(Step(plan))

    def result(self) -> StepOutput:
        """The output of the one rank that answers; the others' answers say that they are in step."""
        output: StepOutput | None = None
        for answer, _ in self._answers():
            if isinstance(answer, Done) and answer.output is not None:
                output = answer.output
                self.comm = CommStats(answer.all_reduces, answer.all_gathers, answer.comm_seconds)
        if output is None:
            raise EngineError(ErrorCode.INTERNAL, "no rank answered for the step")
        return output

    def read_blocks(self, blocks: list[int]) -> bytearray:
        """Of every block the ranks' parts, one rank after the other."""
        self._send(ReadBlocks(blocks))
        parts = [memoryview(body) for _, body in self._answers()]
        content = bytearray()
        for index in range(len(blocks)):
            for part, size in zip(parts, self._block_bytes, strict=True):
                content += part[index * size : (index + 1) * size]
        return content

    def write_blocks(self, blocks: list[int], content: bytes | bytearray | memoryview) -> None:
        """Each rank gets its part of every block, see `read_blocks`. Raises ValueError for content of another size."""
        stride = sum(self._block_bytes)
        if len(content) != stride * len(blocks):
            raise ValueError(f"{len(blocks)} blocks have {stride * len(blocks)} bytes, not {len(content)}")
        whole, first = memoryview(content), 0
        for child, size in zip(self.ranks, self._block_bytes, strict=True):
            part = bytearray()
            for at in range(first, len(whole), stride):
                part += whole[at : at + size]
            self._send_to(child, WriteBlocks(blocks), part)
            first += size
        self._answers()

    def _send(self, order: Any) -> None:
        head = encode(order)
        if self._lost is not None:
            raise self._lost
        for child in self.ranks:
            try:
                child.control.send_encoded(head)
            except OSError:
                self._lose(child.obituary_after_end())

    def _send_to(self, child: ChildProcess, order: Any, body: bytearray) -> None:
        if self._lost is not None:
            raise self._lost
        try:
            child.control.send(order, body)
        except OSError:
            self._lose(child.obituary_after_end())

    def _answers(self) -> list[tuple[Any, bytearray]]:
        """One answer of every rank, in their order. Raises what a rank reports; ends all when one is gone or stuck."""
        got: dict[int, tuple[Any, bytearray]] = {}
        fault: Fault | None = None
        deadline: float | None = None
        with selectors.DefaultSelector() as selector:
            for number, child in enumerate(self.ranks):
                selector.register(child.control, selectors.EVENT_READ, number)
            while len(got) < len(self.ranks):
                ready = selector.select(None if deadline is None else max(deadline - monotonic(), 0.0))
                if not ready:
                    assert fault is not None
                    self._lose(f"one rank failed ({fault.error()}) and the others wait for it", fault)
                for key, _ in ready:
                    child = self.ranks[key.data]
                    try:
                        got[key.data] = child.control.receive()
                    except (OSError, EOFError):
                        self._lose(child.obituary_after_end(), fault)
                    selector.unregister(child.control)
                    answer = got[key.data][0]
                    if isinstance(answer, Fault) and fault is None:
                        patience = _LOADERS_WITHIN_S if self.info is NOT_LOADED else _STRAGGLERS_WITHIN_S
                        fault, deadline = answer, monotonic() + patience
        if fault is not None and fault.code in _OUT_OF_STEP:
            self._lose(str(fault.error()), fault)
        if fault is not None:
            raise fault.error()
        return [got[number] for number in range(len(self.ranks))]

    def _lose(self, why: str, fault: Fault | None = None) -> None:
        """A rank is gone: end the others, and say what happened, now and from now on."""
        if fault is not None and self.info is NOT_LOADED:
            self._lost = fault.error()
        else:
            self._lost = EngineError(ErrorCode.DISTRIBUTED_RUNTIME_ERROR, f"The engine lost its ranks: {why}")
        _LOG.error("%s", self._lost)
        self._end()
        raise self._lost

    def _end(self) -> None:
        for child in self.ranks:
            child.kill()
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None


def _rank_config(config: LLMEngineConfig, rank: int, world_size: int) -> LLMEngineConfig:
    """The same engine with this rank's device. Raises EngineError when there are fewer devices than ranks."""
    ids = config.device_ids
    if config.device is not None and ":" in config.device:
        raise invalid(f"{world_size} ranks need device_ids, not one device ({config.device})", "device")
    if ids and len(ids) < world_size:
        raise invalid(f"{world_size} ranks need as many device_ids, not {len(ids)}", "device_ids")
    return config.model_copy(update={"device_ids": [ids[rank] if ids else rank]})


def thread_share(config: LLMEngineConfig, world_size: int) -> dict[str, str]:
    """Every rank's share of the cores, unless someone said how many threads to take."""
    if config.num_threads is not None or "OMP_NUM_THREADS" in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // world_size))}


def _together(infos: list[WorkerInfo], config: LLMEngineConfig) -> WorkerInfo:
    first = infos[0]
    return replace(
        first,
        num_blocks=min(info.num_blocks for info in infos),
        bytes_per_token=sum(info.bytes_per_token for info in infos),
        device={
            **first.device,
            "ranks": len(infos),
            "tensor_parallel_size": config.tensor_parallel_size,
            "pipeline_parallel_size": config.pipeline_parallel_size,
        },
        kv_layout="+".join(info.kv_layout for info in infos),
        block_bytes=sum(info.block_bytes for info in infos),
    )
