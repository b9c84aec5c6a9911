"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.tui import format as show


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (999, "999"), (9999, "9999"), (12_345, "12.3k"), (4_100_000, "4.1M"), (2.5e9, "2.5G")],
)
def test_count(value: float | None, text: str) -> None:
    assert show.count(value) == text


def test_number_of_speaks_plainly() -> None:
    assert [show.number_of(n, "error") for n in (0, 1, 13, None)] == ["0 errors", "1 error", "13 errors", "– errors"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (3.254, "3.25"), (48.12, "48.1"), (999.94, "999.9"), (1234, "1234"), (12_345, "12.3k")],
)
def test_rate(value: float | None, text: str) -> None:
    assert show.rate(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.00085, "850 µs"), (0.0124, "12.4 ms"), (0.34, "340 ms"), (1.25, "1.25 s"), (250.0, "250 s")],
)
def test_latency(seconds: float | None, text: str) -> None:
    assert show.latency(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (12, "12s"), (184, "3m 04s"), (7800, "2h 10m"), (86400 * 5 + 3600 * 3, "5d 03h"), (-1, "0s")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (512, "512 B"), (1.4 * 2**30, "1.4 GiB"), (200 * 2**20, "200 MiB")]
)
def test_size(value: float | None, text: str) -> None:
    assert show.size(value) == text


def test_percent_keeps_small_shares_visible() -> None:
    assert [show.percent(ratio) for ratio in (None, 0.0, 0.004, 0.42, 1.0)] == ["–", "0%", "0.4%", "42%", "100%"]


@given(ratio=st.floats(-1, 2), width=st.integers(0, 60))
def test_a_bar_always_fills_its_width(ratio: float, width: int) -> None:
    assert len(show.bar(ratio, width)) == width


def test_a_bar_grows_by_eighths() -> None:
    assert show.bar(0.5, 4) == "██  "
    assert show.bar(1 / 32, 4) == "▏   "
    assert show.bar(None, 3) == "   "


def test_a_spark_scales_to_its_largest_value_and_stands_at_the_right() -> None:
    assert show.spark((1.0, 4.0, 8.0), 5) == "  ▁▄█"
    assert show.spark((0.0, 0.0), 2) == "▁▁"
    assert show.spark((0.5,), 1, top=1.0) == "▄"
    assert show.spark((1.0,), 0) == ""


@given(st.lists(st.floats(0, 1e6), max_size=50), st.integers(1, 40), st.integers(1, 4))
def test_a_chart_is_a_full_rectangle(values: list[float], width: int, height: int) -> None:
    lines = show.chart(tuple(values), width, height)
    assert [len(line) for line in lines] == [width] * height


def test_a_chart_stacks_blocks() -> None:
    assert show.chart((4.0, 12.0, 16.0), 3, 2) == [" ▄█", "▄██"]


def test_log_lines_cannot_steer_the_terminal() -> None:
    """Colours, window titles, bells and carriage returns are taken out of what daemons write."""
    assert show.clean("\x1b[31mred\x1b[0m \x1b]0;title\x07done\r\a\x00") == "red done"
    assert show.clean("a\tb") == "a   b"
    assert show.clean("\x1b[") == ""
    assert len(show.clean("x" * 5000)) == 2000


@given(st.text())
def test_clean_text_is_printable(text: str) -> None:
    assert all(character.isprintable() for character in show.clean(text))


def test_clip_marks_what_it_cut() -> None:
    assert show.clip("pipeline", 20) == "pipeline"
    assert show.clip("pipeline", 5) == "pipe…"
