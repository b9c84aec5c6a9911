"""Every operator's docstring has an example that runs (SPEC K2)."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import sage.core.api
from sage.core.api import (
    BroadcastConnectedStream,
    ConnectedStreams,
    DataStream,
    KeyedConnectedStreams,
    KeyedStream,
    WindowedStream,
)
from sage.core.api.columns.stream import ColumnStream

STREAMS: list[type[Any]] = [
    BroadcastConnectedStream,
    ColumnStream,
    ConnectedStreams,
    DataStream,
    KeyedConnectedStreams,
    KeyedStream,
    WindowedStream,
]
ELSEWHERE = {  # overridden for its types only; the first word of a sentence whose last one has the example
    "KeyedStream.connect",
    "DataStream.join",
    "DataStream.co_group",
    "KeyedStream.interval_join",
}


def operators() -> list[tuple[str, Any]]:
    found: dict[Any, str] = {}
    for stream in STREAMS:
        for name, member in inspect.getmembers(stream, inspect.isfunction):
            if not name.startswith("_") and member.__name__ == name:
                found.setdefault(member, f"{stream.__name__}.{name}")
    return [(name, member) for member, name in found.items() if name not in ELSEWHERE]


def modules() -> list[str]:
    """The modules of the API whose docstrings have examples."""
    walked = pkgutil.walk_packages(sage.core.api.__path__, "sage.core.api.")
    return [name for _, name, _ in walked if ">>>" in inspect.getsource(importlib.import_module(name))]


@pytest.mark.spec("K2")
def test_every_operator_has_an_example() -> None:
    assert [name for name, member in operators() if ">>>" not in (inspect.getdoc(member) or "")] == []


@pytest.mark.spec("K2")
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # an example leaves its folder to the end
@pytest.mark.parametrize("name", modules())
def test_the_examples_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert failed == 0
    assert tried > 0
