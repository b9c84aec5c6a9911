"""Working with the dashboard: keys, mouse, drill-down, logs, staleness."""

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage.common.home import SageHome
from sage.tui import commands
from sage.tui.app import MonitorApp
from sage.tui.data import Collector, Snapshot, StackView
from sage.tui.screens import DetailScreen, HelpScreen

Monitor = Callable[..., MonitorApp]
Text = Callable[[Any], str]


def view_of(app: MonitorApp) -> str:
    return app.monitor.view


@pytest.mark.spec("T2")
async def test_keys_and_clicks_change_the_view(
    monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any
) -> None:
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        assert view_of(app) == "overview"
        await pilot.press("2")
        assert view_of(app) == "pipelines"
        await pilot.press("3")
        assert view_of(app) == "logs"
        column = screen_text(app).splitlines()[0].index("2 Pipelines")
        await pilot.click(offset=(column + 3, 0))
        assert view_of(app) == "pipelines"


async def test_enter_on_a_daemon_shows_everything_about_it_and_l_its_log(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    (home.logs / "gateway.log").write_text("listening\n")
    (home.logs / "embedding.log").write_text("out of memory\n")
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("down", "down", "enter")
        await eventually(pilot, lambda: isinstance(app.screen, DetailScreen))
        await pilot.pause()
        shown = screen_text(app)
        assert "killed by signal 9" in shown
        assert "Exit code   -9" in shown
        await pilot.press("l")
        await eventually(pilot, lambda: view_of(app) == "logs" and "out of memory" in screen_text(app))
        await pilot.press("left_square_bracket")
        await eventually(pilot, lambda: "listening" in screen_text(app))


async def test_enter_on_a_pipeline_shows_its_operators(
    monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any
) -> None:
    app = monitor(busy)
    async with app.run_test(size=(160, 48)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("tab", "enter")
        await eventually(pilot, lambda: view_of(app) == "pipelines")
        await pilot.pause()
        assert "embed" in screen_text(app)
        await pilot.press("down")
        await pilot.pause()
        shown = screen_text(app)
        assert "ZeroDivisionError: division by zero" in shown
        assert app.monitor.feed.selected_job == "j2"


async def test_filtering_the_log(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    (home.logs / "engine.log").write_text("".join(f"request {n} took {n} ms\n" for n in range(8)))
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.lines_shown == 8)
        await pilot.press("slash", *"REQUEST 3")
        await pilot.pause()
        shown = screen_text(app)
        assert "request 3 took" in shown
        assert "request 4 took" not in shown
        assert "1 of 8 lines match" in shown
        await pilot.press(*["backspace"] * 9, *"/[67] ms/", "enter")
        await pilot.pause()
        assert "2 of 8 lines match" in screen_text(app)
        with (home.logs / "engine.log").open("a") as log:
            log.write("request 8 took 7 ms\n")
        await pilot.press("r")
        await eventually(pilot, lambda: "3 of 9 lines match" in screen_text(app))
        await pilot.press("escape")
        await pilot.pause()
        assert "9 lines" in screen_text(app)


async def test_long_lines_are_cut_or_wrapped(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    (home.logs / "engine.log").write_text("2026-01-01T12:00:00.000Z INFO " + "words " * 20 + "end\n")
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.lines_shown == 1)
        await pilot.press("3")
        await eventually(pilot, lambda: "│ 12:00:00.000Z INFO words" in screen_text(app))
        assert "end" not in screen_text(app)
        await pilot.press("w")
        await eventually(pilot, lambda: "words end" in screen_text(app))


async def test_half_a_regular_expression_is_searched_as_it_stands(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    (home.logs / "engine.log").write_text("a /(/ b\nother\n")
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.lines_shown == 2)
        await pilot.press("slash", *"/(/")
        await pilot.pause()
        assert "1 of 2 lines match" in screen_text(app)


async def test_markup_in_names_and_logs_is_only_text(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    """A model or a log line may hold square brackets; they must neither style the screen nor break it."""
    (home.logs / "engine.log").write_text("[bold]not bold[/] [/nonsense] [@click=app.quit]x[/]\n")
    engine = dataclasses.replace(busy.engines[0], model="[red]m[/x]")
    daemons = (dataclasses.replace(busy.stack.daemons[2], last_error="[/] broken [tag"),)
    app = monitor(dataclasses.replace(busy, engines=(engine,), stack=StackView(1, True, daemons), notes=("[b]n",)))
    async with app.run_test(size=(160, 48)) as pilot:
        await eventually(pilot, lambda: app.monitor.lines_shown == 1)
        await pilot.pause()
        shown = screen_text(app)
        assert "[bold]not bold[/] [/nonsense]" in shown
        assert "Engine · [red]m[/x]" in shown
        assert "[/] broken [tag" in shown


@pytest.mark.spec("T3")
async def test_pausing_keeps_the_picture_and_says_how_old_it_is(
    monitor: Monitor, busy: Snapshot, clock: Any, screen_text: Text, eventually: Any
) -> None:
    clock.now = busy.taken_at
    app = monitor(busy, wall=clock)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("p")
        clock.advance(75)
        await eventually(pilot, lambda: "paused 1m 15s" in screen_text(app))
        await pilot.press("p")
        await eventually(pilot, lambda: "every 1 s" in screen_text(app) or "old" in screen_text(app))


@pytest.mark.spec("T3")
async def test_the_screen_lives_while_the_collector_hangs(
    home: SageHome, busy: Snapshot, clock: Any, screen_text: Text, eventually: Any
) -> None:
    """Looking happens beside the screen: keys work, and the age of what is shown is seen to grow."""
    clock.now = busy.taken_at
    release = threading.Event()

    class Hanging(Collector):
        looks = 0

        def collect(self) -> Snapshot:
            self.looks += 1
            if self.looks > 1:
                release.wait(30)
            return busy

    app = MonitorApp(home, collector=Hanging(home), interval=0.5, wall=clock)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await eventually(pilot, lambda: app.monitor.snapshot)
            clock.advance(30)
            await pilot.press("2")
            assert view_of(app) == "pipelines"
            await eventually(pilot, lambda: "data 30s old" in screen_text(app))
            release.set()
    finally:
        release.set()


@pytest.mark.spec("T3")
async def test_the_cursor_stays_on_its_daemon_while_others_come_and_go(
    monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any
) -> None:
    _gateway, engine, embedding = busy.stack.daemons
    fewer = dataclasses.replace(busy, stack=StackView(None, False, (engine, embedding)))
    app = monitor(busy, busy, interval=10.0)
    collector: Any = app.monitor.feed.collector
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("down", "down")
        collector.snapshots = [fewer]
        await pilot.press("r")
        await eventually(pilot, lambda: "gateway " not in screen_text(app).split("Daemons")[1])
        assert "no supervisor" in screen_text(app)
        await pilot.press("enter")
        await eventually(pilot, lambda: isinstance(app.screen, DetailScreen))
        await pilot.pause()
        assert "killed by signal 9" in screen_text(app)


async def test_from_empty_to_busy_and_back(
    monitor: Monitor, busy: Snapshot, nothing: Snapshot, screen_text: Text, eventually: Any
) -> None:
    app = monitor(nothing, interval=10.0)
    collector: Any = app.monitor.feed.collector
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: "sage llm serve" in screen_text(app))
        collector.snapshots = [busy]
        await pilot.press("r")
        await eventually(pilot, lambda: "sage-builtin" in screen_text(app))
        collector.snapshots = [nothing]
        await pilot.press("r")
        await eventually(pilot, lambda: "sage llm serve" in screen_text(app))


async def test_the_refresh_interval(monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any) -> None:
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("minus", "minus", "minus", "minus")
        assert app.monitor.feed.interval == 10
        await pilot.press("plus")
        assert app.monitor.feed.interval == 5
        assert "every 5 s" in screen_text(app)


@pytest.mark.spec("T2")
async def test_the_command_palette_offers_views_intervals_logs_and_themes(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    (home.logs / "engine.log").write_text("x\n")
    app = monitor(busy)
    async with app.run_test(size=(100, 40)) as pilot:
        await eventually(pilot, lambda: app.monitor.lines_shown)
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"View: logs", "Refresh every 5 s", "Log: engine", "Theme", "Help"} <= titles
        await pilot.press("ctrl+p")
        await pilot.press(*"refresh every 5")
        await eventually(pilot, lambda: "Refresh every 5 s" in screen_text(app))
        await pilot.press("enter")
        await eventually(pilot, lambda: app.monitor.feed.interval == 5)


async def test_every_theme_can_be_worn(
    monitor: Monitor, busy: Snapshot, home: SageHome, screen_text: Text, eventually: Any
) -> None:
    (home.logs / "engine.log").write_text("ERROR x\n")
    app = monitor(busy)
    async with app.run_test(size=(160, 48)) as pilot:
        await eventually(pilot, lambda: app.monitor.lines_shown and "palette" in screen_text(app))
        before = screen_text(app)
        assert {"sage-dark", "sage-light", "dracula"} <= set(app.available_themes)
        for theme in ("sage-light", "dracula", *(name for name in app.available_themes if "ansi" in name)):
            app.theme = theme
            await pilot.pause()
        await eventually(pilot, lambda: screen_text(app) == before)


async def test_help_lists_the_keys(monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any) -> None:
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("question_mark")
        await eventually(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.pause()
        assert "Refresh more often" in screen_text(app)
        await pilot.press("escape")
        await eventually(pilot, lambda: app.screen is app.monitor)


async def test_no_size_is_too_small_or_too_large(
    monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any
) -> None:
    app = monitor(busy)
    async with app.run_test(size=(20, 5)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        for size in [(20, 5), (119, 33), (250, 60), (1, 1), (80, 24)]:
            await pilot.resize_terminal(*size)
            await pilot.press("2", "3", "1")
        await eventually(pilot, lambda: "sage-builtin" in screen_text(app))


def script(folder: Path, body: str) -> str:
    """An executable that stands in the place of ``sage``."""
    path = folder / "sage"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.spec("T2")
@pytest.mark.parametrize(
    ("answer", "body", "said"),
    [
        ("y", 'echo "$@ in $SAGE_HOME" > "$SAGE_HOME/asked"; echo "Restarted engine." >&2', "Restarted engine."),
        (
            "y",
            'echo "$@ in $SAGE_HOME" > "$SAGE_HOME/asked"; echo "Port [8001] is taken" >&2; exit 1',
            "Port [8001] is",
        ),
        ("n", 'touch "$SAGE_HOME/asked"', ""),
        ("enter", 'touch "$SAGE_HOME/asked"', ""),
    ],
)
async def test_restarting_asks_first_and_tells_how_it_went(
    answer: str,
    body: str,
    said: str,
    monitor: Monitor,
    busy: Snapshot,
    home: SageHome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    screen_text: Text,
    eventually: Any,
) -> None:
    sage = script(tmp_path, body)
    monkeypatch.setattr(commands, "find_sage", lambda: sage)
    app = monitor(busy)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        await pilot.press("down", "R")
        await eventually(pilot, lambda: "Restart engine?" in screen_text(app))
        await pilot.press(answer)
        await eventually(pilot, lambda: app.screen is app.monitor)
        asked = home.root / "asked"
        if said:
            await eventually(pilot, lambda: said in screen_text(app))
            assert asked.read_text() == f"llm restart engine in {home.root}\n"
        else:
            await pilot.pause(0.2)
            assert not asked.exists()


async def test_keys_that_would_do_nothing_are_not_offered(
    monitor: Monitor, busy: Snapshot, nothing: Snapshot, screen_text: Text, eventually: Any
) -> None:
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: "R Restart" in screen_text(app))
        await pilot.press("3")
        await eventually(pilot, lambda: "R Restart" not in screen_text(app))
    empty = monitor(nothing)
    async with empty.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: empty.monitor.snapshot)
        await pilot.pause()
        assert "R Restart" not in screen_text(empty)


async def test_leaving_ends_its_threads(monitor: Monitor, busy: Snapshot, eventually: Any) -> None:
    before = set(threading.enumerate())
    app = monitor(busy)
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: app.monitor.snapshot)
        own = [thread for thread in threading.enumerate() if thread.name.startswith("sage-") and thread not in before]
        assert own
        await pilot.press("q")
    assert app.return_code == 0
    for thread in own:
        thread.join(5)
        assert not thread.is_alive()


async def test_several_engines_take_turns(monitor: Monitor, busy: Snapshot, screen_text: Text, eventually: Any) -> None:
    other = dataclasses.replace(busy.engines[0], name="second", model="other-model")
    app = monitor(dataclasses.replace(busy, engines=(busy.engines[0], other)))
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(pilot, lambda: "sage-builtin 1/2" in screen_text(app))
        await pilot.press("e")
        await eventually(pilot, lambda: "other-model 2/2" in screen_text(app))


def test_the_real_thing_over_a_terminal_leaves_the_terminal_as_it_was(home: SageHome) -> None:
    """``run`` in a real pseudo-terminal: it draws, obeys a key, and leaves the alternate screen."""
    pexpect = pytest.importorskip("pexpect")
    import sys

    code = "import sys; from sage.tui.app import run; from sage.common.home import SageHome; sys.exit(run(SageHome()))"
    env = os.environ | {"TERM": "xterm-256color", "SAGE_HOME": str(home.root)}
    code = code.replace("SageHome()", "SageHome.find()")
    terminal = pexpect.spawn(sys.executable, ["-c", code], env=env, dimensions=(24, 80), timeout=30)
    terminal.expect("serve")
    terminal.send("q")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert b"\x1b[?1049l" in terminal.before
