"""HTTP bodies to protocol requests: every body becomes requests or a refusal that names its field (SPEC E8, R3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sagellm_core.config import LLMEngineConfig
from sagellm_core.decoding.params import resolve_sampling
from sagellm_core.errors import EngineError
from sagellm_core.models.config import GenerationDefaults
from sagellm_core.server.bodies import ChatBody, CompletionBody
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


def test_choices_get_seeds_of_their_own() -> None:
    requests = ChatBody.model_validate({"messages": HELLO, "n": 3, "seed": 5}).requests()
    assert [sampling(request).seed for request in requests] == [5, 6, 7]
    both = CompletionBody.model_validate({"prompt": ["a", "b"], "n": 2, "seed": 5}).requests()
    assert [(request.prompt, sampling(request).seed) for request in both] == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]


def test_the_newer_name_of_the_limit_wins() -> None:
    body = ChatBody.model_validate({"messages": HELLO, "max_tokens": 5, "max_completion_tokens": 9})
    assert body.requests()[0].max_tokens == 9


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 1.0}}, "logit_bias"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(extra: dict[str, Any], param: str) -> None:
    with pytest.raises(EngineError) as caught:
        ChatBody.model_validate({"messages": HELLO, **extra}).requests()
    assert caught.value.param == param


def test_what_changes_nothing_is_taken() -> None:
    harmless = {"tools": [], "response_format": {"type": "text"}, "logit_bias": {}, "user": "me", "store": True}
    assert len(ChatBody.model_validate({"messages": HELLO, **harmless}).requests()) == 1


def test_too_many_choices_are_refused() -> None:
    with pytest.raises(EngineError, match="at most 128"):
        CompletionBody.model_validate({"prompt": ["a"] * 100, "n": 2}).requests()
