"""The interactive side of ``sage chat``: a prompt, line editing, a few commands that start with a slash."""

from __future__ import annotations

import sys

from sage.cli import exit_codes
from sage.cli.conversation import Conversation
from sage.cli.failure import report
from sage.cli.output import say, style
from sage.common.errors import SageError

_HELP = """/new    start over
/help   this list
/exit   leave (or Ctrl-D)
Ctrl-C  while the model answers: cut the answer short; at the prompt: leave"""


def talk(conversation: Conversation) -> int:
    """Ask and answer until the person leaves; the exit code (0 for /exit and Ctrl-D, 130 for Ctrl-C).

    Raises NotRunningError before the first prompt where there is nobody to talk to.
    """
    conversation.check()
    _line_editing()
    say(style("Ask away; /help lists the commands, Ctrl-D leaves.", "dim", stream=sys.stderr))
    while True:
        try:
            text = _read().strip()
        except EOFError:
            say()
            return exit_codes.OK
        except KeyboardInterrupt:
            say()
            return exit_codes.INTERRUPTED
        if text in ("/exit", "/quit"):
            return exit_codes.OK
        if text.startswith("/"):
            _command(conversation, text)
        elif text:
            _turn(conversation, text)


def _turn(conversation: Conversation, text: str) -> None:
    """One question; an error is told and the conversation goes on."""
    try:
        if not conversation.answer(text):
            say(style("(cut short)", "dim", stream=sys.stderr))
    except SageError as error:
        report(error, debug=False, command="chat")


def _command(conversation: Conversation, text: str) -> None:
    if text == "/new":
        conversation.forget()
        say("A new conversation.")
    elif text == "/help":
        say(_HELP)
    else:
        say(f"There is no command {text}.\n{_HELP}")


def _read() -> str:
    """One line from the person; the prompt never mixes with the answers where stdout is a file."""
    if sys.stdout.isatty():
        return input("> ")
    sys.stderr.write("> ")
    sys.stderr.flush()
    return input()


def _line_editing() -> None:
    """History and editing keys, where Python has readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
