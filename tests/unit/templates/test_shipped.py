"""Templates and manual travel in the wheel, hidden files too, and are found there without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sage.templates import render

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, sys, sage.templates as t
files = t.render("llm-pipeline", sys.argv[1])
print(json.dumps([t.__file__, str(t.manual()), [info.name for info in t.list_templates()], [str(f) for f in files]]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


@pytest.mark.slow
@pytest.mark.spec("X3")
def test_a_project_from_the_wheel_is_the_one_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "shipped" / "p"],
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    module, manual, names, files = json.loads(done.stdout)

    assert module.startswith(str(place))
    assert manual.startswith(str(place))
    assert names == ["analytics", "llm-pipeline", "minimal"]
    here = render("llm-pipeline", tmp_path / "here" / "p")
    assert [Path(file).relative_to(tmp_path / "shipped") for file in files] == [
        file.relative_to(tmp_path / "here") for file in here
    ]
    assert all(Path(shipped).read_bytes() == file.read_bytes() for shipped, file in zip(files, here, strict=True))
