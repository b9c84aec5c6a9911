"""Pictures of the screen, as text: what stands in ``golden/`` is what a terminal of that size shows.

A wanted change: ``SAGE_UPDATE_GOLDEN=1 pytest tests/unit/tui/test_golden.py``, then look at the difference.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from sage.common.home import SageHome
from sage.tui.app import MonitorApp
from sage.tui.data import Snapshot

GOLDEN = Path(__file__).with_name("golden")
LOG = """\
2026-01-01 12:00:00 INFO    engine: loading sage-builtin
2026-01-01 12:00:01 INFO    engine: ready on http://127.0.0.1:8001
2026-01-01 12:00:09 WARNING engine: queue is 80 % full
2026-01-01 12:00:10 ERROR   engine: request 7 failed: context of 512 tokens is full
"""

CASES = [
    ("overview", (80, 24), []),
    ("overview", (100, 40), []),
    ("overview", (160, 48), []),
    ("overview", (160, 24), []),
    ("pipelines", (80, 24), ["2"]),
    ("pipelines", (160, 48), ["2"]),
    ("logs", (80, 24), ["3"]),
    ("filter", (80, 24), ["slash", "f", "u", "l", "l"]),
    ("daemon", (80, 24), ["down", "enter"]),
    ("help", (80, 24), ["question_mark"]),
    ("restart", (80, 24), ["R"]),
]


async def check(name: str, pilot: Pilot[Any], read: Callable[[Any], str]) -> None:
    """Compare with the picture of that name once the screen is at rest, or draw it anew when that is asked for."""
    picture = GOLDEN / f"{name}.txt"
    update = bool(os.environ.get("SAGE_UPDATE_GOLDEN"))
    wanted = "" if update else picture.read_text(encoding="utf-8")
    deadline = time.monotonic() + (1.5 if update else 6)
    while (text := read(pilot.app)) != wanted and time.monotonic() < deadline:
        await pilot.pause(0.1)
    if update:
        picture.write_text(text, encoding="utf-8")
    assert text == picture.read_text(encoding="utf-8")


@pytest.mark.spec("T1", "T2")
@pytest.mark.parametrize(("name", "size", "keys"), CASES, ids=lambda value: str(value))
async def test_the_screen(
    name: str,
    size: tuple[int, int],
    keys: list[str],
    monitor: Callable[..., MonitorApp],
    busy: Snapshot,
    home: SageHome,
    screen_text: Callable[[Any], str],
    eventually: Any,
) -> None:
    (home.logs / "engine.log").write_text(LOG)
    app = monitor(busy)
    async with app.run_test(size=size) as pilot:
        await eventually(pilot, lambda: "engine" in app.monitor.log_names and app.monitor.lines_shown == 4)
        await pilot.press(*keys)
        await check(f"{name}-{size[0]}x{size[1]}", pilot, screen_text)


@pytest.mark.spec("X12")
@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=str)
async def test_the_empty_state_tells_the_next_command(
    size: tuple[int, int],
    monitor: Callable[..., MonitorApp],
    nothing: Snapshot,
    screen_text: Callable[[Any], str],
    eventually: Any,
) -> None:
    app = monitor(nothing)
    async with app.run_test(size=size) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot is not None)
        await check(f"empty-{size[0]}x{size[1]}", pilot, screen_text)
        assert "sage llm serve" in screen_text(app)
