"""Records at which a function raises: left out, or kept as dead letters (SPEC K6, R3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.flow.checkpoint.jobs import Project, Record

from sage.common.errors import ConfigError, PipelineError
from sage.core.api import LocalEnvironment
from sage.core.runtime.dead_letters import DeadLetters
from sage.core.runtime.failure import RecordFailure

pytestmark = pytest.mark.spec("K6", "R3")


def inverted(config: dict[str, Any], records: list[Any]) -> list[float]:
    env, seen = LocalEnvironment("inverted", config), []  # type: ignore[var-annotated]
    env.from_collection(records).map(lambda n: 10 / n, name="invert").sink(seen.append)
    env.submit()
    return seen


def test_without_a_policy_a_poison_record_fails_the_job() -> None:
    with pytest.raises(PipelineError, match="'invert' failed"):
        inverted({}, [1, 0, 2])


def test_skipped_records_vanish_and_the_first_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert inverted({"on_error": "skip"}, [1, 0, 2, "x", 5]) == [10, 5, 2]
    said = capsys.readouterr().err
    assert said.count("left out") == 1
    assert "ZeroDivisionError" in said


def test_dead_letters_hold_the_record_and_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "letters" / "mine.jsonl"
    assert inverted({"dead_letter": str(place)}, [1, 0, 2, {"a": [1]}, {3}, float("nan"), "\ud800", 5])[:2] == [10, 5]
    letters = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    assert [letter["record"] for letter in letters][:3] == [0, {"a": [1]}, {"repr": "{3}"}]
    assert letters[0]["operator"] == "invert"
    assert letters[0]["error"] == "ZeroDivisionError"
    assert "test_dead_letters.py" in letters[0]["at"]
    assert str(place) in capsys.readouterr().err


class ShyError(Exception):
    """As record and as exception."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __rtruediv__(self, other: int) -> float:
        raise self


def test_a_letter_about_what_cannot_be_shown(tmp_path: Path) -> None:
    place = tmp_path / "letters.jsonl"
    assert inverted({"dead_letter": str(place)}, [ShyError(), 5]) == [2.0]
    letter = json.loads(place.read_text())
    assert letter["error"] == "ShyError"
    assert letter["message"] == ""
    assert "ShyError" in letter["record"]["repr"]


def test_without_a_place_they_lie_in_the_projects_folder(home: Any) -> None:
    inverted({"on_error": "dead-letter"}, [0, 1])
    (file,) = (home.root / "dead-letters").iterdir()
    assert json.loads(file.read_text())["record"] == 0


def test_a_letter_that_cannot_be_written_fails_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="dead letter cannot be written"):
        inverted({"dead_letter": str(tmp_path / "file" / "x")}, [0])
    with pytest.raises(PipelineError, match="cannot be written"):
        DeadLetters(tmp_path / "file" / "x")(RecordFailure("a", "b", 0, 1, None, ValueError("no")))


def test_a_wrong_policy_names_the_key() -> None:
    with pytest.raises(ConfigError, match="on_error"):
        LocalEnvironment("x", {"on_error": "ignore"})


def test_poison_and_checkpoints(tmp_path: Path) -> None:
    """What is left out is left out of the state too, in every attempt."""
    project = Project(tmp_path / ".sage", config={"on_error": "skip"})

    def step(record: Record) -> Record:
        if record[0] == 13:
            raise ValueError("13")
        return record

    project.start(2, step=step, block=True)
    assert sorted(project.ledger.committed) == [pair for pair in project.expected if pair[0] != 13]
