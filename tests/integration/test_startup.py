"""Start-up: what a command costs before it does anything, and what it must not import."""

import os
import pathlib
import subprocess
import sys

import pytest

SAGE = pathlib.Path(sys.executable).with_name("sage")
HEAVY = ("torch", "transformers", "textual", "httpx", "pydantic", "sqlite_utils", "numpy", "rich", "asyncio")
TIMES_PYTHON = 9.0
ROUNDS = 7
DUMP = """\
import sys
from sage.cli.main import main
code = main({words!r})
print("modules:", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
sys.exit(code)
"""


def environment(home: pathlib.Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SAGE_", "COVERAGE_", "COV_", "PYTHON"))}
    return kept | {"SAGE_HOME": str(home)}


def cpu_seconds(argv: list[str | os.PathLike[str]], env: dict[str, str]) -> float:
    """User and system time of one child process, its children included."""
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


@pytest.mark.spec("X1")
@pytest.mark.parametrize(
    "words", [["--help"], ["llm", "status"], ["llm", "status", "--json"], ["--version"]], ids=" ".join
)
def test_a_command_starts_within_nine_bare_pythons(words: list[str], tmp_path: pathlib.Path) -> None:
    """Accept 6: the best of several runs, interleaved with ``python -c pass`` on the same machine."""
    env = environment(tmp_path / ".sage")
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(cpu_seconds([sys.executable, "-c", "pass"], env))
        ours.append(cpu_seconds([SAGE, *words], env))
    ratio = min(ours) / min(bare)
    assert ratio <= TIMES_PYTHON, f"sage {' '.join(words)}: {min(ours) * 1000:.0f} ms is {ratio:.1f} × python -c pass"


@pytest.mark.spec("X1")
@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["llm", "status"], ["llm", "--help"], ["llm", "serve", "--help"], ["config", "show"]],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(words: list[str], tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DUMP.format(words=words)],
        capture_output=True,
        text=True,
        env=environment(tmp_path / ".sage"),
        timeout=60,
        check=False,
    )
    loaded = set(done.stderr.rpartition("modules:")[2].split())
    assert "sage" in loaded, done.stderr
    assert sorted(loaded.intersection(HEAVY)) == []
