"""The examples of the page on the dataflow model print what stands below them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", (DOCS / "flow.md").read_text(), re.DOTALL)


def test_every_example_has_its_output() -> None:
    assert len(BLOCKS) == (DOCS / "flow.md").read_text().count("```python")
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize(("program", "output"), BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_prints_what_the_page_says(
    program: str, output: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / ".sage"))
    monkeypatch.chdir(tmp_path)

    exec(compile(program, "flow.md", "exec"), {"__name__": "flow"})

    assert capsys.readouterr().out == output
