"""Gives records their event times and makes watermarks (Flink's TimestampsAndWatermarksOperator).

Where watermarks stand among the records is what windows and timers see of them. Flink puts them out by the clock, so
which records are late differs from run to run. Here they depend on the records: after every `EVERY` of them, and before
each record that the watermark has already passed. Between these places no record could tell whether the watermark had
come. The clock adds one only when a stream is slow: when `INTERVAL` ms have gone by without one of those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import length_hint
from typing import Any

from sage.common.errors import PipelineError
from sage.core.api.time import TimestampAssigner, WatermarkGenerator, WatermarkStrategy
from sage.core.runtime.events import FINAL_WATERMARK, NO_WATERMARK, Batch
from sage.core.runtime.operators.alignment import AlignmentGroup, group_of_job
from sage.core.runtime.operators.base import Operator, OperatorContext

__all__ = ["EVERY", "INTERVAL", "WatermarkFactory"]

EVERY = 2048  # records
STRETCH = 64  # records
INTERVAL = 200  # ms (Flink: pipeline.auto-watermark-interval)

_TICK, _IDLE = "tick", "idle"


@dataclass(slots=True, frozen=True)
class WatermarkFactory:
    """Makes the operator of `assign_timestamps_and_watermarks`."""

    strategy: WatermarkStrategy[Any]

    def __call__(self) -> Operator:
        return _Generated(self.strategy) if self.strategy.generator is not None else _Bounded(self.strategy)


class _WatermarkOperator(Operator):
    """Times, idleness and alignment; subclasses make the watermarks."""

    def __init__(self, strategy: WatermarkStrategy[Any]) -> None:
        self._strategy = strategy
        self._assigner = strategy.assigner
        self._sent = NO_WATERMARK
        self._idle = False
        self._active_at = 0
        self._idle_armed = False
        self._group: AlignmentGroup | None = None

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        context.out.timed = True
        self._timers = context.timers.service("watermarks", None, self._due)
        self._active_at = context.clock.now_ms()
        self._arm_idle()
        if self._strategy.alignment is not None:
            self._group = group_of_job(context.function.job_id, self._strategy.alignment.group)
            self._group.report(self, NO_WATERMARK)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        if not batch.records:
            return
        if self._strategy.idleness is not None:
            self._active_at = self.context.clock.now_ms()
            self._mark(idle=False)
            self._arm_idle()
        self._take(batch.records, self._times(batch))
        if self._group is not None:
            self._align(self._group)

    def on_watermark(self, watermark: int) -> int | None:
        """Watermarks from before this operator end here, but for the end of time (as in Flink)."""
        if watermark != FINAL_WATERMARK:
            return None
        self._emit()
        self._leave()
        return watermark

    def on_status(self, idle: bool) -> bool | None:
        """Idleness is found out here."""
        return None

    def finish(self) -> None:
        """Nobody waits for this stream any more."""
        self._leave()

    def close(self) -> None:
        """See Operator."""
        self._leave()

    def _take(self, records: list[Any], times: list[int]) -> None:
        """Emit the records with their times, and the watermarks among them."""
        raise NotImplementedError

    def _emit(self) -> None:
        """The watermark that the records so far allow: those of other streams may need it after this one's end."""

    def _tick(self) -> None:
        """`INTERVAL` has gone by since `_arm_tick`."""

    def _arm_tick(self) -> None:
        self._timers.register_processing_time(self.context.clock.now_ms() + INTERVAL, None, _TICK)

    def _send(self, watermark: int) -> None:
        if watermark > self._sent:
            if watermark > FINAL_WATERMARK:
                raise PipelineError(
                    "Event time cannot come to its end before the stream does",
                    cause=f"a timestamp is too late by far: the watermark would be {watermark}",
                    hint="timestamps are milliseconds since the epoch: is this one in another unit?",
                )
            self._sent = watermark
            self.context.out.watermark(watermark)
            if self._group is not None and not self._idle:
                self._group.report(self, watermark)

    def _mark(self, *, idle: bool) -> None:
        if idle is not self._idle:
            self._idle = idle
            self.context.out.idle(idle)
            if self._group is not None and idle:
                self._group.leave(self)
            elif self._group is not None:
                self._group.report(self, self._sent)

    def _times(self, batch: Batch) -> list[int]:
        given, assigner = batch.timestamps, self._assigner
        if assigner is None:
            if given is None:
                raise self._without_times()
            return given
        if isinstance(assigner, TimestampAssigner):
            extract = assigner.extract_timestamp
            earlier: list[int | None] = [None] * len(batch.records) if given is None else list(given)
            times = [extract(record, time) for record, time in zip(batch.records, earlier, strict=True)]
        else:
            times = _called(assigner, batch.records)
        if set(map(type, times)) != {int}:
            raise self._no_times(batch.records, times)
        return times

    def _due(self, timestamp: int, key: Any, namespace: Any) -> None:
        if namespace == _TICK:
            self._tick()
            return
        self._idle_armed = False
        idleness = self._strategy.idleness
        if idleness is not None and timestamp >= self._active_at + idleness:
            self._emit()  # what is sent while idle moves nobody
            self._mark(idle=True)
        else:
            self._arm_idle()

    def _arm_idle(self) -> None:
        if self._strategy.idleness is not None and not self._idle_armed:
            self._idle_armed = True
            self._timers.register_processing_time(self._active_at + self._strategy.idleness, None, _IDLE)

    def _align(self, group: AlignmentGroup) -> None:
        """Wait for the slowest of the group, but at most `interval`: barriers of checkpoints must get through."""
        alignment, clock = self._strategy.alignment, self.context.clock
        assert alignment is not None, "there is a group"
        if group.ahead(self) > alignment.max_drift:
            until = clock.monotonic() + alignment.interval / 1000
            self.context.wait(lambda: group.ahead(self) <= alignment.max_drift or clock.monotonic() >= until)

    def _leave(self) -> None:
        if self._group is not None:
            self._group.leave(self)

    def _without_times(self) -> PipelineError:
        return PipelineError(
            "The records have no event time",
            cause="this source gives no timestamps, and the strategy has no timestamp assigner",
            hint="add .with_timestamp_assigner(lambda record: record.time_in_ms)",
        )

    def _no_times(self, records: list[Any], times: list[Any]) -> PipelineError:
        wrong, record = next((t, r) for t, r in zip(times, records, strict=True) if type(t) is not int)
        return PipelineError(
            "A timestamp assigner must return whole milliseconds since the epoch",
            cause=f"it returned {wrong!r:.80} for {record!r:.80}",
            hint="int(seconds * 1000), or int(moment.timestamp() * 1000) for a datetime",
        )


