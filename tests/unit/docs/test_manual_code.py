"""What the manual tells people to type exists: commands, options, imports. Sections headed "Planned" may look ahead."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.cli.manifest import walk

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "docs" / "manual").glob("*.md")), ROOT / "README.md"]
COMMANDS = {path for path, _ in walk()} | {"sage"}
EVERYWHERE = {"--help", "--version", "--debug", "--install-completion"}


def present(page: Path) -> str:
    """The page without its planned section."""
    return page.read_text().split("\n## Planned\n")[0]


def typed(text: str) -> Iterator[str]:
    """The ``sage`` commands in code blocks and in the text."""
    for block in re.findall(r"```\n(.*?)```", text, re.DOTALL):
        yield from re.findall(r"^(?:.*&& )?(sage .*)$", block, re.MULTILINE)
    yield from (code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith("sage "))


def reference(command: str) -> str:
    """The command's section in the generated reference."""
    return (ROOT / "docs" / "cli.md").read_text().split(f"## {command}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_of_the_manual_exist(page: Path) -> None:
    for line in typed(present(page)):
        words = line.split(" -- ")[0].split("   ")[0].replace("`", "").split()
        if "COMMAND" in words or words[1] == "...":
            continue
        plain = [word for word in words if not word.startswith("-") and word != "local"]
        lengths = [n for n in range(len(plain), 0, -1) if " ".join(plain[:n]) in COMMANDS]
        command = " ".join(plain[: lengths[0]])
        options = {word.split("=")[0] for word in words if word.startswith("--")} - EVERYWHERE
        assert command != "sage" or set(words[1:]) <= EVERYWHERE, line
        for option in options:
            assert option in reference(command), f"{page.name}: {line}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_in_the_manual_compiles_and_its_imports_are_there(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{page.name}: {ast.unparse(node)}"
