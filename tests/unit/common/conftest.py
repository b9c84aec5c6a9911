"""Fixtures of the tests of sage.common: a `.sage/` of their own and an environment without SAGE's variables."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sage.common.home import SageHome

settings.register_profile("sage", deadline=None)  # a busy machine is no failure
settings.load_profile("sage")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("SAGE_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def home(tmp_path: Path) -> SageHome:
    return SageHome(tmp_path / "project" / ".sage").ensure()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket of this process that listens on 127.0.0.1."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server