class _Bounded(_WatermarkOperator):
    """Behind the latest time by a fixed bound. In checkpoints: the latest time, and the place among the records."""

    def __init__(self, strategy: WatermarkStrategy[Any]) -> None:
        super().__init__(strategy)
        bound = strategy.out_of_orderness
        self._silent = bound is None
        self._behind = (bound or 0) + 1
        # A record at most that far from the latest must see the watermark; one more ms where that costs little, so that
        # sessions that just touch come out alike in whatever batches the records come.
        self._slack = self._behind - 1 if bound else self._behind
        self._latest = NO_WATERMARK
        self._count = 0
        self._cuts = 0
        self._armed_at: int | None = None

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        own, index = context.operator_state.get("watermarks", "union"), context.function.subtask_index
        if len(own) == context.function.parallelism:
            own = [entry for entry in own if entry[0] == index]
        if own:
            self._latest = min(latest for _, latest, _ in own)
            self._count = own[0][2]

    def snapshot(self, checkpoint_id: int) -> None:
        """See Operator."""
        entry = [self.context.function.subtask_index, self._latest, self._count]
        self.context.operator_state.put("watermarks", [entry], "union")

    def _take(self, records: list[Any], times: list[int]) -> None:
        out, start = self.context.out, 0
        latest = max(self._latest, max(times))
        for cut in self._places(times, latest):
            out.records += records[start:cut]
            out.timestamps += times[start:cut]
            self._latest = max(self._latest, max(times[start:cut], default=NO_WATERMARK))
            self._emit()
            start = cut
        out.records += records[start:] if start else records
        out.timestamps += times[start:] if start else times
        self._latest = latest
        self._count = (self._count + len(times)) % EVERY
        if self._armed_at is None and self._latest - self._behind > self._sent and not self._silent:
            self._armed_at = self._cuts
            self._arm_tick()

    def _places(self, times: list[int], latest: int) -> list[int]:
        """Where watermarks stand: after each of these numbers of records."""
        if self._silent:
            return []
        places = list(range(EVERY - self._count, len(times) + 1, EVERY))
        self._cuts += len(places)
        if min(times) + self._slack <= latest:
            places = sorted({*places, *self._late(times)})
        return places

    def _late(self, times: list[int]) -> list[int]:
        """The places of records that the watermark has passed; most stretches can be seen to have none."""
        slack, latest, late = self._slack, self._latest, []
        for start in range(0, len(times), STRETCH):
            part = times[start : start + STRETCH]
            most = max(latest, max(part))
            if min(part) + slack <= most:
                before = accumulate(chain((latest,), part), max)
                late += [
                    i for i, (time, top) in enumerate(zip(part, before, strict=False), start) if time + slack <= top
                ]
            latest = most
        return late

    def _tick(self) -> None:
        armed, self._armed_at = self._armed_at, None
        if armed == self._cuts:
            self._emit()
        elif self._latest - self._behind > self._sent:
            self._armed_at = self._cuts
            self._arm_tick()

    def _emit(self) -> None:
        if self._latest != NO_WATERMARK and not self._silent:
            self._send(self._latest - self._behind)


class _Generated(_WatermarkOperator):
    """A generator of the user's."""

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert self._strategy.generator is not None, "the factory looked"
        self._generator: WatermarkGenerator[Any] = self._strategy.generator()
        self._count = 0
        self._arm_tick()

    def emit_watermark(self, timestamp: int) -> None:
        """See WatermarkOutput."""
        self._mark(idle=False)
        self._send(timestamp)

    def mark_idle(self) -> None:
        """See WatermarkOutput."""
        self._mark(idle=True)

    def mark_active(self) -> None:
        """See WatermarkOutput."""
        self._mark(idle=False)

    def _take(self, records: list[Any], times: list[int]) -> None:
        emitted, timestamps = self.context.out.records.append, self.context.out.timestamps.append
        on_event, count = self._generator.on_event, self._count
        for record, time in zip(records, times, strict=True):
            emitted(record)
            timestamps(time)
            on_event(record, time, self)
            count += 1
            if count == EVERY:
                count = 0
                self._generator.on_periodic_emit(self)
        self._count = count

    def _tick(self) -> None:
        self._generator.on_periodic_emit(self)
        self._arm_tick()


def _called(assigner: Callable[[Any], int], records: list[Any]) -> list[int]:
    """The times of these records. When the function raises, the variable `record` is the one that it was given."""
    taken = iter(records)
    try:
        return list(map(assigner, taken))
    except BaseException:
        record = records[len(records) - length_hint(taken) - 1]  # noqa: F841 - for the failure's message
        raise
