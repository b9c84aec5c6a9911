"""Tracing of single records: which operators one went through, when, and how long each took.

A few records a second (a token bucket at each source) travel as batches of their own that carry a `TraceContext`; each
operator that they, or what came out of them, pass makes a span. A trace ends where the record does: in a sink, a filter
or the state of a window. Everything else goes as without tracing.

Spans go to OpenTelemetry where the program has set up a tracer provider, else as JSON lines to a file.
"""

from __future__ import annotations

import json
import logging
import random
import reprlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from sage.core.runtime.events import Batch, TraceContext
from sage.core.runtime.output import Output
from sage.core.runtime.stages import ChainOperator

__all__ = ["JsonSpans", "Spans", "TaskTracer", "TokenBucket", "spans_for"]

log = logging.getLogger("sage.core")

MAX_WAITING = 20_000  # spans that wait to be written; more are dropped
MAX_BYTES = 64 * 1024 * 1024
_SHOWN = 200

Attributes = dict[str, "str | int | bool"]


class Spans(Protocol):
    """Where spans go. Called from many threads."""

    def span(
        self, name: str, parent: TraceContext | None, start_ns: int, end_ns: int, attributes: Attributes
    ) -> TraceContext:
        """A span that is over (times: nanoseconds since the epoch). With `parent` None a trace begins."""

    def flush(self) -> None:
        """Write out what waits; from one thread."""


class JsonSpans:
    """A line of JSON a span; ids as in W3C Trace Context. Stops at MAX_BYTES; what cannot be written is told once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MAX_WAITING)
        self._written = 0
        self._over = False

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path,)

    def span(
        self, name: str, parent: TraceContext | None, start_ns: int, end_ns: int, attributes: Attributes
    ) -> TraceContext:
        """See Spans."""
        trace_id = parent.trace_id if parent is not None else f"{random.getrandbits(128):032x}"
        context = TraceContext(trace_id, f"{random.getrandbits(64):016x}")
        self._waiting.append(
            {
                "trace_id": context.trace_id,
                "span_id": context.span_id,
                "parent_id": parent.span_id if parent is not None else None,
                "name": name,
                "start_ns": start_ns,
                "duration_ns": end_ns - start_ns,
                **attributes,
            }
        )
        return context

    def flush(self) -> None:
        """See Spans."""
        lines = []
        while self._waiting:
            lines.append(json.dumps(self._waiting.popleft(), ensure_ascii=False))
        if not lines or self._over:
            return
        text = "\n".join(lines) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:  # in one piece: several processes may write
                file.write(text.encode("utf-8", "replace"))
        except OSError as error:
            self._over = True
            log.warning("traces are not kept: %s", error)
        self._written += len(text)
        if self._written > MAX_BYTES and not self._over:
            self._over = True
            log.warning("%s has %d MiB: no more traces are kept", self.path, self._written >> 20)


class OpenTelemetrySpans:
    """Through the OpenTelemetry API to whatever the program has configured."""

    def __init__(self, tracer: Any, path: Path) -> None:
        self._tracer = tracer
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        """In another process: what that one has set up."""
        return spans_for, (self._path,)

    def span(
        self, name: str, parent: TraceContext | None, start_ns: int, end_ns: int, attributes: Attributes
    ) -> TraceContext:
        """See Spans."""
        from opentelemetry import context, trace

        above = context.Context()  # nothing of what happens to be current in this thread
        if parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            ids = int(parent.trace_id, 16), int(parent.span_id, 16)
            above = trace.set_span_in_context(
                trace.NonRecordingSpan(trace.SpanContext(*ids, is_remote=True, trace_flags=flags)), above
            )
        named = {f"sage.{key}": value for key, value in attributes.items()}
        span = self._tracer.start_span(name, context=above, start_time=start_ns, attributes=named)
        if "error" in attributes:
            span.set_status(trace.Status(trace.StatusCode.ERROR, str(attributes["error"])))
        span.end(end_time=end_ns)
        made = span.get_span_context()
        return TraceContext(f"{made.trace_id:032x}", f"{made.span_id:016x}")

    def flush(self) -> None:
        """The provider's processors do that."""


