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
from sagellm_core.text.tools import detect_format
from sagellm_protocol.messages import Message

FALLBACK = (
    "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


FALLBACK_STOP = "\nUser:"

_TOOLS = """\
You can call these functions:
{tools}
To call one, answer with nothing but
<tool_call>
{{"name": <its name>, "arguments": <a JSON object>}}
</tool_call>"""


class ChatTemplate:
    """Renders conversations for one model.

    Without a template of the model's own, `is_fallback` is true and `FALLBACK_STOP` marks where an answer ends.
    `tool_format` is how the model writes tool calls. A template that knows no tools gets them as a system message, and
    what knows no `developer` gets `system` instead.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.is_fallback = tokenizer.chat_template is None
        source = tokenizer.chat_template or ""
        self.tool_format = detect_format(source)
        self._knows_tools = "tools" in source
        self._knows_developer = "developer" in source
        self._variables = dict(tokenizer.special_tokens)
        try:
            self._template = _environment().from_string(tokenizer.chat_template or FALLBACK)
        except TemplateError as error:
            raise ModelLoadError("The model's chat template is not valid", cause=str(error)) from error

    def render(
        self,
        messages: Sequence[Message],
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The prompt, ending where the assistant's answer begins. `tools` are OpenAI's descriptions of functions.

        Raises EngineError (invalid_argument) when the template refuses these messages.
        """
        if not messages:
            raise invalid("messages is empty", "messages")
        turns = [self._turn(message) for message in messages]
        if tools and not self._knows_tools:
            turns = _with_tools(turns, tools)
        known = {**self._variables, "tools": list(tools) or None, **(variables or {})}
        known |= {"messages": turns, "add_generation_prompt": True}
        try:
            return self._template.render(known)
        except EngineError:
            raise
        except Exception as error:  # a template is the model's code: whatever it raises is about these messages
            raise invalid(f"the model's chat template refuses these messages: {error}", "messages") from error

    def _turn(self, message: Message) -> dict[str, Any]:
        turn = _plain(message)
        if turn["role"] == "developer" and not self._knows_developer:
            turn["role"] = "system"
        if not self._knows_tools:
            return _told(turn)
        for call in turn.get("tool_calls") or ():
            _read_arguments(call)
        return turn


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


def _read_arguments(call: Any) -> None:
    """Give a call's arguments to the template as an object: OpenAI's clients send them as JSON text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        return
    if isinstance(arguments, dict):
        function["arguments"] = arguments


def _with_tools(turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with its tools in the system message."""
    text = _TOOLS.format(tools="\n".join(_tojson(tool.get("function", tool)) for tool in tools))
    if turns[0]["role"] == "system":
        first = {**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}
        return [first, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]


def _told(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn for a template that knows neither calls nor their results: both become text."""
    if turn["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{turn['content']}\n</tool_response>"}
    calls = turn.pop("tool_calls", None)
    for call in calls if isinstance(calls, list) else ():
        _read_arguments(call)
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            shown = _tojson({"name": function.get("name"), "arguments": function.get("arguments")})
            turn["content"] = f"{turn['content']}\n<tool_call>\n{shown}\n</tool_call>".lstrip("\n")
    return turn
