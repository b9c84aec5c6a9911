"""What ``sage init`` writes (SPEC X3)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sage.common.errors import SageError, UsageError
from sage.templates import list_templates, manual, render

pytestmark = pytest.mark.spec("X3")

COMMON = {".env.template", ".gitignore", "README.md", "pipeline.py", "sage.toml", "tests/test_pipeline.py"}


def relative(files: list[Path], root: Path) -> set[str]:
    return {file.relative_to(root).as_posix() for file in files}


def test_the_templates_are_listed_with_one_line_each() -> None:
    templates = list_templates()

    assert [info.name for info in templates] == ["analytics", "llm-pipeline", "minimal"]
    assert all(info.description and "\n" not in info.description for info in templates)


def test_the_first_steps_are_those_of_the_projects_readme(tmp_path: Path) -> None:
    for info in list_templates():
        render(info.name, tmp_path / info.name)
        readme = (tmp_path / info.name / "README.md").read_text()
        assert "\n\n" + "".join(f"    {step}\n" for step in info.first_steps) + "\n" in readme


def test_minimal_has_all_files_hidden_ones_too(tmp_path: Path) -> None:
    dest = tmp_path / "my-project"

    written = render("minimal", dest)

    assert relative(written, dest) == COMMON
    assert all(file.is_file() for file in written)


def test_the_pipeline_template_ships_the_manual_and_the_questions(tmp_path: Path) -> None:
    written = relative(render("llm-pipeline", tmp_path / "p"), tmp_path / "p")

    pages = {f"docs/{page.name}" for page in manual().iterdir()}
    assert len(pages) >= 10
    assert written == COMMON | pages | {"questions.txt", "tests/expected.jsonl"}


@pytest.mark.parametrize("name", ["analytics", "llm-pipeline", "minimal"])
def test_the_project_name_is_filled_in_and_no_placeholder_is_left(tmp_path: Path, name: str) -> None:
    written = render(name, tmp_path / "p", project_name="blue-whale")

    assert (tmp_path / "p" / "README.md").read_text().startswith("# blue-whale\n")
    assert not [file for file in written if "{{" in file.read_text()]


def test_the_name_defaults_to_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    render("minimal", ".")

    assert (tmp_path / "here" / "README.md").read_text().startswith("# here\n")


def test_an_unknown_template_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        render("llm-pipelin", tmp_path / "p")

    assert "--template=llm-pipeline" in caught.value.hint
    assert caught.value.exit_code == 2
    assert not (tmp_path / "p").exists()


def test_a_template_far_from_all_names_them_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        render("xyz", tmp_path / "p")

    assert "minimal" in caught.value.cause
    assert "--list" in caught.value.hint


@pytest.mark.parametrize("name", ["", "1st", "a b", "../up", "a/b", "naïve", "x" * 65, "-x", "a\nb"])
def test_names_that_are_no_project_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a project name"):
        render("minimal", tmp_path / "p", project_name=name)

    assert not (tmp_path / "p").exists()


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match="not empty") as caught:
        render("minimal", tmp_path, project_name="p")

    assert "--force" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_force_replaces_its_own_files_and_keeps_all_others(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "README.md").write_text("old")

    render("minimal", tmp_path, project_name="p", force=True)

    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "README.md").read_text().startswith("# p\n")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a file")

    with pytest.raises(UsageError, match="is a file"):
        render("minimal", tmp_path / "p", force=True)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tests").write_text("a file where a folder must go")

    with pytest.raises(SageError, match="Cannot write") as caught:
        render("minimal", tmp_path, project_name="p", force=True)

    assert caught.value.exit_code == 1
    assert "sage init" in caught.value.hint


def test_files_can_be_changed_by_their_owner(tmp_path: Path) -> None:
    written = render("minimal", tmp_path / "p")

    assert all(file.stat().st_mode & stat.S_IWUSR for file in written)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["analytics", "llm-pipeline", "minimal"])
def test_the_tests_of_a_new_project_pass(tmp_path: Path, name: str) -> None:
    project = tmp_path / "p"
    render(name, project)
    env = os.environ | {"SAGE_HOME": str(tmp_path / ".sage")}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
