"""sage init, sage config show, shell completion, a reader that leaves early."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))


@pytest.mark.spec("X3")
def test_init_makes_a_project(cli: Any) -> None:
    made = cli("init", "my-project", "--template=llm-pipeline")
    assert (made.code, made.out) == (0, "my-project\n")
    assert "sage run local pipeline.py" in made.err
    assert pathlib.Path("my-project/pipeline.py").is_file()
    assert "cd my-project  &&  sage llm serve  &&  sage run local pipeline.py\n" in made.err
    minimal = cli("init", "my folder/second", "--template", "minimal")
    assert "cd 'my folder/second'  &&  sage run local pipeline.py\n" in minimal.err
    told = json.loads(cli("init", "other", "--template", "minimal", "--json").out)
    assert "other/pipeline.py" in told["files"]


@pytest.mark.spec("X3", "X11")
def test_templates_are_listed(cli: Any) -> None:
    names = [row["name"] for row in json.loads(cli("init", "--list", "--json").out)]
    assert names == sorted(names)
    assert {"llm-pipeline", "minimal"} <= set(names)
    assert all(f"\n{name}" in cli("init", "--list").out for name in names)


@pytest.mark.spec("X3", "X12")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init",), "sage init my-project"),
        (("init", "x", "--template", "lm-pipeline"), "--template=llm-pipeline"),
        (("init", "9lives"), "not a project name"),
        (("init", "full"), "--force"),
        (("init", "file"), "is a file"),
    ],
)
def test_wrong_names_and_places(words: tuple[str, ...], said: str, cli: Any) -> None:
    pathlib.Path("full").mkdir()
    pathlib.Path("full/kept.txt").write_text("mine")
    pathlib.Path("file").write_text("")
    shown = cli(*words)
    assert shown.code == 2
    assert said in shown.err
    assert shown.out == ""
    assert cli("init", "full", "--force").code == 0
    assert pathlib.Path("full/kept.txt").read_text() == "mine"


@pytest.mark.spec("P4", "X11")
def test_config_show_says_where_a_value_comes_from(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CHAT_API_KEY", "sk-0123456789abcdef")
    pathlib.Path("sage.toml").write_text("[llm]\nport = 1234\n")
    pathlib.Path(".env").write_text("SAGE_EMBEDDING_MODEL=minilm\n")
    shown = cli("config", "show", "--origin").out
    rows = {line.split()[0]: line for line in shown.splitlines()}
    assert rows["llm.port"].split()[1] == "1234"
    assert "sage.toml" in rows["llm.port"]
    assert "SAGE_EMBEDDING_MODEL" in rows["embedding.model"]
    assert "environment" in rows["chat.api_key"]
    assert "0123456789" not in shown
    told = {row["key"]: row for row in json.loads(cli("config", "show", "--json").out)}
    assert told["llm.port"]["value"] == 1234
    assert "0123456789" not in str(told["chat.api_key"]["value"])


def test_config_show_names_the_mistake_in_a_file(cli: Any) -> None:
    pathlib.Path("sage.toml").write_text("[llm]\nprot = 1\n")
    shown = cli("config", "show")
    assert shown.code == 1
    assert "llm.port" in shown.err


def complete(words: str, at: int, folder: pathlib.Path) -> list[str]:
    env = os.environ | {"_SAGE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    done = subprocess.run([SAGE], capture_output=True, text=True, env=env, cwd=folder, check=False, timeout=30)
    return done.stdout.split()


@pytest.mark.spec("X1")
def test_the_shell_completes_commands_and_options(tmp_path: pathlib.Path) -> None:
    assert complete("sage ch", 1, tmp_path) == ["check-env", "chat"]
    assert complete("sage llm st", 2, tmp_path) == ["stop", "status"]
    assert "--gateway-port" in complete("sage llm serve --g", 3, tmp_path)
    assert complete("sage nothing x", 2, tmp_path) == []


@pytest.mark.spec("X1")
def test_completion_is_installed_for_the_shell(tmp_path: pathlib.Path) -> None:
    env = os.environ | {
        "HOME": str(tmp_path),
        "SHELL": "/bin/bash",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [SAGE, "--install-completion", "bash"],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    installed = [path for path in tmp_path.rglob("*") if path.is_file() and "_SAGE_COMPLETE" in path.read_text()]
    assert installed


def test_a_reader_that_leaves_early_is_no_error(home: pathlib.Path) -> None:
    """sage … | head"""
    logs = home / "logs"
    logs.mkdir(parents=True)
    (logs / "engine.log").write_text("a line of a log\n" * 20000)
    with subprocess.Popen(
        [SAGE, "llm", "logs", "--tail", "20000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(timeout=30) == 0


@pytest.mark.spec("X11", "X12")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("llm status >&-", 3),
        ("llm status 2>&-", 3),
        ("init --list <&- >&- 2>&-", 0),
        ("embed <&-", 2),
        ("no-such-command 2>&-", 2),
    ],
)
def test_closed_standard_streams_are_no_error(command: str, code: int, home: pathlib.Path) -> None:
    done = subprocess.run(["bash", "-c", f"{SAGE} {command}"], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "fault in SAGE" not in done.stderr
