"""The wheel: what it holds, and that a clean environment with nothing but the wheel runs."""

import pathlib
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELLO = """
from sage.core.api import LocalEnvironment

env = LocalEnvironment("hello-sage")
(env
 .from_collection(["Hello", "World", "SAGE"])
 .map(lambda x: f"Processed: {x}")
 .print()
)
env.submit()
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel)],
        check=True,
        capture_output=True,
    )
    return python


def names(wheel: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: pathlib.Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"sage", "sagellm_core", "sagellm_protocol"}
    portions = {name.split("/")[1] for name in names(wheel) if name.startswith("sage/")}
    assert portions == {"cli", "common", "core", "llm", "middleware", "supervisor", "templates", "tui", "utils"}
    assert "sage/__init__.py" not in names(wheel)
    assert not [n for n in names(wheel) if "__pycache__" in n or n.endswith(".pyc")]


def test_the_wheel_ships_data_types_and_the_model(wheel: pathlib.Path) -> None:
    shipped = set(names(wheel))
    for portion in ("cli", "common", "core", "llm", "middleware", "supervisor", "templates", "tui", "utils"):
        assert f"sage/{portion}/py.typed" in shipped
    assert {"sagellm_core/py.typed", "sagellm_protocol/py.typed"} <= shipped
    assert "sagellm_core/builtin/model.safetensors" in shipped
    assert any(name.startswith("sage/templates/llm-pipeline/") for name in shipped)
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in shipped)


def test_every_tracked_source_is_in_the_wheel(wheel: pathlib.Path) -> None:
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "common", "engine", "flow", "tui", "sage_cli", "templates"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    expected = {name.split("/", 1)[1] for name in tracked if name and (ROOT / name).is_file()}
    assert expected - set(names(wheel)) == set()


@pytest.mark.spec("X1", "K1")
def test_a_clean_environment_runs_the_command_and_a_pipeline(
    clean_python: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    sage = clean_python.with_name("sage")
    version = subprocess.run([sage, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert version.stdout.strip().split()[-1] == "0.1.0"
    script = tmp_path / "simple_pipeline.py"
    script.write_text(HELLO)
    run = subprocess.run(
        [sage, "run", "local", str(script)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"SAGE_HOME": str(tmp_path / ".sage"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert run.stdout.splitlines() == ["Processed: Hello", "Processed: World", "Processed: SAGE"]


def test_the_base_install_is_light_and_keeps_folders_private(
    clean_python: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    absent = ["engine", "flow", "tui", "common", "torch", "transformers"]
    found = subprocess.run(
        [clean_python, "-c", code, *absent], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.strip() == "[]"
