"""Import hygiene: what every command pays, and what must not come along."""

import importlib
import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "textual", "httpx", "pydantic", "sqlite_utils", "asyncio", "numpy", "yaml", "aiohttp"}
CHEAP = [
    "sage.common.errors",
    "sage.common.home",
    "sage.common.atomic",
    "sage.common.process",
    "sage.common.stack",
    "sage.common.store",
    "sage.common.config.ports",
    "sage.common.config.settings",
    "sage.common.config.network",
    "sage.common.prometheus",
    "sage.common.types",
    "sage.supervisor.client",
    "sage.supervisor.rescue",
]


FORK = """
import os, sys
for module in sys.argv[1:]:
    if os.fork() == 0:
        __import__(module)
        print(module, *sys.modules, flush=True)
        os._exit(0)
    os.wait()
"""


def unmeasured() -> dict[str, str]:
    """The environment without what makes a child measure its coverage, which loads modules of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env=unmeasured(),
    )
    return set(done.stdout.split())


@pytest.mark.spec("X1")
def test_nothing_heavy_comes_along() -> None:
    """Each import in a fork of one fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, *CHEAP], capture_output=True, text=True, check=True, env=unmeasured()
    )
    loaded = {line.split()[0]: set(line.split()[1:]) & HEAVY for line in done.stdout.splitlines()}
    assert loaded == {module: set() for module in CHEAP}


@pytest.mark.spec("X1")
def test_status_needs_no_subprocess_logging_or_socket() -> None:
    loaded = modules_after("from sage.common.stack import read_status; read_status()")
    assert loaded & {"logging", "subprocess", "socket", "sqlite3", "asyncio", "hashlib", "tomllib"} == set()


@pytest.mark.spec("X1")
def test_errors_import_nothing_but_themselves() -> None:
    before = modules_after("pass")
    assert modules_after("import sage.common.errors") - before <= {
        "sage",
        "__future__",
        "sage.common",
        "sage.common._version",
        "sage.common.errors",
    }


@pytest.mark.parametrize("package", ["sage.common", "sage.common.config", "sage.common.types", "sage.supervisor"])
def test_the_surface_is_complete_and_sorted(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError):
        _ = module.no_such_name
