"""Decode steps recorded once and replayed: a step of the whole model is one launch and two small copies.

A recording has a fixed number of sequences, so there is one for each of a few sizes; a batch takes the next larger. The
sequences that are missing then work on a page of their own at the end of the cache (the dummy page). All inputs lie in
one tensor that never moves, and reach it in one copy from page-locked memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagellm_core.backends.base import CapturedStep
from sagellm_core.engine_core.plan import BatchType, SchedulerOutput
from sagellm_core.layers.cuda.attention import TritonPagedAttention
from sagellm_core.layers.cuda.kernels import DecodeCall, argmax
from sagellm_core.layers.cuda.metadata import ALIGN, StepMetadata
from sagellm_core.models.base import CausalLM

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function launches, and returns what launches it again."""

LARGEST = 256
_FIELDS = ("tokens", "positions", "slots", "lengths", "rows")


def buckets(max_batch: int) -> list[int]:
    """Sizes that are recorded, ascending: powers of two to 16, then multiples of 16, until `max_batch` is covered."""
    sizes = [1, 2, 4, 8, *range(16, LARGEST + 1, 16)]
    last = next((size for size in sizes if size >= max_batch), sizes[-1])
    return [size for size in sizes if size <= last]


def bucket_for(count: int, sizes: list[int]) -> int | None:
    """The smallest size that holds so many sequences."""
    return next((size for size in sizes if size >= count), None)


def plainly(run: Callable[[], None]) -> Callable[[], None]:
    """The recorder of devices that cannot record: the function itself."""
    return run


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory: only one of them is ever at work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            run()  # compiles kernels and fills the libraries' workspaces, neither of which can be recorded
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            run()
        return graph.replay


class StaticInputs:
    """The inputs of recorded steps: int32, on the host and at one place on the device.

    Row i belongs to sequence i of the batch. A block table is written on the host only where it has changed.
    """

    def __init__(self, rows: int, blocks: int, dummy: int, block_size: int, device: torch.device) -> None:
        self.stride = -(-rows // ALIGN) * ALIGN
        self.width = -(-blocks // ALIGN) * ALIGN
        size = len(_FIELDS) * self.stride + rows * self.width
        self.host = torch.zeros(size, dtype=torch.int32, pin_memory=device.type == "cuda")
        self.on_device = torch.zeros(size, dtype=torch.int32, device=device)
        self._numbers: NDArray[numpy.int32] = self.host.numpy()
        self._lines = {name: self._line(index) for index, name in enumerate(_FIELDS)}
        self._tables = self._numbers[len(_FIELDS) * self.stride :].reshape(rows, self.width)
        self._known: list[list[int]] = [[] for _ in range(rows)]
        self._lines["rows"][:] = numpy.arange(self.stride)
        self._idle = {"tokens": 0, "positions": 0, "slots": dummy * block_size, "lengths": 1}
        self._dummy = dummy

    def fill(self, plan: SchedulerOutput, size: int) -> None:
        """Write a plan of decodes, the rest of `size` rows idle, and send it to the device."""
        count = len(plan.seq_ids)
        values = (plan.token_ids, plan.positions, plan.slot_mapping, plan.context_lens)
        for (name, idle), numbers in zip(self._idle.items(), values, strict=True):
            self._lines[name][:count] = numbers
            self._lines[name][count:size] = idle
        for row, table in enumerate(plan.block_tables):
            self._put_table(row, table)
        for row in range(count, size):
            self._put_table(row, [self._dummy])
        sent = len(_FIELDS) * self.stride + size * self.width
        self.on_device[:sent].copy_(self.host[:sent], non_blocking=True)

    def field(self, name: str, size: int) -> Tensor:
        """A field's first `size` rows, on the device."""
        first = _FIELDS.index(name) * self.stride
        return self.on_device[first : first + size]

    def tables(self, size: int) -> Tensor:
        """Block tables (size, width), on the device."""
        first = len(_FIELDS) * self.stride
        return self.on_device[first : first + size * self.width].view(size, self.width)

    def _line(self, index: int) -> NDArray[numpy.int32]:
        return self._numbers[index * self.stride : (index + 1) * self.stride]

    def _put_table(self, row: int, table: list[int]) -> None:
        known = self._known[row]
        if known == table:
            return
        same = len(known) if table[: len(known)] == known else 0
        self._tables[row, same : len(table)] = table[same:]
        self._known[row] = list(table)


@dataclass(slots=True)
class _Results:
    """Where a recorded step leaves its results."""

    hidden: Tensor
    logits: Tensor
    greedy: Tensor


@dataclass(slots=True)
class _Recording:
    """One size: how to launch it, and its results once it was launched."""

    results: list[_Results] = field(default_factory=list)
    replay: Callable[[], None] = lambda: None


@dataclass(slots=True)
class RecordedDecode:
    """The recorded decode steps of one model, see `backends.base.StepCapture`."""

    general: ClassVar[bool] = False

    model: CausalLM
    attention: TritonPagedAttention
    caches: list[Tensor]
    inputs: StaticInputs
    sizes: list[int]
    longest: int
    recorder: Recorder
    _recordings: dict[int, _Recording] = field(default_factory=dict)
    _last: int = 0

    @torch.inference_mode()
    def record(self) -> None:
        """Record every size, the largest first, so that the others find its memory."""
        for size in reversed(self.sizes):
            self._recordings[size] = self._record(size)
        self._last = self.sizes[0]

    def only(self, size: int) -> RecordedDecode:
        """A recording of this one size, apart from those of this object."""
        other = replace(self, sizes=[size], _recordings={})
        other.record()
        return other

    def again(self) -> None:
        """Launch the last step that was run once more, with the inputs that are on the device; before one, an idle one.

        For measurements: nothing of the results changes.
        """
        self._recordings[self._last].replay()

    @torch.inference_mode()
    def run(
        self, plan: SchedulerOutput, rows: list[int] | None = None, masks: array[int] | None = None
    ) -> CapturedStep | None:
        """Replay a step in which every sequence brings one token and gets one; None for any other."""
        count = len(plan.seq_ids)
        size = bucket_for(count, self.sizes)
        some = rows is not None and len(rows) != count
        if size is None or plan.num_tokens != count or not all(plan.samples) or some:
            return None
        recording = self._recordings[size]
        self.inputs.fill(plan, size)
        self._last = size
        recording.replay()
        results = recording.results[0]
        greedy: list[int] = results.greedy[:count].tolist()
        return CapturedStep(results.hidden[:count], results.logits[:count], greedy)

    def _record(self, size: int) -> _Recording:
        recording = _Recording()
        inputs = self.inputs
        call = DecodeCall(
            inputs.field("rows", size), inputs.field("lengths", size), inputs.tables(size), inputs.field("slots", size)
        )
        inputs.fill(_idle_plan(), size)

        def run() -> None:
            # Made anew each time: what a recording needs of memory has to come out of the recording's own pool.
            meta = self.attention.recorded(call, self.longest)
            recording.results = [self._step(size, meta)]

        recording.replay = self.recorder(run)
        return recording

    def _step(self, size: int, meta: StepMetadata) -> _Results:
        tokens, positions = self.inputs.field("tokens", size), self.inputs.field("positions", size)
        hidden = self.model.forward(tokens, positions, self.caches, self.attention, meta)
        logits = self.model.logits(hidden)
        greedy = torch.empty(size, dtype=torch.int32, device=logits.device)
        argmax(logits, greedy)
        return _Results(hidden, logits, greedy)


def _idle_plan() -> SchedulerOutput:
    return SchedulerOutput(0, BatchType.DECODE, [], [], [], [], [], [], [], [])
