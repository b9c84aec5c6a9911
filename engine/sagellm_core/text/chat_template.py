"""Messages to one prompt, through the model's own template in a Jinja sandbox, or a plain one where it has none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sagellm_core.errors import EngineError, ModelLoadError, invalid
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.messages import Message

FALLBACK = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


FALLBACK_STOP = "\nUser:"


class ChatTemplate:
    """Renders conversations for one model.

    Without a template of the model's own, `is_fallback` is true and `FALLBACK_STOP` marks where an answer ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.is_fallback = tokenizer.chat_template is None
        self._variables = dict(tokenizer.special_tokens)
        try:
            self._template = _environment().from_string(tokenizer.chat_template or FALLBACK)
        except TemplateError as error:
            raise ModelLoadError("The model's chat template is not valid", cause=str(error)) from error

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None) -> str:
        """The prompt, ending where the assistant's answer begins.

        Raises EngineError (invalid_argument) when the template refuses these messages.
        """
        if not messages:
            raise invalid("messages is empty", "messages")
        known = {"tools": None, **self._variables, **(variables or {})}
        known |= {"messages": [_plain(message) for message in messages], "add_generation_prompt": True}
        try:
            return self._template.render(known)
        except EngineError:
            raise
        except Exception as error:  # a template is the model's code: whatever it raises is about these messages
            raise invalid(f"the model's chat template refuses these messages: {error}", "messages") from error


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now(UTC).astimezone().strftime(pattern)
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> None:
    raise invalid(f"the model's chat template refuses these messages: {message}", "messages")


def _plain(message: Message) -> dict[str, Any]:
    """A turn with its content as one string; only text parts are understood."""
    turn = message.model_dump(exclude_none=True)
    content = message.content
    if isinstance(content, list):
        kinds = {str(part.get("type")) for part in content} - {"text"}
        if kinds:
            raise invalid(f"this engine reads text only, not {', '.join(sorted(kinds))}", "messages")
        turn["content"] = "".join(str(part.get("text", "")) for part in content)
    else:
        turn["content"] = content or ""
    return turn
