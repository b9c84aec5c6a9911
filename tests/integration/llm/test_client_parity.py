"""The synchronous and the asynchronous side of the client: the same surface, requests, answers and errors."""

import asyncio
import base64
import inspect
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from sage.common.errors import ConfigError, ModelError, SageError, UpstreamError
from sage.llm import UnifiedInferenceClient

Start = Callable[..., Awaitable[Any]]
SHARED = {"create", "create_for_model"}
TWINS = {name: f"a{name}" for name in ("chat", "generate", "embed", "stream_chat", "stream_generate", "get_status")}


def public() -> set[str]:
    return {
        name for name, value in vars(UnifiedInferenceClient).items() if name[0] != "_" and not isinstance(value, str)
    }


@pytest.mark.spec("G1")
def test_every_method_has_a_twin_with_the_same_parameters() -> None:
    twins = TWINS | {"close": "aclose"}
    assert public() == SHARED | set(twins) | set(twins.values())
    for name, twin in twins.items():
        one, other = (inspect.signature(getattr(UnifiedInferenceClient, which)) for which in (name, twin))
        assert one.parameters == other.parameters, name


async def answer(exchange: Any) -> None:
    """What an OpenAI-compatible server answers, by path and body."""
    asked = exchange.json
    if asked["model"] == "missing":
        await exchange.answer(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    elif exchange.path == "/v1/embeddings":
        packed = [
            {"index": index, "embedding": base64.b64encode(array("f", [len(text), 1.0]).tobytes()).decode()}
            for index, text in enumerate(asked["input"])
        ]
        await exchange.answer(200, {"data": packed[: None if asked["model"] != "short" else -1]})
    elif asked.get("stream"):
        await exchange.begin_stream()
        for piece in ("one ", "two"):
            await exchange.event({"choices": [{"delta": {"content": piece}, "text": piece}]})
        await exchange.event(b"[DONE]")
        await exchange.end_stream()
    else:
        await exchange.answer(200, {"choices": [{"message": {"content": "text"}, "text": "text"}]})


async def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the error that it raises, from either side."""
    try:
        value = call()
        if inspect.isawaitable(value):
            return await value
        if isinstance(value, AsyncIterator):
            return [piece async for piece in value]
        return value if isinstance(value, str | list | dict) else list(value)
    except (SageError, TypeError) as error:
        return type(error), str(error), getattr(error, "hint", ""), getattr(error, "details", {})


def run_sync(call: Callable[[], Any]) -> Any:
    return asyncio.run(outcome(call))


@pytest.mark.spec("G1")
@pytest.mark.parametrize(
    ("name", "arguments", "options", "expected"),
    [
        ("chat", ("hello",), {"temperature": 0.5, "stop": None, "idempotency_key": "k"}, "text"),
        ("chat", ([],), {}, ConfigError),
        ("chat", ("x",), {"model": "missing"}, ModelError),
        ("generate", ("hello",), {"model": "m", "seed": 1, "idempotency_key": "k"}, "text"),
        ("embed", ("word",), {}, [[4.0, 1.0]]),
        ("embed", (["a", "bb"],), {"model": "m", "idempotency_key": "k"}, [[1.0, 1.0], [2.0, 1.0]]),
        ("embed", (["x"] * 600,), {"idempotency_key": "k"}, [[1.0, 1.0]] * 600),
        ("embed", ([],), {"idempotency_key": "k"}, []),
        ("embed", (["a", "bb"],), {"model": "short"}, UpstreamError),
        ("embed", ([1],), {}, TypeError),
        ("stream_chat", ("hello",), {"max_tokens": 3, "idempotency_key": "k"}, ["one ", "two"]),
        ("stream_generate", ("hello",), {"idempotency_key": "k"}, ["one ", "two"]),
        ("stream_chat", ("x",), {"model": "missing"}, ModelError),
        ("get_status", (), {}, None),
    ],
)
async def test_both_sides_ask_and_answer_alike(
    upstream: Start, name: str, arguments: tuple[Any, ...], options: dict[str, Any], expected: Any
) -> None:
    server = await upstream()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        server.on[path] = answer
    results, requests = [], []
    async with UnifiedInferenceClient.create(server.url, "llm", "embedder", api_key="sk-mine") as client:
        for side in (name, TWINS[name]):
            call = getattr(client, side)
            if side == name:
                results.append(await asyncio.to_thread(run_sync, partial(call, *arguments, **options)))
            else:
                results.append(await outcome(partial(call, *arguments, **options)))
            kept = ("idempotency-key", "authorization", "content-type")
            requests.append(
                [(one.method, one.path, one.body, {key: one.headers.get(key) for key in kept}) for one in server.seen]
            )
            server.seen.clear()
    assert results[0] == results[1]
    assert requests[0] == requests[1]
    assert all(headers["authorization"] == "Bearer sk-mine" for *_, headers in requests[0])
    if isinstance(expected, type):
        assert results[0][0] is expected
    elif expected is not None:
        assert results[0] == expected
        keys = [headers["idempotency-key"] for *_, headers in requests[0]]
        given = options.get("idempotency_key")
        assert keys == ([given] * len(keys) if len(keys) < 2 else [f"{given}.1", f"{given}.2"])
    else:
        assert results[0]["gateway_available"]
        assert {"llm_available", "embedding_available", "models"} <= set(results[0])


@pytest.mark.spec("G1")
def test_a_client_for_one_model_keeps_its_options() -> None:
    client = UnifiedInferenceClient.create_for_model("big", "http://127.0.0.1:1", timeout=3, api_key="sk-secret")
    assert (client.default_llm_model, client.timeout, client.base_url) == ("big", 3, "http://127.0.0.1:1/v1")
    assert "sk-secret" not in repr(client)
    client.close()
