"""The house rules that a reader relies on: namespace portions, typed packages, sizes, one home for port numbers."""

import ast
import importlib
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROOTS = ("common", "engine", "flow", "tui", "sage_cli", "templates")
PORTS = re.compile(r"(?<![\w.])(8889|8899|8001|8002|8901|8090|8091)(?![\w.])")


MACHINE_PATH = r"(^|[^a-zA-Z0-9_.~-])/(work|home|Users|root)/[a-z]"


def source_files() -> list[pathlib.Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def in_product(path: pathlib.Path) -> bool:
    return path.relative_to(ROOT).parts[0] in ROOTS


def packages() -> list[pathlib.Path]:
    """Every package directly under a ``sage/`` folder, and every top-level package."""
    found = []
    for root in ROOTS:
        for child in sorted((ROOT / root).iterdir()):
            if child.name == "sage":
                found += [p for p in sorted(child.iterdir()) if any(p.glob("*.py"))]
            elif child.is_dir() and (child / "__init__.py").exists():
                found.append(child)
    return found


def dotted(package: pathlib.Path) -> str:
    return ".".join(package.relative_to(ROOT).parts[1:])


@pytest.mark.parametrize("root", ROOTS)
def test_sage_is_a_native_namespace_package(root: str) -> None:
    assert not (ROOT / root / "sage" / "__init__.py").exists()
    assert not (ROOT / root / "__init__.py").exists()


def test_every_package_says_that_it_is_typed() -> None:
    untyped = [str(p.relative_to(ROOT)) for p in packages() if not (p / "py.typed").exists()]
    assert untyped == []


@pytest.mark.parametrize("package", packages(), ids=dotted)
def test_the_surface_of_a_package_is_complete_and_sorted(package: pathlib.Path) -> None:
    if dotted(package).startswith("sagellm_core.layers.cuda"):
        pytest.importorskip("triton", reason="triton is not installed (Linux on x86-64 only)")
    module = importlib.import_module(dotted(package))
    names = getattr(module, "__all__", None)
    assert names is not None, f"{dotted(package)} has no __all__"
    assert list(names) == sorted(names)
    missing = [name for name in names if not hasattr(module, name)]
    assert missing == []


def test_no_file_and_no_function_has_become_two_things() -> None:
    long_files, long_functions = [], []
    for path in source_files():
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(ROOT))
        if "snippets" in path.parts:
            continue
        if text.count("\n") > 600:
            long_files.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    long_functions.append(f"{name}:{node.lineno} {node.name} ({length})")
    assert long_files == []
    assert long_functions == []


@pytest.mark.spec("P1")
def test_port_numbers_live_in_one_file() -> None:
    strays = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files()
        if in_product(path) and path.name != "ports.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PORTS.search(line)
    ]
    assert strays == []


def test_nothing_names_a_path_of_a_particular_machine() -> None:
    listed = subprocess.run(
        [
            "git",
            "-C",
            str(ROOT),
            "grep",
            "-nIE",
            r"(^|[^a-zA-Z0-9_.~-])/(work|home|Users|root)/[a-z]",
            "--",
            ".",
            ":!tests",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert listed == ""
