"""Combines the watermarks and statuses of several channels into one (after Flink's StatusWatermarkValve).

The combined watermark is the least of the active channels. An idle channel does not count; one that becomes active
again counts as soon as it has caught up with what came out. A channel that has ended holds nothing back.
"""

from __future__ import annotations

from dataclasses import dataclass

from sage.core.runtime.events import FINAL_WATERMARK, NO_WATERMARK, ControlEvent, StreamStatus, Watermark

__all__ = ["WatermarkValve"]


@dataclass(slots=True)
class _Channel:
    watermark: int = NO_WATERMARK
    idle: bool = False
    aligned: bool = True
    ended: bool = False


class WatermarkValve:
    """Each call tells what one channel said and returns what goes on, in order."""

    def __init__(self, channels: int) -> None:
        self.watermark = NO_WATERMARK
        self.idle = False
        self._channels = [_Channel() for _ in range(channels)]

    def advanced(self, channel: int, watermark: int) -> list[ControlEvent]:
        """A watermark came; one that goes back, or of an idle channel, is ignored."""
        state = self._channels[channel]
        if state.idle or watermark <= state.watermark:
            return []
        state.watermark = watermark
        if not state.aligned and watermark >= self.watermark:
            state.aligned = True
        return self._least() if state.aligned else []

    def changed(self, channel: int, idle: bool) -> list[ControlEvent]:
        """The channel became idle or active."""
        state = self._channels[channel]
        if state.idle is idle or state.ended:
            return []
        state.idle = idle
        if not idle:
            state.aligned = state.watermark >= self.watermark
            return self._active_again()
        state.aligned = False
        return self._less_one(state)

    def ended(self, channel: int) -> list[ControlEvent]:
        """The channel gives nothing more."""
        state = self._channels[channel]
        state.ended, state.idle, state.aligned = True, False, False
        return self._less_one(state)

    def _less_one(self, gone: _Channel) -> list[ControlEvent]:
        """A channel no longer counts: the others may be further, or all be idle."""
        if any(not state.idle and not state.ended for state in self._channels):
            return self._least()
        idle = [state for state in self._channels if state.idle]
        if not idle or self.idle:
            return []
        self.idle = True
        events: list[ControlEvent] = []
        if gone.idle and gone.watermark == self.watermark:  # it held the others back
            events = self._out(max(state.watermark for state in idle))
        return [*events, StreamStatus(idle=True)]

    def _active_again(self) -> list[ControlEvent]:
        if not self.idle:
            return []
        self.idle = False
        return [StreamStatus(idle=False)]

    def _least(self) -> list[ControlEvent]:
        counting = [state.watermark for state in self._channels if state.aligned]
        return self._out(min(counting)) if counting else []

    def _out(self, watermark: int) -> list[ControlEvent]:
        """The end of event time is not told here: the end of the stream says it."""
        if watermark <= self.watermark or watermark == FINAL_WATERMARK:
            return []
        self.watermark = watermark
        return [Watermark(watermark)]
