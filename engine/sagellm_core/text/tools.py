"""Tool calls in generated text, found while it streams: the forms of Hermes and Qwen, Mistral, and Llama 3.

Hermes, Qwen  `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number, text before and between
Mistral       `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, or `[TOOL_CALLS]name[ARGS]{…}` again and again
Llama 3       the whole answer is `{"name": …, "parameters": {…}}`, several with `;` between, `<|python_tag|>` before
json          an array of calls and nothing else: what a grammar makes of an answer that must call
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from sagellm_core.text.tool_json import CallScanner, ValueScanner

__all__ = ["CallArguments", "CallStart", "Piece", "Text", "ToolFormat", "ToolParser", "detect_format"]

_SPACE = frozenset(" \t\r\n")
_LETTERS = string.ascii_letters + string.digits
_LONGEST_HELD_SPACE = 64


class ToolFormat(StrEnum):
    """How a model writes its calls."""

    HERMES = "hermes"
    MISTRAL = "mistral"
    LLAMA3 = "llama3"
    JSON = "json"


def detect_format(template: str | None) -> ToolFormat:
    """The form that a chat template teaches its model; Hermes where it says nothing of tools."""
    source = template or ""
    if "[TOOL_CALLS]" in source:
        return ToolFormat.MISTRAL
    if "<tool_call>" not in source and ("<|python_tag|>" in source or '"parameters":' in source):
        return ToolFormat.LLAMA3
    return ToolFormat.HERMES


@dataclass(slots=True, frozen=True)
class Text:
    """Ordinary text."""

    text: str


@dataclass(slots=True, frozen=True)
class CallStart:
    """A call begins; its name is known."""

    index: int
    id: str
    name: str


@dataclass(slots=True, frozen=True)
class CallArguments:
    """The next part of a call's arguments: JSON text."""

    index: int
    text: str


Piece = Text | CallStart | CallArguments


