"""The command tree: help pages from the manifest, commands that load, suggestions, exit codes, errors in one shape."""

import importlib
import json
from typing import Any

import pytest

from sage.cli import exit_codes
from sage.cli.lazy import LazyGroup, build
from sage.cli.manifest import ROOT, Entry, walk

COMMANDS = dict(walk())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_of_the_manifest_loads_and_has_a_help_page(path: str, cli: Any) -> None:
    """X1: the manifest promises nothing that is not there."""
    entry: Entry = COMMANDS[path]
    if entry.target:
        module, _, attribute = entry.target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))
    shown = cli(*path.split()[1:], "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: {path}")
    assert shown.err == ""


def test_the_root_help_lists_every_command_with_its_line(cli: Any) -> None:
    page = cli("--help").out
    for entry in ROOT:
        assert f"\n  {entry.name} " in page
        assert entry.help.split(":")[0][:40] in page
    assert "--install-completion" in page


def test_only_the_root_offers_completion(cli: Any) -> None:
    assert "--install-completion" not in cli("llm", "--help").out
    assert "--install-completion" not in cli("run", "--help").out


@pytest.mark.parametrize("words", [(), ("llm",), ("config",)])
def test_a_bare_group_prints_its_help(words: tuple[str, ...], cli: Any) -> None:
    shown = cli(*words)
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: {' '.join(['sage', *words])}")
    assert "Commands:" in shown.out


@pytest.mark.spec("X1")
@pytest.mark.parametrize("words", [["--version"], ["-V"], ["--version", "llm"], ["--debug", "--version"]])
def test_version(words: list[str], cli: Any) -> None:
    from sage.common import __version__

    assert cli(*words).out == f"sage {__version__}\n"


@pytest.mark.spec("X1")
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("rnu x.py", "sage run"),
        ("serve", "sage llm serve"),
        ("stauts", "sage llm status"),
        ("chekc-env", "sage check-env"),
        ("llm sttaus", "sage llm status"),
        ("llm metrics", "sage monitor metrics"),
        ("monitor log", "sage monitor logs"),
        ("config shwo", "sage config show"),
        ("llm RESTART", "sage llm restart"),
    ],
)
def test_did_you_mean_at_every_level(typed: str, meant: str, cli: Any) -> None:
    shown = cli(*typed.split())
    assert shown.code == exit_codes.USAGE
    assert f"Did you mean:  {meant}\n" in shown.err
    assert shown.out == ""


def test_a_command_like_nothing_names_what_there_is(cli: Any) -> None:
    shown = cli("qqqq")
    assert shown.code == exit_codes.USAGE
    assert "check-env, init, run" in shown.err
    assert "sage --help" in shown.err


@pytest.mark.spec("X12")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "--tempalte", "x"), "Did you mean --template?"),
        (("llm", "logs", "--tail", "many"), "'many' is not a valid"),
        (("llm", "serve", "--port", "99999"), "65535"),
        (("run", "local", "--parallelism", "0", "x.py"), "x>=1"),
        (("llm", "status", "extra"), "extra"),
        (("run",), "FILE"),
        (("llm", "logs", "--tail"), "next: sage llm logs --help"),
        (("init", "--template"), "next: sage init --help"),
        (("monitor", "--interval", "nan"), "nan is no number"),
        (("monitor", "metrics", "--live", "--interval", "inf"), "0.2<=x<=3600"),
        (("chat", "--temperature", "nan", "hi"), "nan is no number"),
        (("bench", "llm", "--concurrency", "1,x"), "--concurrency 1,x is wrong"),
        (("bench", "llm", "--prompt-tokens", "9-3"), "--prompt-tokens 9-3 is wrong"),
        (("bench", "llm", "--rate", "0"), "0.001<=x<=100000"),
    ],
)
def test_wrong_usage_says_what_and_where_to_read_on(words: tuple[str, ...], said: str, cli: Any) -> None:
    shown = cli(*words)
    assert shown.code == exit_codes.USAGE
    assert said in shown.err
    assert "next:" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.spec("X11")
def test_the_exit_codes_are_documented(cli: Any) -> None:
    shown = cli("help", "exit-codes")
    assert [int(line.split()[0]) for line in shown.out.splitlines()] == [0, 1, 2, 3, 130]
    assert set(json.loads(cli("help", "exit-codes", "--json").out)) == {"0", "1", "2", "3", "130"}


def test_help_finds_the_page_of_a_command(cli: Any) -> None:
    assert cli("help", "llm", "serve").out == cli("llm", "serve", "--help").out
    assert cli("help").out == cli("--help").out
    assert cli("help", "llm", "srve").code == exit_codes.USAGE


def test_a_group_with_a_function_of_its_own_keeps_its_commands() -> None:
    monitor = build(COMMANDS["sage monitor"])
    assert isinstance(monitor, LazyGroup)
    assert monitor.invoke_without_command
    assert [entry.name for entry in monitor.entries] == ["logs", "metrics"]
