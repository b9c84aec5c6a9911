"""The project templates behind ``sage init``: data in folders beside this file, found through importlib.resources.

A template is a folder with a ``template.toml`` (description, first steps, documents to ship) and the project's files.
Two naming rules keep such a folder ordinary to git, wheels and linters: ``dot_x`` becomes ``.x``, and
``{{project_name}}`` in a text is replaced. This module does not know how a project is run.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sage.common.errors import SageError, UsageError

__all__ = ["TemplateInfo", "list_templates", "manual", "render"]

_MANIFEST = "template.toml"
_PROJECT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_SKIPPED = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", _MANIFEST})


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """A template's name, one line about it, what to type in a new project, and the folder for the manual ("": none)."""

    name: str
    description: str
    first_steps: tuple[str, ...]
    manual: str = ""


def list_templates() -> list[TemplateInfo]:
    """The templates of this installation, sorted by name."""
    found = (_info(folder) for folder in _root().iterdir() if folder.joinpath(_MANIFEST).is_file())
    return sorted(found, key=lambda info: info.name)


def manual() -> Traversable:
    """The folder of SAGE's manual pages (Markdown): package data in a wheel, ``docs/manual`` in a checkout.

    Raises SageError where an installation lacks them.
    """
    packaged = _root() / "manual"
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parents[3] / "docs" / "manual"
    if checkout.is_dir():
        return checkout
    raise SageError(
        "This installation lacks the manual pages",
        cause=f"neither {packaged} nor {checkout} exists",
        hint="Install SAGE again:  pip install --force-reinstall sage-stack",
    )


def render(name: str, dest: Path | str, project_name: str | None = None, force: bool = False) -> list[Path]:
    """Write the template ``name`` into the folder ``dest`` (made where missing) and return the files written, sorted.

    ``project_name`` defaults to the folder's name. Files of the same name are replaced with ``force`` only; other files
    in the folder stay. Raises UsageError on an unknown template, a name that is no project name, or a folder that is
    not empty; SageError when the folder cannot be written.
    """
    info = _find(name)
    dest = Path(dest)
    project = _checked_name(project_name if project_name is not None else dest.resolve().name)
    _check_destination(dest, force)
    files = dict(_project_files(info))
    try:
        return sorted(_write(dest / path, _fill(content, project)) for path, content in files.items())
    except OSError as error:
        raise SageError(
            f"Cannot write the project into {dest}",
            cause=f"{error.strerror or error}: {error.filename}",
            hint="Choose a folder that you may write to:  sage init PATH",
        ) from error


def _root() -> Traversable:
    return resources.files(__name__)


def _info(folder: Traversable) -> TemplateInfo:
    row = tomllib.loads(folder.joinpath(_MANIFEST).read_text(encoding="utf-8"))
    return TemplateInfo(folder.name, row["description"], tuple(row["first_steps"]), row.get("manual", ""))


def _find(name: str) -> TemplateInfo:
    templates = {info.name: info for info in list_templates()}
    if name in templates:
        return templates[name]
    near = difflib.get_close_matches(name, templates, n=1)
    raise UsageError(
        f"There is no template named {name!r}",
        cause=f"the templates are {', '.join(templates)}",
        hint=f"Did you mean:  sage init PATH --template={near[0]}" if near else "See them all:  sage init --list",
    )


def _checked_name(name: str) -> str:
    if _PROJECT_NAME.fullmatch(name):
        return name
    raise UsageError(
        f"{name!r} is not a project name",
        cause="a project name starts with a letter and holds letters, digits, '.', '_' and '-' (at most 64)",
        hint="Choose another:  sage init my-project",
    )


def _check_destination(dest: Path, force: bool) -> None:
    try:
        if dest.exists() and not dest.is_dir():
            raise UsageError(
                f"{dest} is a file", cause="a project needs a folder", hint="Choose another:  sage init PATH"
            )
        if dest.is_dir() and not force and any(dest.iterdir()):
            raise UsageError(
                f"{dest} is not empty",
                cause="files of the same name would be replaced",
                hint=f"Choose another folder, or replace them:  sage init {dest} --force",
            )
    except OSError as error:
        raise SageError(f"Cannot read {dest}", cause=str(error), hint="Choose another:  sage init PATH") from error


def _project_files(info: TemplateInfo) -> Iterator[tuple[Path, bytes]]:
    """Each file of the project: its path in the project and its content as it stands in the template."""
    for parts, source in _walk(_root() / info.name):
        yield Path(*(part.replace("dot_", ".", 1) if part.startswith("dot_") else part for part in parts)), source
    if info.manual:
        for parts, source in _walk(manual()):
            yield Path(info.manual, *parts), source


def _walk(folder: Traversable, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bytes]]:
    for entry in folder.iterdir():
        if entry.name in _SKIPPED or entry.name.endswith(".pyc"):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*above, entry.name))
        else:
            yield (*above, entry.name), entry.read_bytes()


def _fill(content: bytes, project: str) -> bytes:
    return content.replace(b"{{project_name}}", project.encode())


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
