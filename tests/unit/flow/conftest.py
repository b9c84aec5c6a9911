"""What the dataflow tests share."""

import pathlib

import pytest

from sage.common.home import SageHome


@pytest.fixture(autouse=True)
def nowhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in a place without `.sage/`: nothing is recorded unless a test asks for `home`."""
    place = tmp_path_factory.mktemp("nowhere")
    monkeypatch.delenv("SAGE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(place)


@pytest.fixture
def home(nowhere: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> SageHome:
    """A directory in which the test's jobs are recorded."""
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / ".sage"))
    return SageHome(tmp_path / ".sage")
