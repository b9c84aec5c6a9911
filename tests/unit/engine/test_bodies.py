"""HTTP bodies to protocol requests: every body becomes requests or a refusal that names its field (SPEC E8, R3)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sagellm_core.config import LLMEngineConfig
from sagellm_core.decoding.params import resolve_sampling
from sagellm_core.errors import EngineError
from sagellm_core.models.config import GenerationDefaults
from sagellm_core.server.bodies import CompletionBody
from sagellm_core.server.chat_body import ChatBody
from sagellm_protocol.sampling import SamplingParams

pytestmark = pytest.mark.spec("E8", "R3")
HELLO = [{"role": "user", "content": "Hi"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def body_of(kind: type[CompletionBody] | type[ChatBody]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the route's own fields, each with any JSON value or a sensible one."""
    likely: st.SearchStrategy[Any] = st.sampled_from([0, 1, 0.5, True, "x", ["x"], [1, 2], HELLO, {"type": "text"}])
    return st.dictionaries(st.sampled_from(sorted(kind.model_fields)), likely | JSON, max_size=8)


@settings(max_examples=300, deadline=None)
@given(data=body_of(CompletionBody) | body_of(ChatBody) | JSON)
@pytest.mark.parametrize("kind", [CompletionBody, ChatBody])
def test_any_body_is_taken_or_refused(kind: type[CompletionBody] | type[ChatBody], data: Any) -> None:
    config, nothing = LLMEngineConfig(model_path="m"), GenerationDefaults()
    try:
        requests = kind.model_validate(data).requests()
        for request in requests:
            resolve_sampling(request.sampling_params, request.max_tokens, config, nothing)
    except (EngineError, ValidationError):
        return
    assert len({request.request_id for request in requests}) == len(requests) >= 1


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (CompletionBody, {"prompt": [1] * 300 + ["a"]}),
        (CompletionBody, {"prompt": [["a"]] * 300}),
        (CompletionBody, {"prompt": [True] * 300}),
        (CompletionBody, {"prompt": "a", "stop": [1] * 300}),
        (CompletionBody, {"prompt": "a", "stop_token_ids": ["a"] * 300}),
        (CompletionBody, {"prompt": "a", "logit_bias": {str(number): "a" for number in range(300)}}),
        (ChatBody, {"messages": [1] * 300}),
        (ChatBody, {"messages": [{"role": "user", "content": [1] * 300}]}),
        (ChatBody, {"messages": HELLO, "tools": [1] * 300}),
        (ChatBody, {"messages": HELLO * 9000}),
    ],
)
def test_a_long_list_of_faults_is_one_refusal(kind: type[CompletionBody] | type[ChatBody], data: Any) -> None:
    """A refusal costs the same however much is wrong: an error for each item of a large body costs gigabytes."""
    with pytest.raises((EngineError, ValidationError)) as caught:
        kind.model_validate(data).requests()
    assert not isinstance(caught.value, ValidationError) or caught.value.error_count() <= 2


def sampling(request: Any) -> SamplingParams:
    assert request.sampling_params is not None
    params: SamplingParams = request.sampling_params
    return params


def test_only_what_the_caller_set_is_set() -> None:
    (request,) = CompletionBody.model_validate({"prompt": "a", "temperature": 0, "top_p": None}).requests()
    assert sampling(request).model_fields_set == {"temperature"}
    assert request.max_tokens is None


def test_one_request_a_prompt_asks_for_all_its_answers() -> None:
    (request,) = ChatBody.model_validate({"messages": HELLO, "n": 3, "seed": 5}).requests()
    assert (sampling(request).n, sampling(request).seed) == (3, 5)
    both = CompletionBody.model_validate({"prompt": ["a", "b"], "n": 2, "best_of": 4}).requests()
    assert [(request.prompt, sampling(request).n, sampling(request).best_of) for request in both] == [
        ("a", 2, 4),
        ("b", 2, 4),
    ]


