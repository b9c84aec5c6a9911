"""The protocol's messages: what they accept, what they refuse, that they survive JSON (SPEC E1)."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sagellm_core import EngineError
from sagellm_protocol import Error, ErrorCode, Message, Metrics, Request, Response, SamplingParams, StreamEvent

pytestmark = pytest.mark.spec("E1")


def test_a_request_has_a_prompt_or_messages_and_its_own_id() -> None:
    text, chat = Request(prompt="a"), Request(messages=[Message(role="user", content="a")])
    assert text.request_id != chat.request_id
    for wrong in (
        {},
        {"prompt": "a", "messages": [{"role": "user"}]},
        {"prompt": "a", "max_tokens": 0},
        {"promt": "a"},
    ):
        with pytest.raises(ValidationError):
            Request.model_validate(wrong)


def test_messages_survive_json() -> None:
    params = SamplingParams(stop=["x"], seed=3)
    request = Request(request_id="r", prompt=[1, 2], sampling_params=params, priority=2, deadline_ms=10)
    assert Request.model_validate_json(request.model_dump_json(exclude_unset=True)) == request
    response = Response(request_id="r", output_tokens=[1], metrics=Metrics(ttft_ms=1.5, itl_list=[1.0]))
    assert Response.model_validate_json(response.model_dump_json()) == response
    event = StreamEvent(event="delta", request_id="r", chunk="é", chunk_tokens=[7])
    assert StreamEvent.model_validate_json(event.model_dump_json()).content == "é"


def test_what_the_caller_set_is_told_from_defaults() -> None:
    params = SamplingParams.model_validate({"temperature": 0.0, "stop": None})
    assert params.model_fields_set == {"temperature", "stop"}
    assert params.stop == []
    assert SamplingParams.model_validate({"stop_token_ids": 5}).stop_token_ids == [5]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_errors_go_to_the_protocol_and_back(code: ErrorCode) -> None:
    error = EngineError(code, "it failed", cause="because").to_protocol()
    assert error == Error(code=code, message="it failed: because", retryable=error.retryable)
    assert EngineError.from_protocol(error).error_code is code
    assert error.retryable == (code in (ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE))
