"""OpenAI's own client on a real engine: every field does what the API says (SPEC E3, E8, G2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.helpers.engine_process import Server, serving

pytestmark = [pytest.mark.spec("E3", "E8", "G2"), pytest.mark.slow]
HELLO: Any = [{"role": "user", "content": "What is SAGE?"}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS: Any = [
    {"type": "function", "function": {"name": "greet", "description": "Greet a person.", "parameters": PERSON}},
    {"type": "function", "function": {"name": "time", "parameters": NOTHING}},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def is_person(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"name", "age"} and len(value["name"]) <= 8 and 0 <= value["age"] <= 99


# -- several answers ---------------------------------------------------------------------------------------------------


def test_n_answers_are_the_same_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "prompt": ["SAGE is", "A port"], "n": 2, "max_tokens": 6, "temperature": 1, "seed": 4}
    whole = client.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    texts = {choice.index: choice.text for choice in whole.choices}
    assert texts[0] != texts[1]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    streamed = dict.fromkeys(texts, "")
    reasons = []
    for chunk in client.completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
        reasons += [chunk.choices[0].index] if chunk.choices[0].finish_reason else []
    assert streamed == texts
    assert sorted(reasons) == [0, 1, 2, 3]


def test_best_of_gives_the_likeliest(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "prompt": "SAGE is", "max_tokens": 6, "temperature": 1, "seed": 1, "logprobs": 0}

    def means(answer: Any) -> list[float]:
        return [sum(choice.logprobs.token_logprobs) / 6 for choice in answer.choices]

    every = means(client.completions.create(**asked, n=4))
    best = means(client.completions.create(**asked, n=2, best_of=4))
    assert best == pytest.approx(sorted(every)[:-3:-1], abs=1e-4)
    with pytest.raises(openai.BadRequestError, match="cannot be streamed"):
        client.completions.create(**asked, n=2, best_of=4, stream=True)


@pytest.mark.parametrize("extra", [{"num_beams": 3, "n": 2}, {"strategy": "contrastive"}, {"n_speculative_tokens": 4}])
def test_other_strategies_are_fields_beside_openais(extra: dict[str, Any], client: openai.OpenAI) -> None:
    answer = client.completions.create(model="m", prompt="SAGE is", max_tokens=8, extra_body=extra)
    assert len(answer.choices) == extra.get("n", 1)
    assert all(choice.text for choice in answer.choices)


# -- the prompt and its log-probabilities ------------------------------------------------------------------------------


def test_an_echo_scores_its_prompt(client: openai.OpenAI) -> None:
    """What evaluation harnesses do: the log-probability of each token of a prompt, and no answer."""
    prompt = "SAGE is a stack"
    scored = client.completions.create(model="m", prompt=prompt, max_tokens=0, echo=True, logprobs=1)
    choice = scored.choices[0]
    assert choice.text == prompt
    assert choice.logprobs is not None
    tokens: list[str] = choice.logprobs.tokens or []
    values: list[Any] = list(choice.logprobs.token_logprobs or [])
    assert "".join(tokens) == prompt
    assert choice.logprobs.text_offset == [prompt.index(token) for token in tokens]
    assert values[0] is None
    assert all(value < 0 for value in values[1:])
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0


def test_an_echo_stands_before_the_answer_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "max_tokens": 4, "echo": True, "logprobs": 0}
    plain = client.completions.create(model="m", prompt="SAGE is", max_tokens=4).choices[0].text
    whole = client.completions.create(**asked, prompt="SAGE is").choices[0]
    chunks = [chunk.choices[0] for chunk in client.completions.create(**asked, prompt="SAGE is", stream=True)]
    assert whole.text == "SAGE is" + plain == "".join(chunk.text for chunk in chunks)
    assert whole.logprobs is not None
    streamed = [value for chunk in chunks if chunk.logprobs for value in chunk.logprobs.token_logprobs or []]
    assert streamed == whole.logprobs.token_logprobs
    offsets = [at for chunk in chunks if chunk.logprobs for at in chunk.logprobs.text_offset or []]
    assert offsets == whole.logprobs.text_offset


def test_a_bias_decides(client: openai.OpenAI, server: Server) -> None:
    (token,) = server.post("/tokenize", prompt="um").json()["tokens"]
    answer = client.completions.create(model="m", prompt="SAGE is", max_tokens=3, logit_bias={str(token): 100})
    assert answer.choices[0].text == "umumum"


# -- formats -----------------------------------------------------------------------------------------------------------


def test_an_answer_keeps_to_its_schema_drawn_or_greedy(client: openai.OpenAI) -> None:
    described: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    for temperature in (0.0, 1.5):
        answer = client.chat.completions.create(
            model="m", messages=HELLO, response_format=described, max_tokens=300, temperature=temperature, seed=1
        )
        assert answer.choices[0].finish_reason == "stop"
        assert is_person(answer.choices[0].message.content or "")


def test_a_pydantic_class_is_a_format(client: openai.OpenAI) -> None:
    from pydantic import BaseModel, Field

    class Port(BaseModel):
        number: int = Field(ge=1, le=9)

    parsed = client.chat.completions.parse(model="m", messages=HELLO, response_format=Port, max_tokens=200)
    assert parsed.choices[0].message.parsed is not None
    assert 1 <= parsed.choices[0].message.parsed.number <= 9


@pytest.mark.parametrize(
    ("extra", "allowed"),
    [
        ({"guided_choice": ["yes, please", "no (thanks)"]}, {"yes, please", "no (thanks)"}),
        ({"guided_regex": "[ab]c"}, {"ac", "bc"}),
        ({"guided_grammar": 'root ::= "left" | "right"'}, {"left", "right"}),
        ({"guided_json": {"enum": ["x", 7]}}, {'"x"', "7"}),
    ],
)
def test_other_formats(extra: dict[str, Any], allowed: set[str], client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=HELLO, extra_body=extra, max_tokens=60)
    assert answer.choices[0].message.content in allowed


def test_a_schema_that_is_none_is_refused(client: openai.OpenAI) -> None:
    described: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(model="m", messages=HELLO, response_format=described)


# -- tools -------------------------------------------------------------------------------------------------------------


def test_a_tool_that_must_be_called_is_called_with_what_it_takes(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "greet"}}
    asked: Any = {"model": "m", "messages": HELLO, "tools": TOOLS, "tool_choice": named, "max_tokens": 400}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "greet"
    assert is_person(call.function.arguments)
    deltas = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    parts = [part for delta in deltas for part in delta.delta.tool_calls or []]
    assert parts[0].function is not None
    assert (parts[0].function.name, bool(parts[0].id)) == ("greet", True)
    joined = "".join(part.function.arguments or "" for part in parts if part.function)
    assert joined == call.function.arguments
    assert deltas[-1].finish_reason == "tool_calls"


def test_some_tool_must_be_called_and_only_one_where_one_is_wanted(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        model="m", messages=HELLO, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=400
    ).choices[0]
    assert [call.type for call in choice.message.tool_calls or []] == ["function"]


def test_the_result_of_a_call_goes_on_with_the_conversation(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "call_1", "content": "12:00"})
    for choice in ("auto", "none"):
        asked: Any = {"tool_choice": choice, "messages": turns, "tools": TOOLS}
        answer = client.chat.completions.create(model="m", max_tokens=4, **asked)
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].message.content


# -- vectors and tokens ------------------------------------------------------------------------------------------------


def test_vectors_have_length_one_whatever_their_form(client: openai.OpenAI) -> None:
    texts = ["What is SAGE?", "A port"]
    short = client.embeddings.create(model="m", input=texts)
    plain = client.embeddings.create(model="m", input=texts, encoding_format="float")
    for one, other in zip(short.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(value * value for value in one.embedding) == pytest.approx(1.0, abs=1e-4)
    assert plain.usage.prompt_tokens > 2
    alone = client.embeddings.create(model="m", input=texts[1], encoding_format="float").data[0].embedding
    assert alone == pytest.approx(plain.data[1].embedding, abs=1e-4), "what else is asked changes nothing"
    with pytest.raises(openai.BadRequestError, match="have 192 numbers"):
        client.embeddings.create(model="m", input="a", dimensions=7)


def test_tokens_are_those_that_the_model_reads(client: openai.OpenAI, server: Server) -> None:
    found = server.post("/tokenize", prompt="SAGE is", return_token_strs=True).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert server.post("/detokenize", tokens=found["tokens"]).json() == {"prompt": "SAGE is"}
    chat = server.post("/tokenize", messages=HELLO).json()["count"]
    usage = client.chat.completions.create(model="m", messages=HELLO, max_tokens=1).usage
    assert usage is not None
    assert usage.prompt_tokens == chat
    assert server.post("/detokenize", tokens=[10**9]).json()["error"]["param"] == "tokens"


def test_a_prefix_that_is_cached_is_reported(client: openai.OpenAI) -> None:
    asked: Any = {"model": "m", "prompt": "The prefix of this prompt is long enough for a block. " * 4, "max_tokens": 2}
    client.completions.create(**asked)
    usage = client.completions.create(**asked).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage == usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


# -- rest --------------------------------------------------------------------------------------------------------------


def test_an_engine_that_sleeps_says_so_and_answers_as_before_when_woken(client: openai.OpenAI, server: Server) -> None:
    asked: Any = {"model": "m", "prompt": "SAGE is", "max_tokens": 8}
    before = client.completions.create(**asked).choices[0].text
    assert server.post("/sleep").json() == {"is_sleeping": True}
    assert server.http.get("/health").json()["status"] == "asleep"
    assert server.http.get("/health").status_code == 200, "nothing is wrong with it"
    with pytest.raises(openai.InternalServerError, match="asleep: wake it with POST /wake_up"):
        client.completions.create(**asked)
    assert server.post("/wake_up").json() == {"is_sleeping": False}
    assert client.completions.create(**asked).choices[0].text == before
