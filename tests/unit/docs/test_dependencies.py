"""Every dependency is explained, and the page explains nothing that is not there any more."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"], *(x for e in extras for x in e)]
    lines += [line for line in (ROOT / "tests" / "requirements-models.txt").read_text().splitlines() if "==" in line]
    names = {re.split(r"[\[>=<;\s]", line, maxsplit=1)[0].lower() for line in lines}
    return {name for name in names if not name.startswith(("sage-stack", "types-", "#", "--hash"))}


def explained() -> set[str]:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    cells = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    return {name.strip().lower() for cell in cells for name in cell.split(",")} - {"library", "---", "types-*"}


def test_every_dependency_is_explained_and_no_other() -> None:
    assert declared() == explained()
