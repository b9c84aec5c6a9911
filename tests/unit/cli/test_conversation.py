"""A conversation: turns are kept, answers stream, Ctrl-C cuts one short, an error forgets the turn."""

from collections.abc import Iterator
from typing import Any

import pytest

from sage.cli.conversation import Conversation
from sage.common.errors import UpstreamError


class Model:
    """Answers with the pieces it was given; an exception among them is raised in its place."""

    def __init__(self, *answers: list[str | BaseException]) -> None:
        self._answers = iter(answers)
        self.asked: list[tuple[list[dict[str, str]], dict[str, Any]]] = []
        self.closed_streams = 0

    def stream_chat(self, messages: list[dict[str, str]], **options: Any) -> Iterator[str]:
        self.asked.append((messages, options))
        try:
            for piece in next(self._answers):
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.closed_streams += 1

    def close(self) -> None:
        self.asked.clear()


def talk(model: Model, **options: Any) -> tuple[Conversation, list[str]]:
    written: list[str] = []
    client: Any = model
    return Conversation(client, write=written.append, **options), written


def test_answers_stream_and_the_turns_are_sent_again() -> None:
    model = Model(["Hel", "lo"], ["Bye"])
    conversation, written = talk(model, system="Be brief.", options={"temperature": 0.0})
    assert conversation.answer("Hi")
    assert written == ["Hel", "lo", "\n"]
    assert conversation.answer("And now?")
    assert model.asked[1] == (
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "And now?"},
        ],
        {"temperature": 0.0},
    )


def test_ctrl_c_cuts_the_answer_short_and_closes_the_stream() -> None:
    """The part that came stays in the conversation; closing the stream is what stops the engine's work."""
    model = Model(["One", KeyboardInterrupt(), "Two"], ["Next"])
    conversation, written = talk(model)
    assert not conversation.answer("Count")
    assert model.closed_streams == 1
    assert written == ["One", "\n"]
    assert conversation.turns[-1] == {"role": "assistant", "content": "One"}
    assert conversation.answer("Go on")


def test_an_error_forgets_the_turn() -> None:
    conversation, written = talk(Model(["a", UpstreamError("The engine died")], ["fine"]))
    with pytest.raises(UpstreamError):
        conversation.answer("Hi")
    assert conversation.turns == []
    assert written == ["a", "\n"]
    assert conversation.answer("Again")


def test_a_new_conversation_keeps_the_system_message() -> None:
    model = Model(["a"], ["b"])
    conversation, _ = talk(model, system="S")
    conversation.answer("1")
    conversation.forget()
    conversation.answer("2")
    assert [turn["content"] for turn in model.asked[1][0]] == ["S", "2"]