def test_the_newer_name_of_the_limit_wins() -> None:
    body = ChatBody.model_validate({"messages": HELLO, "max_tokens": 5, "max_completion_tokens": 9})
    assert body.requests()[0].max_tokens == 9


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"tools": [FUNCTION], "response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": []}}, "response_format"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_choice": []}, "guided_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
    ],
)
def test_what_cannot_be_is_refused_by_name(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(EngineError) as caught:
        ChatBody.model_validate({"messages": HELLO, **extra}).requests()
    assert caught.value.param == param


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": "white space"}}]},
        {"tools": [FUNCTION] * 129},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {"5": "1"}},
        {"top_logprobs": 2},
        {"stream_options": {"include_usage": True}},
        {"max_tokens": 0},
    ],
)
def test_what_is_malformed_is_one_refusal(extra: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatBody.model_validate({"messages": HELLO, **extra})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("choice", "required", "single"),
    [
        (None, False, False),
        ("auto", False, False),
        ("required", True, False),
        (NAMED, True, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}, True, False),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}, False, False),
    ],
)
def test_the_choices_of_tools(choice: Any, required: bool, single: bool) -> None:
    """A call that must come is a matter of the grammar; one that may come leaves the marks around it in the text."""
    other = {"type": "function", "function": {"name": "g"}}
    body = ChatBody.model_validate({"messages": HELLO, "tools": [FUNCTION, other], "tool_choice": choice})
    use, (request,) = body.tool_use(), body.requests()
    assert use is not None
    assert (use.required, use.single) == (required, single)
    assert use.names == (["f"] if isinstance(choice, dict) else ["f", "g"])
    assert [tool["function"]["name"] for tool in request.tools] == use.names
    assert (sampling(request).grammar is not None) == required
    assert sampling(request).skip_special_tokens == required


def test_no_tools_reach_an_answer_that_may_call_none() -> None:
    body = ChatBody.model_validate({"messages": HELLO, "tools": [FUNCTION], "tool_choice": "none"})
    assert body.tool_use() is None
    assert body.requests()[0].tools == []


def test_references_of_a_tools_schema_hold_where_it_is_moved_to() -> None:
    parameters = {"$defs": {"P": {"type": "string"}}, "properties": {"p": {"$ref": "#/$defs/P"}, "q": {"$ref": "#"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    body = ChatBody.model_validate({"messages": HELLO, "tools": [tool], "tool_choice": "required"})
    grammar = sampling(body.requests()[0]).grammar
    assert grammar is not None
    schema = json.loads(grammar.text)
    moved = schema["$defs"]["call_0"]["properties"]
    assert (moved["p"]["$ref"], moved["q"]["$ref"]) == ("#/$defs/call_0/$defs/P", "#/$defs/call_0")


@pytest.mark.parametrize(
    ("extra", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", ""),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json_object", ""),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}}},
            "json_schema",
            '{"type":"null"}',
        ),
        ({"guided_json": {"type": "null"}}, "json_schema", '{"type":"null"}'),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a.b", "c"]}, "regex", "(a\\.b)|(c)"),
        ({"guided_grammar": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
    ],
)
def test_formats_of_answers_are_grammars(extra: dict[str, Any], kind: str, text: str) -> None:
    grammar = sampling(ChatBody.model_validate({"messages": HELLO, **extra}).requests()[0]).grammar
    assert grammar is not None
    assert (grammar.kind, grammar.text) == (kind, text)


def test_scoring_a_prompt_asks_for_its_log_probabilities() -> None:
    (request,) = CompletionBody.model_validate({"prompt": "a", "echo": True, "logprobs": 1, "max_tokens": 0}).requests()
    assert (request.max_tokens, sampling(request).prompt_logprobs) == (1, 1)


def test_what_changes_nothing_is_taken() -> None:
    harmless = {"tools": [], "response_format": {"type": "text"}, "logit_bias": {}, "user": "me", "store": True}
    assert len(ChatBody.model_validate({"messages": HELLO, **harmless}).requests()) == 1


def test_too_many_choices_are_refused() -> None:
    with pytest.raises(EngineError, match="at most 128"):
        CompletionBody.model_validate({"prompt": ["a"] * 100, "n": 2}).requests()
