"""How watermarks and idleness of several channels are combined (Flink's StatusWatermarkValve)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage.core.runtime.events import FINAL_WATERMARK, NO_WATERMARK, ControlEvent, StreamStatus, Watermark
from sage.core.runtime.valve import WatermarkValve

IDLE, ACTIVE = StreamStatus(idle=True), StreamStatus(idle=False)


def test_an_idle_channel_does_not_hold_back_the_others() -> None:
    valve = WatermarkValve(2)
    assert valve.advanced(0, 10) == []
    assert valve.changed(1, True) == [Watermark(10)]
    assert valve.advanced(0, 12) == [Watermark(12)]


def test_an_active_channel_counts_again_once_it_has_caught_up() -> None:
    valve = WatermarkValve(2)
    valve.advanced(1, 3)
    valve.changed(1, True)
    assert valve.advanced(0, 10) == [Watermark(10)]
    assert valve.changed(1, False) == []
    assert valve.advanced(0, 11) == [Watermark(11)]  # channel 1 is behind: it does not count yet
    assert valve.advanced(1, 11) == []
    assert valve.advanced(0, 20) == []  # now it does
    assert valve.advanced(1, 15) == [Watermark(15)]


def test_when_all_are_idle_the_furthest_counts() -> None:
    valve = WatermarkValve(2)
    valve.advanced(0, 5)
    valve.advanced(1, 5)
    valve.advanced(0, 9)
    assert valve.changed(0, True) == []
    assert valve.changed(1, True) == [Watermark(9), IDLE]
    assert valve.changed(0, False) == [ACTIVE]


def test_an_idle_channel_says_nothing() -> None:
    valve = WatermarkValve(1)
    assert valve.changed(0, True) == [IDLE]
    assert valve.advanced(0, 5) == []
    assert valve.changed(0, False) == [ACTIVE]
    assert valve.advanced(0, 5) == [Watermark(5)]


def test_a_channel_that_ended_holds_nothing_back() -> None:
    valve = WatermarkValve(3)
    valve.advanced(0, 7)
    valve.changed(1, True)
    assert valve.ended(2) == [Watermark(7)]
    assert valve.ended(0) == [IDLE]
    assert valve.ended(1) == []


Steps = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.integers(0, 20), st.sampled_from(["idle", "active", "end"])))
)


@given(Steps)
def test_the_same_as_the_rules_written_down(steps: list[tuple[int, int | str]]) -> None:
    """The model keeps what every channel said, and works out the combined watermark from scratch at each step."""
    valve = WatermarkValve(3)
    said = [NO_WATERMARK] * 3
    idle, behind, over = [False] * 3, [False] * 3, [False] * 3
    combined, all_idle = NO_WATERMARK, False
    for channel, what in steps:
        if over[channel]:
            continue
        wanted: list[ControlEvent] = []
        held_back = said[channel] == combined
        if isinstance(what, int):
            got = valve.advanced(channel, what)
            if not idle[channel]:
                said[channel] = max(said[channel], what)
                behind[channel] = behind[channel] and said[channel] < combined
        elif what == "end":
            got = valve.ended(channel)
            over[channel] = True
        else:
            got = valve.changed(channel, what == "idle")
            if idle[channel] and what == "active":
                behind[channel] = said[channel] < combined
            idle[channel] = what == "idle"
        alive = [c for c in range(3) if not over[c]]
        counting = [said[c] for c in alive if not idle[c] and not behind[c]]
        sleeping = bool(alive) and all(idle[c] for c in alive)
        least = min(counting, default=NO_WATERMARK)
        if sleeping and not all_idle and what == "idle" and held_back:
            least = max(said[c] for c in alive)
        if what != "active" and combined < least < FINAL_WATERMARK:  # waking up tells nothing new
            combined = least
            wanted.append(Watermark(least))
        if sleeping != all_idle and alive:
            all_idle = sleeping
            wanted.append(StreamStatus(sleeping))
        assert got == wanted
        assert valve.watermark == combined
