"""Run with:  python -m pytest"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sage.core.api import LocalEnvironment

PROJECT = Path(__file__).parents[1]
START = 1_700_000_040_000  # the beginning of a minute


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    """The pipeline's functions, without running it."""
    spec = importlib.util.spec_from_file_location("pipeline", PROJECT / "pipeline.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["pipeline"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def click(second: float, user: str = "ada", page: str = "/") -> dict[str, Any]:
    return {"ms": START + int(1000 * second), "user": user, "page": page}


def run(pipeline: ModuleType, clicks: list[dict[str, Any]], out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each folder of results."""
    env = LocalEnvironment("test", {"checkpointing": "exactly_once", "checkpoint.dir": str(out / "checkpoints")})
    pipeline.build(env.from_collection(clicks), out)
    env.submit()
    return {
        name: [json.loads(line) for path in sorted((out / name).glob("*.jsonl")) for line in path.open()]
        for name in ("pages", "visits", "late")
    }


def test_pages_are_counted_by_the_clicks_own_minute(pipeline: ModuleType, tmp_path: Path) -> None:
    clicks = [click(1), click(59), click(61), click(58), click(62, page="/docs")]

    rows = run(pipeline, clicks, tmp_path)["pages"]

    assert sorted((row["page"], row["minute"] - START, row["clicks"]) for row in rows) == [
        ("/", 0, 3),
        ("/", 60_000, 1),
        ("/docs", 60_000, 1),
    ]


def test_a_click_that_comes_too_late_is_kept_apart(pipeline: ModuleType, tmp_path: Path) -> None:
    clicks = [click(1), click(200), click(2)]

    results = run(pipeline, clicks, tmp_path)

    assert results["late"] == [click(2)]
    assert sum(row["clicks"] for row in results["pages"]) == 2


def test_a_long_pause_ends_a_visit(pipeline: ModuleType, tmp_path: Path) -> None:
    clicks = [click(0, page="/a"), click(100, page="/b"), click(200, page="/c"), click(600, page="/d")]

    rows = run(pipeline, clicks, tmp_path)["visits"]

    assert [(row["first"], row["last"], row["clicks"]) for row in rows] == [("/a", "/c", 3), ("/d", "/d", 1)]


def test_every_click_of_the_sample_is_counted_or_late(pipeline: ModuleType, tmp_path: Path) -> None:
    clicks = [json.loads(line) for line in (PROJECT / "clicks.jsonl").open()]

    results = run(pipeline, clicks, tmp_path)

    assert results["late"]
    assert sum(row["clicks"] for row in results["pages"]) + len(results["late"]) == len(clicks)
