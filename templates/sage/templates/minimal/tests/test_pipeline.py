"""Run with:  python -m pytest"""

import runpy
from pathlib import Path

import pytest

PIPELINE = Path(__file__).parents[1] / "pipeline.py"


def test_every_word_is_processed_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PIPELINE), run_name="__main__")

    assert capsys.readouterr().out.splitlines() == ["Processed: Hello", "Processed: World", "Processed: SAGE"]
