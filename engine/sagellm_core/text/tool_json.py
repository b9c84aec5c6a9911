"""One tool call, `{"name": …, "arguments": {…}}`, read as its characters come."""

from __future__ import annotations

import json

_SPACE = frozenset(" \t\r\n")
_ARGUMENTS = frozenset({"arguments", "parameters"})


class ValueScanner:
    """Follows one JSON value to its end. It checks no more than where the value ends: brackets and quotes."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._scalar = False
        self.done = False

    def push(self, char: str) -> bool:
        """Whether the character belongs to the value; a number ends before the character that is not its own."""
        if self._in_string:
            self._string(char)
        elif char == '"':
            self._in_string = True
        elif char in "[{":
            self._depth += 1
        elif char in "]}" and self._depth:
            self._depth -= 1
            self.done = self._depth == 0
        elif self._depth == 0:
            if char in _SPACE or char in ",]}":
                self.done = True
                return False
            self._scalar = True
        return True

    def _string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            self.done = self._depth == 0


class CallScanner:
    """Reads the object of one call. `name` is there once it has been read; `broken` means that this is no call.

    The text of the arguments can be taken as it comes. Arguments that are a JSON string, as some models write them,
    come out decoded, and all at once.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.done = False
        self.broken = False
        self.raw = ""
        self._arguments = ""
        self._key: str | None = None
        self._value: ValueScanner | None = None
        self._text = ""
        self._wants = "{"

    def push(self, char: str) -> None:
        """Take in the next character of the object, the first of which is its opening brace."""
        self.raw += char
        if self._value is not None and self._in_value(char):
            return
        if char in _SPACE:
            return
        if char not in self._wants:
            self.broken = True
        elif char == "}":
            self.done = True
        elif char == ":":
            self._value, self._text, self._wants = ValueScanner(), "", ""
        elif char == '"':
            self._key, self._value, self._text = None, ValueScanner(), char
            self._value.push(char)
        else:
            self._wants = '"}' if char == "{" else '"'

    def take(self) -> str:
        """The text of the arguments since the last time."""
        text, self._arguments = self._arguments, ""
        return text

    def _in_value(self, char: str) -> bool:
        """Follow a key or a value; False when the character stands behind it."""
        scanner = self._value
        assert scanner is not None
        if not self._text and char in _SPACE:
            return True
        own = scanner.push(char)
        if own:
            self._text += char
            if self._is_arguments and not self._text.startswith('"'):
                self._arguments += char
        if scanner.done:
            self._value = None
            self._ended()
        return own

    @property
    def _is_arguments(self) -> bool:
        return self._key in _ARGUMENTS

    def _ended(self) -> None:
        if self._key is None:
            self._key, self._wants = _decoded(self._text), ":"
            self.broken |= self._key is None
            return
        self._wants = ",}"
        if self._key == "name":
            self.name = _decoded(self._text)
            self.broken |= self.name is None
        elif self._is_arguments and self._text.startswith('"'):
            self._arguments += _decoded(self._text) or ""
        self.broken |= not self._text
        self._key = None


def _decoded(text: str) -> str | None:
    """A JSON string's value; None for what is no string."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