def spans_for(path: Path) -> Spans:
    """OpenTelemetry where it is installed and a tracer provider was set up; else a file."""
    try:
        from opentelemetry import trace
    except ImportError:
        return JsonSpans(path)
    provider = trace.get_tracer_provider()
    if type(provider).__module__.startswith("opentelemetry.trace"):  # the API's own: it records nothing
        return JsonSpans(path)
    return OpenTelemetrySpans(provider.get_tracer("sage.core"), path)


class TokenBucket:
    """At most `rate` a second, and as many at once (`clock` in seconds)."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = rate
        self._at = clock()

    def take(self, wanted: int) -> int:
        """How many of `wanted` there are tokens for."""
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken


class TaskTracer:
    """Traces records of one subtask; used in its thread. `bucket` is given at sources: traces begin there."""

    def __init__(
        self,
        spans: Spans,
        operators: list[ChainOperator],
        operator_at: Callable[[TracebackType | None], ChainOperator | None],
        outputs: Mapping[int, Output],
        *,
        job: str,
        subtask: int,
        bucket: TokenBucket | None,
    ) -> None:
        self._spans = spans
        self._operators = operators
        self._operator_at = operator_at
        self._outputs = outputs
        self._job = job
        self._subtask = subtask
        self._bucket = bucket

    def cut(self, batch: Batch) -> Iterator[tuple[Batch, bool]]:
        """The batch in parts, with whether each is to be traced."""
        if batch.trace is not None:
            yield batch, True
            return
        count = self._bucket.take(len(batch.records)) if self._bucket is not None else 0
        for index in range(count):
            yield batch.cut(index, index + 1), True
        if count < len(batch.records):
            yield (batch.cut(count) if count else batch), False

    def run(self, part: Batch, run: Callable[[], None]) -> None:
        """Run a part that is to be traced, and make its spans; what it sends on carries the trace."""
        for output in self._outputs.values():
            output.flush()
        before = [_counters(operator) for operator in self._operators]
        started = time.time_ns()
        failed: tuple[ChainOperator, str] | None = None
        try:
            run()
        except BaseException as error:
            failed = self._operator_at(error.__traceback__) or self._operators[0], repr(error)[:_SHOWN]
            raise
        finally:
            deltas = {
                id(operator): [now - then for now, then in zip(_counters(operator), old, strict=True)]
                for operator, old in zip(self._operators, before, strict=True)
            }
            shown = _shown(part.records[0]) if part.records else ""
            self._make(self._operators[0], part.trace, deltas, started, failed, shown)

    def _make(
        self,
        operator: ChainOperator,
        parent: TraceContext | None,
        deltas: dict[int, list[float]],
        start_ns: int,
        failed: tuple[ChainOperator, str] | None,
        record: str = "",
    ) -> int:
        """The spans of an operator and of those fused below it, one after the other; returns where they end."""
        records_in, records_out, errors, busy_s = deltas[id(operator)]
        if not records_in and not record:
            return start_ns  # the record did not come here
        end_ns = start_ns + max(0, round(busy_s * 1e9))
        node = operator.plan.node
        attributes: Attributes = {
            "job": self._job,
            "operator_id": node.uid,
            "subtask": self._subtask,
            "records_in": int(records_in),
            "records_out": int(records_out),
        }
        if record:
            attributes["record"] = record
        raised = failed is not None and failed[0] is operator
        if raised or errors:
            attributes["error"] = failed[1] if failed is not None else "the record was left out"
        context = self._spans.span(node.name, parent, start_ns, end_ns, attributes)
        if raised:
            return end_ns
        if failed is None:
            for number in operator.plan.outputs:
                self._outputs[number].flush_traced(context)
        for child in operator.children:
            end_ns = self._make(child, context, deltas, end_ns, failed)
        return end_ns


def _shown(record: object) -> str:
    """A record in short, without secrets."""
    from sage.common.logs import redact

    return redact(reprlib.repr(record)[:_SHOWN])


def _counters(operator: ChainOperator) -> tuple[int, int, int, float]:
    return operator.records_in, operator.records_out, operator.errors, operator.busy_s
