"""Windows over keyed streams. After Flink's WindowOperator and EvictingWindowOperator.

A batch is taken record by record, in order, but the contents of each (key, window) are read from state once and written
once a batch. A trigger that is `idempotent` is not asked again for a window that it has answered for.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from sage.common.errors import PipelineError
from sage.core.api.windows.assigners import MergingWindowAssigner, WindowAssigner
from sage.core.api.windows.evictors import Evictor
from sage.core.api.windows.triggers import Trigger, TriggerResult
from sage.core.api.windows.types import FOREVER
from sage.core.graph.spec import BoundFunction, FunctionSpec
from sage.core.runtime.events import NO_WATERMARK, Batch
from sage.core.runtime.operators.base import OperatorContext
from sage.core.runtime.operators.functions import FunctionOperator, select_keys
from sage.core.runtime.operators.window_contents import MISSING, ContentsSpec, Elements, pack, unpack
from sage.core.runtime.operators.window_context import WindowTriggerContext
from sage.core.runtime.operators.window_output import WindowOutput

__all__ = ["WindowOperator", "WindowSpec", "restore_watermark", "save_watermark", "times_of"]

CONTINUE = TriggerResult.CONTINUE


@dataclass(slots=True, frozen=True)
class WindowSpec:
    """A windowed stream's description. `lateness` in ms; `late`: the side output of late records."""

    assigner: WindowAssigner[Any, Any]
    trigger: Trigger[Any, Any] | None = None
    evictor: Evictor[Any] | None = None
    lateness: int = 0
    late: str | None = None
    contents: ContentsSpec = field(default_factory=ContentsSpec)
    function: FunctionSpec | None = None


class Pane:
    """A window in one batch, and the contents that the batch has touched."""

    __slots__ = ("cells", "cleanup", "late", "namespace", "open", "window")

    def __init__(self, window: Any, namespace: Hashable, cleanup: int) -> None:
        self.window = window
        self.namespace = namespace
        self.cleanup = cleanup
        self.late = False
        self.open = True  # its end has not come
        self.cells: dict[Any, Cell] = {}


class Cell:
    """The contents of one key. `quiet`: the trigger need not be asked about further records; `scheduled`: the window's
    removal has a timer."""

    __slots__ = ("contents", "quiet", "scheduled", "stored")

    def __init__(self, contents: Any, quiet: bool) -> None:
        self.contents = contents
        self.stored = self.scheduled = contents is not MISSING
        self.quiet = quiet