class ToolParser:
    """Splits one answer into text and calls.

    `names` are the functions there are: where nothing else marks a call (Llama 3), an object that names none of them
    is text. With `single`, calls after the first are left out.
    """

    def __init__(self, form: ToolFormat, names: Sequence[str], *, single: bool = False) -> None:
        self._form = form
        self._names = frozenset(names)
        self._single = single
        self._out: list[Piece] = []
        self._held = ""
        self._lead = ""
        self._call: CallScanner | None = None
        self._value: ValueScanner | None = None
        self._opened = False
        self._name = ""
        self._array = False
        self.calls = 0
        starts: dict[ToolFormat, Callable[[str], None]] = {ToolFormat.LLAMA3: self._first, ToolFormat.JSON: self._list}
        self._state = starts.get(form, self._in_text)
        self._tag = {ToolFormat.HERMES: "<tool_call>", ToolFormat.MISTRAL: "[TOOL_CALLS]"}.get(form, "")

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self.calls > 0

    def push(self, text: str) -> list[Piece]:
        """What the next piece of the answer makes certain."""
        for char in text:
            self._state(char)
        return self._taken()

    def finish(self) -> list[Piece]:
        """What is left when the answer is over. A call cut in the middle stays a call, with the arguments there are."""
        if self._call is not None and not self._opened:
            self._text(self._lead + self._call.raw)
        elif self._state in (self._after_tag, self._in_name):
            self._text(self._lead + self._name)
        elif not self.called or (self._held.strip() and self._state != self._between):
            self._text(self._held)
        self._held, self._call = "", None
        return self._taken()

    # -- text, and where it ends -------------------------------------------------------------------------------------

    def _in_text(self, char: str) -> None:
        """Text until the tag; what may be the beginning of the tag, and space before it, is held back."""
        held = self._held + char
        while held:
            rest = held.lstrip()
            if rest == self._tag:
                self._lead, self._held, self._state = held, "", self._after_tag
                return
            if self._tag.startswith(rest) and len(held) <= len(self._tag) + _LONGEST_HELD_SPACE:
                break
            self._text(held[0])
            held = held[1:]
        self._held = held

    def _after_tag(self, char: str) -> None:
        if char in _SPACE:
            self._lead += char
        elif char == "{":
            self._begin()
            self._in_call(char)
        elif self._form is ToolFormat.MISTRAL and char == "[":
            self._array = True
            self._lead += char
            self._state = self._between
        elif self._form is ToolFormat.MISTRAL:
            self._name = char
            self._state = self._in_name
        else:
            self._text(self._lead)
            self._state = self._in_text
            self._state(char)

    def _first(self, char: str) -> None:
        """Llama 3: the first character that is no space decides."""
        held = self._held + char
        rest = held.lstrip()
        tag = "<|python_tag|>"
        if rest == tag:
            self._held = ""
        elif char == "{" and rest == "{":
            self._lead, self._held = held[:-1], ""
            self._begin()
            self._in_call(char)
        elif tag.startswith(rest):
            self._held = held
        else:
            self._held = ""
            self._text(held)
            self._state = self._text

    def _list(self, char: str) -> None:
        """json: the array's bracket."""
        if char == "[":
            self._array = True
            self._state = self._between
        elif char not in _SPACE:
            self._text(char)
            self._state = self._text

    # -- calls -------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._call, self._opened = CallScanner(), False
        self._state = self._in_call

    def _in_call(self, char: str) -> None:
        call = self._call
        assert call is not None
        call.push(char)
        if not self._opened and call.name is not None and not self._open(call.name):
            call.broken = True
        if self._opened:
            self._arguments(call.take())
        if (call.broken or call.done) and not self._opened:
            self._call = None
            self._text(self._lead + call.raw)
            self._lead = ""
            self._state = self._in_text if self._tag else self._text
        elif call.done or call.broken:
            self._call, self._lead = None, ""
            self._state = self._between

    def _open(self, name: str) -> bool:
        """Announce a call; False where the object is no call after all."""
        if self._form is ToolFormat.LLAMA3 and name not in self._names:
            return False
        self._opened = True
        self.calls += 1
        if not self._left_out:
            self._out.append(CallStart(self.calls - 1, self._new_id(), name))
        return True

    def _between(self, char: str) -> None:
        """After a call: the next one, or the end of calls."""
        if char in _SPACE:
            return
        if self._form is ToolFormat.HERMES:
            self._held += char
            if self._held == "</tool_call>":
                self._held, self._state = "", self._in_text
            elif not "</tool_call>".startswith(self._held):
                held, self._held = self._held, ""
                self._state = self._in_text
                for each in held:
                    self._state(each)
        elif char == "{":
            self._begin()
            self._in_call(char)
        elif char == "]" or (char not in ",;" and not self._array):
            self._array = False
            self._state = self._in_text if self._tag else self._over
            if char != "]":
                self._state(char)

    def _in_name(self, char: str) -> None:
        """Mistral's newer form: a name, perhaps an id, then the arguments."""
        if char != "{":
            self._name += char
            return
        self._open(self._name.split("[")[0].strip())
        self._name = ""
        self._value = ValueScanner()
        self._state = self._in_arguments
        self._in_arguments(char)

    def _in_arguments(self, char: str) -> None:
        assert self._value is not None
        self._value.push(char)
        self._arguments(char)
        if self._value.done:
            self._value, self._state = None, self._in_text

    def _over(self, char: str) -> None:
        """Nothing more is expected."""

    # -- what comes out ----------------------------------------------------------------------------------------------

    @property
    def _left_out(self) -> bool:
        return self._single and self.calls > 1

    def _text(self, text: str) -> None:
        if text:
            self._out.append(Text(text))

    def _arguments(self, text: str) -> None:
        if text and not self._left_out:
            self._out.append(CallArguments(self.calls - 1, text))

    def _new_id(self) -> str:
        """An id as OpenAI's; Mistral's templates take only nine letters and digits."""
        if self._form is ToolFormat.MISTRAL:
            return "".join(secrets.choice(_LETTERS) for _ in range(9))
        return "call_" + secrets.token_hex(12)

    def _taken(self) -> list[Piece]:
        """What came since the last time, neighbours of a kind put together."""
        out, self._out = self._out, []
        pieces: list[Piece] = []
        for kind, group in groupby(out, key=lambda piece: (type(piece), getattr(piece, "index", -1))):
            some = list(group)
            if kind[0] is CallStart:
                pieces += some
            else:
                text = "".join(piece.text for piece in some if not isinstance(piece, CallStart))
                pieces.append(Text(text) if kind[0] is Text else CallArguments(kind[1], text))
        return pieces
