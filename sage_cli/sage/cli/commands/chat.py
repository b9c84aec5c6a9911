"""``sage chat``: one question, or a conversation; answers stream to stdout as they are written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sage.cli import exit_codes
from sage.cli.numbers import real
from sage.cli.output import say, style
from sage.common.errors import UsageError

if TYPE_CHECKING:
    from sage.cli.conversation import Conversation


def chat(
    question: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUESTION]...",
            help="Ask this and leave; a lone - stands for the text on stdin. Without it: a conversation.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model.", show_default="served")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="The system message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The longest answer, in tokens.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.0, max=2.0, callback=real, metavar="T", help="0 always says the likeliest."),
    ] = None,
) -> None:
    """Talk to the model, or ask it one question."""
    from sage.cli.conversation import Conversation

    conversation = Conversation.open(model=model, system=system, max_tokens=max_tokens, temperature=temperature)
    with conversation:
        if question or not sys.stdin.isatty():
            code = _ask_once(conversation, _question(question or ["-"]))
        else:
            from sage.cli.talk import talk

            code = talk(conversation)
    raise typer.Exit(code)


def _question(words: list[str]) -> str:
    text = " ".join(sys.stdin.read().strip() if word == "-" else word for word in words).strip()
    if not text:
        raise UsageError("There is no question", hint='sage chat "What is SAGE?"')
    return text


def _ask_once(conversation: Conversation, text: str) -> int:
    if conversation.answer(text):
        return exit_codes.OK
    say(style("Cancelled.", "dim", stream=sys.stderr))
    return exit_codes.INTERRUPTED
