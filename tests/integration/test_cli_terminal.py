"""What changes on a terminal: rich help pages, colour, the dashboard; and what NO_COLOR takes away again."""

import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import pexpect
import pytest

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))
Terminal: TypeAlias = "pexpect.spawn[str]"


@pytest.fixture
def typed(sage: Any) -> Callable[..., Terminal]:
    """A function that types ``sage …`` on a terminal of 100 columns."""

    def spawn(*words: str, **env: str) -> Terminal:
        kept = {k: v for k, v in sage.env.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"} | env
        return pexpect.spawn(
            SAGE, list(words), env=kept, cwd=str(sage.cwd), encoding="utf-8", timeout=30, dimensions=(30, 100)
        )

    return spawn


def printed(child: Terminal) -> str:
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before)


@pytest.mark.spec("X1", "X11")
def test_help_is_rich_on_a_terminal_and_plain_with_no_color(typed: Callable[..., Terminal]) -> None:
    rich = printed(typed("llm", "--help"))
    assert "╭─" in rich
    assert "Commands" in rich
    assert "\x1b[" in rich
    plain = printed(typed("llm", "--help", NO_COLOR="1"))
    assert "╭" not in plain
    assert "\x1b" not in plain
    for page in (rich, plain):
        assert all(name in page for name in ("serve", "stop", "restart", "status", "logs"))


@pytest.mark.spec("X11")
def test_errors_are_coloured_on_a_terminal_only(typed: Callable[..., Terminal]) -> None:
    child = typed("stauts")
    assert "\x1b[1;31merror:\x1b[0m" in printed(child)
    assert child.exitstatus == 2
    assert "\x1b" not in printed(typed("stauts", NO_COLOR="1"))


@pytest.mark.spec("X8", "T1")
def test_the_dashboard_opens_and_leaves_with_q(typed: Callable[..., Terminal]) -> None:
    child = typed("monitor")
    child.expect("sage llm serve")
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.spec("X8")
def test_without_a_terminal_the_dashboard_is_text(sage: Any) -> None:
    done = sage("monitor")
    assert done.stdout.startswith(f"SAGE  {sage.home}")
    assert "\x1b" not in done.stdout
