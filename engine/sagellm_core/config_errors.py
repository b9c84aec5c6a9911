"""What is wrong with a configuration, in the words of who wrote it: field, value, line, and the name that was meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from sage.common.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LONGEST_VALUE = 80
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a mapping: name: value",
    "model": "a mapping: name: value",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def refusal(error: ValidationError, root: type[BaseModel], source: str, text: str = "", hint: str = "") -> ConfigError:
    """The first fault of what was read from `source` (a file's name) as the model `root`.

    `text` is the file's, to name the line; `hint` stands where no name is near.
    """
    first = error.errors(include_url=False)[0]
    path = first["loc"]
    line = _line(text, path)
    place = source if line is None else f"{source}, line {line}"
    title = f"{place}: {'.'.join(map(str, path))} is wrong" if path else f"{place} is wrong"
    if first["type"] == "extra_forbidden":
        near = _nearest(root, path)
        known = ", ".join(sorted(_section(root, path[:-1])))
        cause = f"there is no field {str(path[-1])!r} (its value: {_shown(first['input'])})"
        return ConfigError(title, cause=cause, hint=f"Did you mean {near!r}?" if near else f"There are: {known}")
    return ConfigError(title, cause=said(first), hint=hint)


def said(first: ErrorDetails) -> str:
    """Value and what it has to be, of one of `ValidationError.errors()`."""
    kind, limits = first["type"], first.get("ctx", {})
    if kind == "missing":
        return "it has to be given"
    if kind in ("value_error", "assertion_error"):
        return first["msg"].partition(", ")[2]
    if kind == "literal_error":
        wanted = "one of " + str(limits["expected"]).replace("'", "").replace(" or ", ", ")
    elif kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        wanted = f"{words} {limits[key]}"
    elif kind == "string_too_short":
        wanted = "text that is not empty"
    else:
        wanted = _KINDS.get(kind.partition("_")[0], "")
    return f"{_shown(first['input'])} is not {wanted}" if wanted else f"{_shown(first['input'])}: {first['msg']}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _section(root: type[BaseModel], path: Sequence[str | int]) -> dict[str, type[BaseModel] | None]:
    """The fields of the section at `path`, each with its model where it is a section itself."""
    model: type[BaseModel] | None = root
    for part in path:
        model = None if model is None else _fields(model).get(str(part))
    return {} if model is None else _fields(model)


def _fields(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    return {name: _model_of(field.annotation) for name, field in model.model_fields.items()}


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _nearest(root: type[BaseModel], path: Sequence[str | int]) -> str:
    """The field that was meant: of the same section, else of another one with that section's name; or nothing."""
    wrong = str(path[-1])
    near = get_close_matches(wrong, _section(root, path[:-1]), 1)
    if near:
        return near[0]
    elsewhere = {name: f"{part}.{name}" for part, model in _fields(root).items() if model for name in _fields(model)}
    return next((elsewhere[name] for name in get_close_matches(wrong, elsewhere, 1)), "")


def _line(text: str, path: Sequence[str | int]) -> int | None:
    """The line (from 1) of the value at `path` in a YAML or JSON text, or of its nearest section that is there."""
    if not text or not path:
        return None
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    line = None
    for part in path:
        found = _child(node, part)
        if found is None:
            break
        key, node = found
        line = key.start_mark.line + 1
    return line


def _child(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """The key's node and the value's, of a mapping or a list."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
