"""The dataflow engine's benchmark: the same data for everybody, results that are checked, targets that are judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.environments import FLOW_PEERS, OURS
from benchmarks.flow.measure import Cell, measure
from benchmarks.flow.peers import workload
from benchmarks.flow.report import render
from benchmarks.flow.sides import SIDES, TITLES, Side
from benchmarks.flow.targets import TARGETS, judge

SCRIPTS = Path(workload.__file__).parent


def cell(row: str, name: str, seconds: float, **more: Any) -> Cell:
    side = next(side for side in SIDES if (side.row, side.name) == (row, name))
    return Cell(side, [{"wall": seconds, "cpu": seconds, "rss": 1 << 20, **more}])


def every(row: str, seconds: float, **more: Any) -> list[Cell]:
    return [cell(row, side.name, seconds, **more) for side in SIDES if side.row == row]


def test_every_side_has_a_script_and_an_environment_and_every_target_its_sides() -> None:
    assert {side.row for side in SIDES} == set(TITLES)
    for side in SIDES:
        assert (SCRIPTS / f"{side.script}.py").is_file()
        assert side.environment in {OURS, *FLOW_PEERS}
    names = {(side.row, side.name) for side in SIDES}
    assert {(target.row, name) for target in TARGETS for name in (target.ours, *target.peers)} <= names


def test_the_data_are_those_that_the_report_says() -> None:
    keys = workload.data_of("b", 20_000)
    assert keys == workload.data_of("b", 20_000)
    numbers = Counter(keys)
    assert numbers["0"] > 1.5 * numbers["1"] > numbers["9"]
    times = [time for _, time in workload.data_of("c", 5_000)]
    assert times != sorted(times)
    latest = 0
    for time in times:
        assert time > latest - workload.LATE
        latest = max(latest, time)


def test_wrong_results_are_noticed() -> None:
    workload.check_a(3, [3, 5])
    with pytest.raises(AssertionError):
        workload.check_a(3, [3])
    workload.check_b(["x", "x"], [("x", 1), ("x", 2)])
    with pytest.raises(AssertionError):
        workload.check_b(["x", "x"], [("x", 1), ("x", 1)])
    events = [("x", 1), ("x", 2), ("y", workload.WINDOW)]
    assert workload.lost(events, [("x", 0, 2), ("y", workload.WINDOW, 1)]) == 0
    assert workload.lost(events, [("x", 0, 1)]) == 2
    with pytest.raises(AssertionError):
        workload.lost(events, [("x", 0, 3), ("y", workload.WINDOW, 1)])


def test_a_target_is_reached_only_by_being_so_much_faster_than_the_best_of_its_peers() -> None:
    slow = [each for each in every("a", 1.0) if each.side.name != "ours"]
    best = max(each.rate for each in slow if each.side.name.startswith("bytewax"))
    at_par = judge([*slow, cell("a", "ours", 1_000_000 / best)])
    assert at_par[0].met
    assert at_par[0].ratio == pytest.approx(1.0)
    assert not judge([*slow, cell("a", "ours", 1.01 * 1_000_000 / best)])[0].met
    without_peers = judge([cell("a", "ours", 0.1)])
    assert not any(finding.met for finding in without_peers)


def test_an_event_lost_or_a_run_that_differs_is_a_target_missed() -> None:
    sound = judge(every("c", 1.0, lost=0, identical=True))[-4:]
    assert all(finding.met for finding in sound)
    assert not any(finding.met for finding in judge(every("c", 1.0, lost=1, identical=False))[-4:])


def test_the_report_says_why_a_side_has_no_figures() -> None:
    gone = Cell(SIDES[2], failure="bytewax cannot be installed: no wheel")
    text = render([cell("a", "ours", 0.5), gone], judge([gone]), [], ["## More"], ["parallel: not there"])
    assert "| ours | 1,000,000 | 2,000,000 (2,000,000) | 1.00x |" in text
    assert "no wheel" in text
    assert "- parallel: not there" in text
    assert "## More" in text


@pytest.mark.slow
def test_our_sides_run_with_right_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_BENCH_CACHE", str(tmp_path))
    ours = [Side(**{**{name: getattr(side, name) for name in Side.__slots__}, "rounds": 2}) for side in SIDES]
    cells = measure([side for side in ours if side.environment == OURS], scale=0.002)
    assert [each.failure for each in cells] == [""] * len(cells)
    assert all(len(each.runs) == 2 and each.rate > 0 and each.rss > 0 for each in cells)
    assert all(each.lost == 0 and all(run["identical"] for run in each.runs) for each in cells if each.side.row == "c")
