"""Fields that say what an answer must look like, as grammars: response_format, guided_*, tool calls that must come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sagellm_core.errors import invalid, not_implemented
from sagellm_protocol.sampling import Grammar

_encode = msgspec.json.Encoder().encode
_META = re.compile(r"[\\.+*?()|\[\]{}^$#&\-~/]")


def constraint_of(
    schema: Mapping[str, Any] | str | None, regex: str | None, choice: Sequence[str] | None, grammar: str | None
) -> Grammar | None:
    """The grammar of vLLM's fields guided_json, guided_regex, guided_choice, guided_grammar: one of them, or none."""
    found: dict[str, Grammar] = {}
    if schema is not None:
        text = schema if isinstance(schema, str) else _encode(schema).decode()
        found["guided_json"] = Grammar(kind="json_schema", text=text)
    if regex is not None:
        found["guided_regex"] = Grammar(kind="regex", text=regex)
    if choice is not None:
        found["guided_choice"] = Grammar(kind="regex", text=_one_of(choice))
    if grammar is not None:
        found["guided_grammar"] = Grammar(kind="ebnf", text=grammar)
    if len(found) > 1:
        raise invalid(f"only one of {' and '.join(found)} can hold", list(found)[1])
    return next(iter(found.values()), None)


def _one_of(texts: Sequence[str]) -> str:
    if not texts or not all(texts):
        raise invalid("guided_choice must name at least one text, and no empty one", "guided_choice")
    return "|".join(f"({_META.sub(lambda found: chr(92) + found[0], text)})" for text in texts)


def response_grammar(response_format: Mapping[str, Any] | None) -> Grammar | None:
    """The grammar of OpenAI's response_format; None for plain text. Raises EngineError for what is no format."""
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Grammar(kind="json_object")
    if kind != "json_schema":
        raise not_implemented("response_format has type text, json_object or json_schema", "response_format")
    described = response_format.get("json_schema")
    if not isinstance(described, dict):
        raise invalid("response_format.json_schema must be an object with name and schema", "response_format")
    schema = described.get("schema")
    if schema is None:
        return Grammar(kind="json_object")
    if not isinstance(schema, dict | bool):
        raise invalid("response_format.json_schema.schema must be a JSON schema", "response_format")
    return Grammar(kind="json_schema", text=_encode(schema).decode())


def calls_grammar(functions: Sequence[Mapping[str, Any]], *, single: bool) -> Grammar:
    """An array of at least one call to one of the functions, as `ToolFormat.JSON` reads it."""
    definitions = {}
    calls = []
    for index, function in enumerate(functions):
        name = f"call_{index}"
        definitions[name] = _moved(function.get("parameters") or {"type": "object"}, f"#/$defs/{name}")
        properties = {"name": {"const": function["name"]}, "parameters": {"$ref": f"#/$defs/{name}"}}
        required = ["name", "parameters"]
        calls.append({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
    schema: dict[str, Any] = {"$defs": definitions, "type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if single:
        schema["maxItems"] = 1
    return Grammar(kind="json_schema", text=_encode(schema).decode())


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references into itself hold where it now stands."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    target = moved.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        moved["$ref"] = place + target[1:]
    return moved
