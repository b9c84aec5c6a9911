"""Tool calls in generated text: each family's form, however the text is cut; what is no call stays text (SPEC E3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagellm_core.server.shapes import gathered
from sagellm_core.text.tools import CallArguments, CallStart, Piece, ToolFormat, ToolParser, detect_format

pytestmark = pytest.mark.spec("E3", "G2")
NAMES = ("f", "g")
Calls = list[tuple[str, Any]]


def parse(
    form: ToolFormat, pieces: Sequence[str], *, single: bool = False
) -> tuple[str, list[tuple[str, str]], list[Piece]]:
    parser = ToolParser(form, NAMES, single=single)
    found = [piece for text in pieces for piece in parser.push(text)] + parser.finish()
    text, calls = gathered(found)
    return text, [(call["function"]["name"], call["function"]["arguments"]) for call in calls], found


CASES: list[tuple[ToolFormat, str, str, Calls]] = [
    (
        ToolFormat.HERMES,
        'Hi\n<tool_call>\n{"name": "f", "arguments": {"a": "}\\""}}\n</tool_call>',
        "Hi",
        [("f", {"a": '}"'})],
    ),
    (
        ToolFormat.HERMES,
        (
            '<tool_call>{"arguments": {"x": 1}, "name": "g"}</tool_call>\n'
            '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n'
        ),
        "",
        [("g", {"x": 1}), ("f", {})],
    ),
    (
        ToolFormat.HERMES,
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call> done',
        " done",
        [("f", {"a": 1})],
    ),
    (ToolFormat.HERMES, "a < b <tool> <tool_call> nothing", "a < b <tool> <tool_call> nothing", []),
    (ToolFormat.HERMES, '<tool_call>{"nam": "f"} x', '<tool_call>{"nam": "f"} x', []),
    (ToolFormat.HERMES, "a\n\n\nb <tool_ca", "a\n\n\nb <tool_ca", []),
    (
        ToolFormat.MISTRAL,
        '[TOOL_CALLS] [{"name": "f", "arguments": {"a": [1, {}]}}, {"name": "g", "arguments": {}}]',
        "",
        [("f", {"a": [1, {}]}), ("g", {})],
    ),
    (
        ToolFormat.MISTRAL,
        'ok[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{"b": {}}',
        "ok",
        [("f", {"a": 1}), ("g", {"b": {}})],
    ),
    (ToolFormat.MISTRAL, 'f[CALL_ID]x[ARGS]{"a": 1}', 'f[CALL_ID]x[ARGS]{"a": 1}', []),
    (ToolFormat.MISTRAL, '[TOOL_CALLS]f[CALL_ID]x[ARGS]{"a": 1}', "", [("f", {"a": 1})]),
    (ToolFormat.MISTRAL, "[TOOL_CALLS]f", "[TOOL_CALLS]f", []),
    (
        ToolFormat.LLAMA3,
        '<|python_tag|>{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
        "",
        [("f", {"a": 1}), ("g", {})],
    ),
    (ToolFormat.LLAMA3, ' {"type": "function", "name": "f", "parameters": {"a": null}}', "", [("f", {"a": None})]),
    (ToolFormat.LLAMA3, '{"answer": 42}', '{"answer": 42}', []),
    (ToolFormat.LLAMA3, '{"name": "Ada", "age": 36} is JSON', '{"name": "Ada", "age": 36} is JSON', []),
    (ToolFormat.LLAMA3, 'Call {"name": "f"}', 'Call {"name": "f"}', []),
    (
        ToolFormat.JSON,
        '[{"name": "f", "parameters": {"a": 1}},\n {"name": "g", "parameters": {}}]',
        "",
        [("f", {"a": 1}), ("g", {})],
    ),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), CASES)
@given(data=st.data())
def test_calls_are_found_wherever_the_text_is_cut(
    form: ToolFormat, text: str, content: str, calls: Calls, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found, found_calls, _ = parse(form, pieces)
    assert found == content
    assert [(name, json.loads(arguments)) for name, arguments in found_calls] == calls


@given(text=st.text(alphabet='<tool_call>/{}[]"name:arguments,\\ \n1', max_size=60), form=st.sampled_from(ToolFormat))
def test_any_text_ends_in_text_or_calls(text: str, form: ToolFormat) -> None:
    """Nothing raises, and the pieces do not depend on where the text was cut."""
    assert parse(form, [text])[:2] == parse(form, list(text))[:2]


@pytest.mark.parametrize("form", [ToolFormat.HERMES, ToolFormat.MISTRAL])
@given(text=st.text(max_size=80))
def test_text_without_a_mark_is_left_as_it_is(text: str, form: ToolFormat) -> None:
    assert parse(form, list(text))[0] == text


def test_a_call_that_is_cut_keeps_the_arguments_there_are() -> None:
    assert parse(ToolFormat.HERMES, ['<tool_call>{"name": "f", "arguments": {"a": 1'])[1] == [("f", '{"a": 1')]


def test_a_name_is_announced_before_its_arguments_and_these_come_as_they_are_written() -> None:
    pieces = parse(ToolFormat.HERMES, ['<tool_call>{"name": "f", "arguments": {"a', '": ', "1}}</tool_call>"])[2]
    assert isinstance(pieces[0], CallStart)
    assert [piece.text for piece in pieces[1:] if isinstance(piece, CallArguments)] == ['{"a', '": ', "1}"]


@pytest.mark.parametrize("form", [ToolFormat.HERMES, ToolFormat.MISTRAL])
def test_ids_are_different_and_of_a_form_that_templates_take(form: ToolFormat) -> None:
    text = {
        ToolFormat.HERMES: '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * 2,
        ToolFormat.MISTRAL: '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]',
    }[form]
    ids = [piece.id for piece in parse(form, [text])[2] if isinstance(piece, CallStart)]
    assert len(set(ids)) == 2
    assert form is ToolFormat.HERMES or all(len(each) == 9 and each.isalnum() for each in ids)


def test_only_the_first_call_where_only_one_is_wanted() -> None:
    text = '[{"name": "f", "parameters": {}}, {"name": "g", "parameters": {"a": 1}}]'
    assert parse(ToolFormat.JSON, [text], single=True)[1] == [("f", "{}")]


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (None, ToolFormat.HERMES),
        ("{% if tools %}<tool_call>{% endif %}", ToolFormat.HERMES),
        ("{{ '[TOOL_CALLS]' }}", ToolFormat.MISTRAL),
        ('<|python_tag|> and {"name": x, "parameters": y}', ToolFormat.LLAMA3),
    ],
)
def test_the_form_is_that_of_the_models_template(template: str | None, form: ToolFormat) -> None:
    assert detect_format(template) is form
