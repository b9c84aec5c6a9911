"""What the chat route accepts: messages, tools, a format for the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator

from sagellm_core.errors import EngineError, invalid, not_implemented
from sagellm_core.server.bodies import Body
from sagellm_core.server.constraints import calls_grammar, response_grammar
from sagellm_core.text.tools import ToolFormat, ToolParser
from sagellm_protocol.lists import FirstFault
from sagellm_protocol.messages import Message, Request

_MOST_MESSAGES = 8192
_MOST_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(slots=True, frozen=True)
class ToolUse:
    """The tools that an answer may call, or must. `single`: one call at most."""

    tools: Sequence[dict[str, Any]]
    required: bool
    single: bool

    @property
    def names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.tools]

    def parser(self, form: ToolFormat) -> ToolParser:
        """A parser for one answer of a model that writes its calls so."""
        return ToolParser(ToolFormat.JSON if self.required else form, self.names, single=self.single)


def _checked_tools(value: object) -> object:
    """OpenAI's function tools, or ValueError; one message, whatever is wrong with how many of them."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MOST_TOOLS:
        raise ValueError(f"must be a list of up to {_MOST_TOOLS} tools")
    for index, tool in enumerate(value):
        fault = _fault(tool)
        if fault:
            raise ValueError(f"[{index}]: {fault}")
    return value


def _fault(tool: object) -> str:
    """What is wrong with a tool; empty for one that is right. Kinds other than functions are looked at later."""
    if not isinstance(tool, dict):
        return "must be an object"
    if tool.get("type", "function") != "function":
        return ""
    function = tool.get("function")
    if not isinstance(function, dict):
        return "function must be an object with a name"
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "function.name must be 1 to 64 letters, digits, underscores or dashes"
    if not isinstance(function.get("parameters", {}), dict | None):
        return "function.parameters must be a JSON schema"
    return ""


Tools = Annotated[list[dict[str, Any]] | None, PlainValidator(_checked_tools)]


class ChatBody(Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], FirstFault()] = Field(min_length=1, max_length=_MOST_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Tools = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    response_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        if self.max_tokens == 0:
            raise ValueError("max_tokens must be at least 1")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    def tool_use(self) -> ToolUse | None:
        """Which tools the answer may or must call; None for none. Raises EngineError for a choice that cannot be."""
        tools, choice = self.tools or [], self.tool_choice
        for tool in tools:
            if tool.get("type", "function") != "function":
                raise not_implemented("this engine calls function tools, no others", "tools")
        if not tools:
            if choice not in (None, "none", "auto"):
                raise invalid("tool_choice needs tools", "tool_choice")
            return None
        if choice == "none":
            return None
        required = choice not in (None, "auto")
        if isinstance(choice, dict):
            required, tools = _chosen(choice, tools)
        elif choice not in (None, "auto", "required"):
            raise _unknown_choice()
        return ToolUse(tools, required, single=self.parallel_tool_calls is False or _names_one(choice))

    def requests(self) -> list[Request]:
        """The request. Raises EngineError, or ValidationError of the sampling parameters."""
        self._refuse_unknown()
        if self.functions or self.function_call:
            name = "functions" if self.functions else "function_call"
            raise not_implemented(f"{name} is out of use: say tools and tool_choice", name)
        if self.modalities not in (None, [], ["text"]):
            raise not_implemented("this engine answers in text", "modalities")
        use = self.tool_use()
        more: dict[str, Any] = {"logprobs": (self.top_logprobs or 0) if self.logprobs else None}
        more["grammar"] = response_grammar(self.response_format)
        if use is not None:
            if more["grammar"] is not None:
                raise not_implemented("an answer that calls tools has no other format", "response_format")
            if use.required:
                more["grammar"] = calls_grammar([tool["function"] for tool in use.tools], single=use.single)
            elif self.skip_special_tokens is None:
                more["skip_special_tokens"] = False  # the marks around calls may be special tokens
        params = self.sampling(**more)
        metadata = {"chat_template_kwargs": self.chat_template_kwargs} if self.chat_template_kwargs else {}
        tools = list(use.tools) if use is not None else []
        return [self._request(0, params, messages=self.messages, metadata=metadata, tools=tools)]


def _names_one(choice: object) -> bool:
    return isinstance(choice, dict) and choice.get("type") == "function"


def _chosen(choice: dict[str, Any], tools: Sequence[dict[str, Any]]) -> tuple[bool, list[dict[str, Any]]]:
    """Whether a call must come, and which tools are left, for tool_choice as an object: one function, or several."""
    kind, allowed = choice.get("type"), choice.get("allowed_tools")
    wanted: Any
    if kind == "function":
        wanted, required = [choice], True
    elif kind == "allowed_tools" and isinstance(allowed, dict):
        wanted, required = allowed.get("tools") or [None], allowed.get("mode") == "required"
    else:
        raise _unknown_choice()
    there = {tool["function"]["name"]: tool for tool in tools}
    left = []
    for each in wanted if isinstance(wanted, list) else [None]:
        function = each.get("function") if isinstance(each, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in there:
            raise invalid(f"tool_choice names {str(name)[:64]!r}, which is not in tools", "tool_choice")
        left.append(there[name])
    return required, left


def _unknown_choice() -> EngineError:
    return invalid("tool_choice is none, auto, required, a function, or allowed_tools", "tool_choice")
