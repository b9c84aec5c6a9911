"""What the dataflow tests share."""

import pathlib

import pytest

from sage.common.home import SageHome


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> SageHome:
    """Every test records its jobs in a directory of its own."""
    root: pathlib.Path = tmp_path_factory.mktemp("home") / ".sage"
    monkeypatch.setenv("SAGE_HOME", str(root))
    return SageHome(root)
