"""Logs: structure, redaction, rotation, and a disk that is full."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common import logs
from sage.common.home import SageHome
from sage.common.logs import configure_logging, get_logger, redact, tail


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.spec("P6")
def test_plain_lines_carry_fields(home: SageHome) -> None:
    configure_logging("cli", home=home)
    get_logger("sage.x", job="j1").info("hello %s", "world", seconds=0.123456789, text="two words")
    line = (home.logs / "cli.log").read_text()
    assert ' INFO    cli sage.x: hello world job=j1 seconds=0.123457 text="two words"\n' in line


@pytest.mark.spec("P6")
def test_json_lines_are_objects(home: SageHome) -> None:
    configure_logging("cli", home=home, json=True)
    log = get_logger("sage.x").bind(level="mine")
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed", path=Path("/p"), api_key="sk-abcdefgh")
    line = json.loads((home.logs / "cli.log").read_text())
    assert (line["level"], line["component"], line["message"]) == ("ERROR", "cli", "failed")
    assert line["field_level"] == "mine"
    assert line["path"] == "/p"
    assert "ValueError: boom" in line["error"]
    assert "abcdefgh" not in json.dumps(line)


@pytest.mark.spec("R4")
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key sk-proj-AbC123_xyz is wrong", "AbC123"),
        ("HF_TOKEN=hf_AbCdEfGh12", "AbCdEfGh12"),
        ("Authorization: Bearer abc.def-ghi", "abc.def"),
        ('{"api_key": "s3cr3t-value"}', "s3cr3t"),
        ("https://user:pa55word@host/x", "pa55word"),
        ("?api-key=s3cr3t&x=1", "s3cr3t"),
        ("SAGE_CHAT_API_KEY=token-optional", "token-optional"),
        ("password: hunter2", "hunter2"),
        ("GET /x?token=0123456789abcdef0 HTTP/1.1", "0123456789abcdef0"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "prompt_tokens=12",
        "max_tokens: 48",
        "a task-force",
        "tokens/s 12.5",
        "token=5",
        "the key is missing",
        "basic idea",
    ],
)
def test_harmless_words_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text(alphabet="abcdefghij0123456789", min_size=8, max_size=40))
def test_redaction_is_stable(secret: str) -> None:
    once = redact(f"Authorization: Bearer {secret} api_key={secret} sk-{secret}")
    assert secret not in once
    assert redact(once) == once


def test_a_second_configuration_replaces_the_first(home: SageHome) -> None:
    configure_logging("one", home=home)
    configure_logging("two", home=home, level="warning")
    get_logger("x").info("not this")
    get_logger("x").warning("this")
    assert not (home.logs / "one.log").exists()
    assert "this" in (home.logs / "two.log").read_text()
    assert "not this" not in (home.logs / "two.log").read_text()


def test_a_daemon_writes_to_stderr(
    home: SageHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The supervisor has made stderr the daemon's log file; a second writer would fight over rotation."""
    monkeypatch.setenv("SAGE_DAEMON", "gateway")
    configure_logging("gateway", home=home)
    get_logger("x").info("up")
    assert "up" in capsys.readouterr().err
    assert not (home.logs / "gateway.log").exists()


def test_files_are_rotated_by_size(home: SageHome) -> None:
    configure_logging("cli", home=home, max_bytes=2000)
    for number in range(200):
        get_logger("x").info("line %d", number)
    names = sorted(file.name for file in home.logs.iterdir())
    assert names == ["cli.log", "cli.log.1", "cli.log.2", "cli.log.3"]
    assert all(file.stat().st_size <= 2000 for file in home.logs.iterdir())
    assert "line 199" in (home.logs / "cli.log").read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_a_full_disk_costs_lines_and_nothing_else(home: SageHome, capsys: pytest.CaptureFixture[str]) -> None:
    (home.logs / "cli.log").symlink_to("/dev/full")
    configure_logging("cli", home=home)
    for _ in range(3):
        get_logger("x").info("lost")
    told = capsys.readouterr().err
    assert told.count("log lines are being dropped") == 1
    assert "No space left" in told
    configure_logging("next", home=home)


def test_an_unwritable_directory_costs_lines_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("cli", home=SageHome(tmp_path / "none"))
    get_logger("x").info("lost")
    get_logger("x").info("lost")
    assert capsys.readouterr().err.count("being dropped") == 1


def test_a_line_that_cannot_be_formatted_is_said_and_survived(
    home: SageHome, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger().handlers.clear()  # pytest's own raise what a formatter raises
    configure_logging("cli", home=home)
    get_logger("x").info("%d", "no number")
    get_logger("x").info("next")
    assert "could not be formatted" in capsys.readouterr().err
    assert "next" in (home.logs / "cli.log").read_text()


def test_the_tail_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {n} key=sk-secret99\n" for n in range(100)))
    assert tail(path, 2) == ["line 98 key=sk-***", "line 99 key=sk-***"]
    assert len(tail(path, 1000)) == 100
    assert tail(path, 0) == []
    assert tail(tmp_path / "none", 5) == []
    assert tail(path, 1000, max_bytes=100)[0].startswith("line 9"), "a cut line is left out"
    assert tail(path, 5, since=path.stat().st_size) == []
    assert tail(path, 1, since=10**9) == ["line 99 key=sk-***"], "the file was rotated in between"


def test_the_tail_of_a_file_with_strange_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"ok\n\xff\xfe broken\nno newline at the end")
    assert tail(path, 2) == ["\ufffd\ufffd broken", "no newline at the end"]


def test_reserved_names_are_not_fields() -> None:
    assert {"exc_info", "extra"} <= logs._RESERVED
