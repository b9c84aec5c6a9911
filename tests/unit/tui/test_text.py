"""The headless twin, and what importing costs."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sage.common.home import SageHome
from sage.tui import snapshot, snapshot_json
from sage.tui.data import Freshness, Snapshot
from sage.tui.text import lines, plain


def test_the_whole_picture_in_eighty_columns(busy: Snapshot) -> None:
    text = list(lines(busy))
    assert max(map(len, text)) <= 80
    assert not any(line.endswith(" ") for line in text)
    assert (
        "\n".join(text)
        == """\
SAGE  /home/me/my-project/.sage

cpu 42% of 8 cores   memory 5.0 GiB of 16.0 GiB   disk 40.0 GiB free

DAEMON          STATE            PID   PORT  RESTARTS        UP    CPU    MEMORY
gateway         ready           4101   8889         0    1h 06m     2%   200 MiB
engine          ready           4102   8001         1    1h 06m   131%   900 MiB
embedding       dead               –   8090         0         –      –         –
  embedding: killed by signal 9

engine  sage-builtin
  running 3   waiting 1   kv 38%   tokens/s 34.2   prompt tokens/s 75.9
  first token p50 31.2 ms   p95 82.1 ms   p99 97.5 ms   (last minute, 400)
  each token  p50 7.1 ms   p95 20.4 ms   p99 24.1 ms   (last minute, 400)

gateway  ready
  requests/s 17.7   in flight 2   queue 0   errors 0.8%   refused 0
  answer      p50 155 ms   p95 835 ms   p99 1.95 s   (last minute, 400)

embedding  hash   STALE: 12s old
  texts/s –   a batch 4.20   total 1678   p95 82.1 ms

PIPELINE                         STATE           IN      OUT    OUT/S      TIME
llm-pipeline                     running       1210      905     31.4    3m 04s
broken                           failed           7        3     2.50        1s
minimal                          finished       100      100     10.0       10s
  broken: operator 'split' (other.py:12): ZeroDivisionError: division by zero"""
    )


def test_nothing_runs_and_the_next_command(home: SageHome) -> None:
    assert "Start the stack:  sage llm serve" in snapshot(home, settle_s=0)


def test_pipelines_without_daemons_still_show(busy: Snapshot) -> None:
    jobs_only = dataclasses.replace(Snapshot(busy.taken_at, busy.home), jobs=busy.jobs, notes=("the disk is full",))
    text = "\n".join(lines(jobs_only))
    assert "note  the disk is full" in text
    assert "No daemons. Start the stack:  sage llm serve" in text
    assert "llm-pipeline" in text


def test_a_daemon_that_never_answered_has_no_data(busy: Snapshot) -> None:
    engine = dataclasses.replace(busy.engines[0], fresh=Freshness(None, True, "connection refused"))
    assert "engine  sage-builtin   STALE: no data" in list(lines(dataclasses.replace(busy, engines=(engine,))))


def test_json_is_plain_and_without_the_curves(busy: Snapshot) -> None:
    values = json.loads(json.dumps(plain(busy)))
    assert values["engines"][0]["token_rate"] == 34.2
    assert values["gateway"]["latency"]["p95"] == 0.835
    assert values["stack"]["daemons"][2]["exit_code"] == -9
    assert "history" not in json.dumps(values)


def test_a_real_look(home: SageHome, daemon: Callable[..., Any], record: Callable[..., None]) -> None:
    record(daemon("engine", "llm", metrics="sage_engine_requests_running 3\n"))
    values = snapshot_json(home, settle_s=0.05)
    assert values["engines"][0]["running"] == 3
    assert values["system"]["cpu"] is not None
    assert values["stack"]["daemons"][0]["state"] == "ready"


def loaded_by(module: str) -> set[str]:
    """Every module that a fresh Python holds after importing this one."""
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


@pytest.mark.parametrize("module", ["sage.tui", "sage.tui.data", "sage.tui.text", "sage.tui.format"])
def test_the_headless_side_loads_no_screen(module: str) -> None:
    heavy = {"textual", "rich", "httpx", "aiohttp", "asyncio", "pydantic", "torch", "sqlite_utils", "pynvml"}
    assert loaded_by(module) & heavy == set()


def test_the_dashboard_loads_nothing_of_the_other_rooms() -> None:
    others = {"sage.supervisor", "sage.llm", "sage.core", "sage.middleware", "sage.cli", "sagellm_core"}
    assert loaded_by("sage.tui.app") & others == set()


def test_every_package_says_what_it_offers() -> None:
    import importlib

    for name in ("sage.tui", "sage.tui.data", "sage.tui.screens", "sage.tui.widgets"):
        package = importlib.import_module(name)
        assert package.__all__ == sorted(package.__all__)
        assert all(getattr(package, exported) is not None for exported in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        importlib.import_module("sage.tui").nonsense  # noqa: B018