class WindowOperator(FunctionOperator):
    """What windows of all kinds share, and windows that do not merge."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(None)
        self._windows = spec
        self._assigner = spec.assigner
        self._trigger: Trigger[Any, Any] = spec.trigger or spec.assigner.get_default_trigger()
        self._event_time = spec.assigner.is_event_time()
        self.late_records = 0  # dropped, or put to the side

    def open(self, context: OperatorContext) -> None:
        """See Operator."""
        super().open(context)
        assert context.keyed is not None, "windows are keyed"
        selector = context.key_selectors[0]
        assert selector is not None, "windows are keyed"
        self._selector = selector
        self._keyed = context.keyed
        spec = self._windows
        self._contents = spec.contents.bound(self._bound)
        self._folding = self._contents if spec.evictor is None else Elements()
        schema = "elements" if spec.evictor is not None else spec.contents.kind
        self._table = context.keyed.table("window-contents", schema)
        self._timers = context.timers.service("windows", self._on_event_time, self._on_processing_time)
        self._trigger_context = WindowTriggerContext(context, self._timers)
        self._output = WindowOutput(
            context,
            self._contents,
            self._window_function(),
            None if spec.function is None else spec.function.kind,  # type: ignore[arg-type]
            merging=isinstance(spec.assigner, MergingWindowAssigner),
        )
        self.get_current_processing_time = context.clock.now_ms  # this object is the AssignerContext
        restore_watermark(context)

    def process(self, batch: Batch, port: int) -> None:
        """See Operator."""
        records = batch.records
        if not records:
            return
        keys = select_keys(self._selector, records)
        times = times_of(batch, self._event_time)
        elements = records if self._windows.evictor is None else list(zip(records, times, strict=True))
        self._take(records, elements, keys, times)

    def snapshot(self, checkpoint_id: int) -> None:
        """See Operator."""
        save_watermark(self.context)

    def _window_function(self) -> BoundFunction | None:
        return None if self._windows.function is None else self._bound(self._windows.function)

    def _bound(self, spec: FunctionSpec) -> BoundFunction:
        return self._bind(spec, self.function)

    def _take(self, records: list[Any], elements: list[Any], keys: list[Any], times: list[int]) -> None:
        """Records, what of each of them is added to contents (with its time where there is an evictor), keys, times."""
        assigned = self._assigner.assign_all(records, times, self)
        panes: dict[Any, Pane] = {}
        first, add = self._folding.first, self._folding.add
        known: Any = None  # the windows of the last record, and which of them are not late
        alive: list[Pane] = []
        for record, element, key, time, windows in zip(records, elements, keys, times, assigned, strict=True):
            if windows is not known:
                known, alive = windows, self._alive(windows, panes)
            if not alive:
                self._skipped(record, time)
                continue
            for pane in alive:
                cell = pane.cells.get(key)
                if cell is None:
                    cell = pane.cells[key] = self._cell(pane, key)
                held = cell.contents
                cell.contents = first(element) if held is MISSING else add(element, held)
                if not cell.quiet:
                    self._ask(pane, cell, key, record, time)
        for pane in panes.values():
            self._store(pane)

    def _alive(self, windows: Any, panes: dict[Any, Pane]) -> list[Pane]:
        alive = []
        for window in windows:
            pane = panes.get(window)
            if pane is None:
                pane = panes[window] = self._pane(window)
            if not pane.late:
                alive.append(pane)
        return alive

    def _pane(self, window: Any) -> Pane:
        pane = Pane(window, self._assigner.namespace(window), self._cleanup_time(window))
        if self._event_time:
            pane.late = pane.cleanup <= self.context.current_watermark
            pane.open = window.max_timestamp() > self.context.current_watermark
        return pane

    def _cell(self, pane: Pane, key: Any) -> Cell:
        self._keyed.key = key
        contents = unpack(self._table.get(pane.namespace))
        return Cell(contents, self._trigger.idempotent and pane.open and contents is not MISSING)

    def _ask(self, pane: Pane, cell: Cell, key: Any, record: Any, time: int) -> None:
        """The trigger, about one record that has been added."""
        self._keyed.key = key
        result = self._trigger.on_element(record, time, pane.window, self._trigger_context.at(pane.namespace))
        if result is not CONTINUE:
            if result.is_fire:
                cell.contents = self._fire(key, pane.window, pane.namespace, cell.contents)
            if result.is_purge:
                cell.contents = MISSING
        if not cell.scheduled:
            cell.scheduled = True
            self._register_cleanup(pane.cleanup, key, pane.namespace)
        if self._trigger.idempotent:
            cell.quiet = pane.open and cell.contents is not MISSING

    def _store(self, pane: Pane) -> None:
        keyed, table, namespace = self._keyed, self._table, pane.namespace
        for key, cell in pane.cells.items():
            keyed.key = key
            if cell.contents is not MISSING:
                table.put(pack(cell.contents), namespace)
            elif cell.stored:
                table.clear(namespace)

    def _skipped(self, record: Any, time: int) -> None:
        """A record that no window took: it is late unless its windows say otherwise (Flink's isElementLate)."""
        if self._event_time and time + self._windows.lateness <= self.context.current_watermark:
            self.late_records += 1
            if self._windows.late is not None:
                self.context.out.output(self._windows.late, record, time)

    def _fire(self, key: Any, window: Any, namespace: Hashable, contents: Any) -> Any:
        """Put contents out; returns what stays."""
        if self._windows.evictor is None:
            self._output.emit(key, window, namespace, contents)
            return contents
        return self._output.emit_evicted(key, window, namespace, contents, self._windows.evictor) or MISSING

    def _cleanup_time(self, window: Any) -> int:
        """When the window is removed: at its end, after the allowed lateness in event time."""
        last: int = window.max_timestamp()
        return min(last + self._windows.lateness, FOREVER) if self._event_time else last

    def _register_cleanup(self, time: int, key: Any, namespace: Hashable) -> None:
        if time == FOREVER:
            return
        if self._event_time:
            self._timers.register_event_time(time, key, namespace)
        else:
            self._timers.register_processing_time(time, key, namespace)

    def _on_event_time(self, time: int, key: Any, namespace: Any) -> None:
        window = self._assigner.window(namespace)
        result = self._trigger.on_event_time(time, window, self._trigger_context.at(namespace))
        self._answered(result, key, window, namespace)
        if self._event_time and time == self._cleanup_time(window):
            self._remove(key, window, namespace)

    def _on_processing_time(self, time: int, key: Any, namespace: Any) -> None:
        window = self._assigner.window(namespace)
        result = self._trigger.on_processing_time(time, window, self._trigger_context.at(namespace))
        self._answered(result, key, window, namespace)
        if not self._event_time and time == self._cleanup_time(window):
            self._remove(key, window, namespace)

    def _keep(self, contents: Any, namespace: Hashable) -> None:
        """What an evictor left."""
        if contents is MISSING:
            self._table.clear(namespace)
        else:
            self._table.put(contents, namespace)

    def _answered(self, result: TriggerResult, key: Any, window: Any, namespace: Hashable) -> None:
        """What a timer's trigger asked for."""
        if result is CONTINUE:
            return
        contents = unpack(self._table.get(namespace))
        if contents is MISSING:
            return
        if result.is_fire:
            contents = self._fire(key, window, namespace, contents)
        if result.is_purge:
            self._table.clear(namespace)
        elif self._windows.evictor is not None:
            self._keep(contents, namespace)

    def _remove(self, key: Any, window: Any, namespace: Hashable) -> None:
        self._table.clear(namespace)
        self._trigger.clear(window, self._trigger_context.at(namespace))
        self._output.clear(window, namespace)


def save_watermark(context: OperatorContext) -> None:
    """How far event time has come, so that late records are late after a restore too (as in Flink's SQL windows)."""
    context.operator_state.put("window-watermark", [context.current_watermark], "union")


def restore_watermark(context: OperatorContext) -> None:
    """Event time stands where it stood in the checkpoint, for the subtask that was furthest behind."""
    restored = context.operator_state.get("window-watermark", "union")
    context.current_watermark = max(context.current_watermark, min(restored, default=NO_WATERMARK))


def times_of(batch: Batch, event_time: bool) -> list[int]:
    """The batch's times. Raises PipelineError where event time needs them and there are none (as Flink does)."""
    times = batch.timestamps
    if times is None or (event_time and NO_WATERMARK in times):
        if event_time:
            raise PipelineError(
                "A record has no event time",
                cause="windows of event time need a timestamp on every record",
                hint="call assign_timestamps_and_watermarks(...) before, or use processing time windows",
            )
        return [NO_WATERMARK] * len(batch.records)
    return times
