"""Windows as Flink's documentation describes them, one record at a time, in plain lists: the reference of the tests.

It shares no code with the engine. https://nightlies.apache.org/flink/flink-docs-stable/docs/dev/datastream/operators/windows/
"""

from dataclasses import dataclass, field

NEVER = -(2**63)


@dataclass
class ModelWindow:
    """A window of one key that has not been removed."""

    key: str
    start: int
    end: int
    elements: list[tuple[int, int]] = field(default_factory=list)  # value, time
    event_timers: set[int] = field(default_factory=set)
    processing_timers: set[int] = field(default_factory=set)
    count: int = 0
    next_fire: int | None = None

    @property
    def last(self) -> int:
        return self.end - 1


@dataclass(frozen=True)
class ModelSettings:
    """kind: tumbling, sliding or session. trigger: event, count, purging-count, continuous, processing."""

    kind: str = "tumbling"
    size: int = 10
    slide: int = 10
    offset: int = 0
    lateness: int = 0
    event_time: bool = True
    trigger: str = "event"
    parameter: int = 2
    evict: str | None = None
    keep: int = 2


class WindowModel:
    """`fired` gets (key, start, end, values); `late` the values of late records."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.watermark = NEVER
        self.now = 0
        self.windows: list[ModelWindow] = []
        self.fired: list[tuple[str, int, int, tuple[int, ...]]] = []
        self.late: list[int] = []

    def record(self, key: str, time: int, value: int) -> None:
        settings = self.settings
        at = time if settings.event_time else self.now
        skipped = True
        for start, end in self._assigned(at):
            window = self._find(key, start, end)
            if window is None:
                continue
            skipped = False
            window.elements.append((value, time))
            self._element(window, at)
            if settings.event_time:
                window.event_timers.add(window.last + settings.lateness)
            else:
                window.processing_timers.add(window.last)
        if skipped and settings.event_time and time + settings.lateness <= self.watermark:
            self.late.append(value)

    def advance(self, watermark: int) -> None:
        """The watermark comes to `watermark`: timers fire in order of time."""
        self.watermark = max(self.watermark, watermark)
        while True:
            due = [(min(w.event_timers), i) for i, w in enumerate(self.windows) if w.event_timers]
            due = [pair for pair in due if pair[0] <= self.watermark]
            if not due:
                return
            time, index = min(due)
            window = self.windows[index]
            window.event_timers.discard(time)
            self._event_timer(window, time)
            if self.settings.event_time and time == window.last + self.settings.lateness:
                self.windows.remove(window)

    def clock(self, now: int) -> None:
        """The clock comes to `now`."""
        while True:
            due = [(min(w.processing_timers), i) for i, w in enumerate(self.windows) if w.processing_timers]
            due = [pair for pair in due if pair[0] <= now]
            if not due:
                self.now = max(self.now, now)
                return
            time, index = min(due)
            self.now = max(self.now, time)
            window = self.windows[index]
            window.processing_timers.discard(time)
            if self.settings.trigger == "processing":
                self._fire(window)
            if not self.settings.event_time and time == window.last:
                self.windows.remove(window)

    def _assigned(self, time: int) -> list[tuple[int, int]]:
        settings = self.settings
        if settings.kind == "session":
            return [(time, time + settings.size)]
        slide = settings.size if settings.kind == "tumbling" else settings.slide
        found = []
        start = settings.offset - 40 * slide
        while start <= time:
            if start <= time < start + settings.size:
                found.append((start, start + settings.size))
            start += slide
        return found

    def _find(self, key: str, start: int, end: int) -> ModelWindow | None:
        """The window of that key and time, made if need be; None when it is late."""
        own = ModelWindow(key, start, end)
        if self.settings.kind == "session":
            touching = [w for w in self.windows if w.key == key and w.start <= end and start <= w.end]
            if touching:
                return self._merge(own, touching)
        else:
            for window in self.windows:
                if (window.key, window.start, window.end) == (key, start, end):
                    return window
        if self.settings.event_time and own.last + self.settings.lateness <= self.watermark:
            return None
        self.windows.append(own)
        return own

    def _merge(self, own: ModelWindow, parts: list[ModelWindow]) -> ModelWindow:
        start = min(w.start for w in [own, *parts])
        end = max(w.end for w in [own, *parts])
        if len(parts) == 1 and (parts[0].start, parts[0].end) == (start, end):
            return parts[0]
        merged = ModelWindow(own.key, start, end)
        merged.elements = [element for part in parts for element in part.elements]
        merged.count = sum(part.count for part in parts)
        fires = [part.next_fire for part in parts if part.next_fire is not None]
        merged.next_fire = min(fires, default=None)
        if self.settings.trigger == "continuous" and merged.next_fire is not None:
            merged.event_timers.add(merged.next_fire)
        if self.settings.trigger == "event" and merged.last > self.watermark:
            merged.event_timers.add(merged.last)
        if self.settings.trigger == "processing" and merged.last > self.now:
            merged.processing_timers.add(merged.last)
        self.windows = [w for w in self.windows if w not in parts]
        self.windows.append(merged)
        return merged

    def _element(self, window: ModelWindow, time: int) -> None:
        trigger, parameter = self.settings.trigger, self.settings.parameter
        if trigger in ("event", "continuous") and window.last <= self.watermark:
            self._fire(window)
        elif trigger == "event":
            window.event_timers.add(window.last)
        elif trigger == "processing":
            window.processing_timers.add(window.last)
        elif trigger == "continuous":
            window.event_timers.add(window.last)
            if window.next_fire is None:
                window.next_fire = min(time - time % parameter + parameter, window.last)
                window.event_timers.add(window.next_fire)
        elif trigger in ("count", "purging-count"):
            window.count += 1
            if window.count >= parameter:
                window.count = 0
                self._fire(window)
                if trigger == "purging-count":
                    window.elements = []

    def _event_timer(self, window: ModelWindow, time: int) -> None:
        trigger = self.settings.trigger
        if trigger in ("event", "continuous") and time == window.last:
            self._fire(window)
        elif trigger == "continuous" and window.next_fire == time:
            window.next_fire = min(time + self.settings.parameter, window.last)
            window.event_timers.add(window.next_fire)
            self._fire(window)

    def _fire(self, window: ModelWindow) -> None:
        if not window.elements:
            return
        if self.settings.evict == "count":
            window.elements = window.elements[len(window.elements) - min(len(window.elements), self.settings.keep) :]
        if self.settings.evict == "time":
            latest = max(time for _, time in window.elements)
            window.elements = [(v, t) for v, t in window.elements if t > latest - self.settings.keep]
        self.fired.append((window.key, window.start, window.end, tuple(value for value, _ in window.elements)))
