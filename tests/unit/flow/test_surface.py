"""The public face: what importing costs, running examples, types that mypy checks (SPEC K1, K2, X1)."""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

HEAVY = {"asyncio", "httpx", "numpy", "pydantic", "sqlite3", "sqlite_utils", "textual", "torch", "transformers", "yaml"}
RUNTIME = {"msgspec", "sage.core.checkpoint", "sage.core.runtime.local.job"}  # what runs jobs: with the first submit()


@pytest.mark.parametrize(
    "statement", ["import sage.core.api", "from sage.core.api import LocalEnvironment as L; L('x')"]
)
def test_importing_is_light(statement: str) -> None:
    code = f"import sys\n{statement}\nprint(*sorted(set(sys.modules) & set(sys.argv[1:])))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY, *RUNTIME], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "name",
    [
        "sage.core",
        "sage.core.api",
        "sage.core.api.columns",
        "sage.core.api.function",
        "sage.core.graph",
        "sage.core.runtime",
        "sage.core.runtime.local",
        "sage.middleware",
        "sage.middleware.service",
        "sage.middleware.services",
        "sage.middleware.services.memory",
        "sage.middleware.services.vdb",
    ],
)
def test_every_package_lists_what_it_offers(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, entry) for entry in package.__all__)
    with pytest.raises(AttributeError):
        _ = package.no_such_name


def test_the_names_of_the_documents_import() -> None:
    from sage.core.api import LocalEnvironment
    from sage.core.api.datastream import DataStream
    from sage.core.api.function import FilterFunction, MapFunction
    from sage.core.api.function.base_function import BaseFunction
    from sage.core.api.local_environment import LocalEnvironment as Same
    from sage.middleware.services.vdb import VDBService

    assert LocalEnvironment is Same
    assert all((DataStream, FilterFunction, MapFunction, BaseFunction, VDBService))


GOOD = """
from sage.core.api import DataStream, KeyedStream, LocalEnvironment
from sage.core.api.function import FlatMapFunction, MapFunction

class Parse(MapFunction[str, int]):
    def execute(self, value: str) -> int:
        return int(value)

class Words(FlatMapFunction[str, str]):
    def execute(self, value: str) -> list[str]:
        return value.split()

def numbers():
    yield 1

env = LocalEnvironment("typed")
text: DataStream[str] = env.from_collection(["1 2"]).flat_map(Words)
parsed: DataStream[int] = text.map(Parse)
again: DataStream[int] = text.map(Parse())
doubled: DataStream[float] = parsed.map(lambda x: x * 2.0)
keyed: KeyedStream[str, int] = parsed.key_by(lambda x: str(x))
total: DataStream[int] = keyed.reduce(lambda a, b: a + b)
lengths: DataStream[int] = env.from_batch(["a"]).map(len)
total.union(lengths).filter(lambda x: x > 1).sink(print)
env.submit(doubled.print())
"""
BAD = {
    "env.from_collection([1]).map(lambda x: x.upper())": "attr-defined",
    "env.from_collection([1]).filter(str.upper)": "arg-type",
    "env.from_collection(['a']).map(Parse).map(str.upper)": "arg-type",
    "env.from_collection([1]).key_by(lambda x: [x])": "type-var",
    "env.from_collection([1]).union(env.from_collection(['a']))": "list-item|arg-type",
    "env.from_collection([1]).flat_map(lambda x: x)": "return-value|arg-type|misc",
    "env.from_collection([1]).reduce(lambda a, b: str(a))": "return-value|arg-type",
}


@pytest.mark.slow
@pytest.mark.spec("K2")
def test_mypy_finds_wrong_pipelines(tmp_path: pathlib.Path) -> None:
    """The good file passes; in the bad one every line has its error."""
    (tmp_path / "good.py").write_text(GOOD)
    head = GOOD.partition("text: DataStream")[0]
    (tmp_path / "bad.py").write_text(head + "\n".join(BAD) + "\n")
    first = head.count("\n") + 1
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--cache-dir",
            tmp_path / "cache",
            "--follow-imports=silent",
            "good.py",
            "bad.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    errors: dict[int, str] = {}
    for line in done.stdout.splitlines():
        file, _, rest = line.partition(":")
        assert file != "good.py", done.stdout
        if file == "bad.py" and " error: " in rest:
            number, _, message = rest.partition(":")
            errors[int(number)] = errors.get(int(number), "") + message
    for offset, (code, wanted) in enumerate(BAD.items()):
        found = errors.get(first + offset, "no error")
        assert any(f"[{name}]" in found for name in wanted.split("|")), f"{code}: {found}\n{done.stdout}"


def test_all_that_functions_need_comes_from_the_api_itself() -> None:
    api, function = importlib.import_module("sage.core.api"), importlib.import_module("sage.core.api.function")
    assert set(function.__all__) - set(api.__all__) == set()
    assert all(hasattr(api, name) for name in (*api.__all__, "RetryPolicy", "ServiceOptions"))
