"""Routes and fields of the engine that the gateway passes on, in front of servers that behave as told."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from sage.llm.control_plane.executors.http_client import HttpExecutionCoordinator
from sage.llm.control_plane.manager import ControlPlaneManager
from sage.llm.gateway import GatewaySettings

Start = Callable[..., Awaitable[Any]]
Http = aiohttp.ClientSession
CHAT = "/v1/chat/completions"


@pytest.mark.spec("G2")
async def test_an_llm_engine_embeds_with_its_own_model(upstream: Start, gateway: Start, http: Http) -> None:
    engine, embedder = await upstream("tiny"), await upstream("bge")

    async def vectors(exchange: Any) -> None:
        data = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
        await exchange.answer(200, {"object": "list", "model": exchange.json["model"], "data": data})

    engine.on["/v1/embeddings"] = embedder.on["/v1/embeddings"] = vectors
    gate = await gateway(engine, embeddings=(embedder,))
    for body, name in (({"model": "tiny"}, "tiny"), ({"model": "bge"}, "bge"), ({}, "bge")):
        async with http.post(gate.url + "/v1/embeddings", json={"input": "a", **body}) as response:
            assert (await response.json())["model"] == name
    assert len(engine.seen) == 1


@pytest.mark.spec("G2")
@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_questions_about_tokens_go_to_the_engine(path: str, upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream("tiny")

    async def count(exchange: Any) -> None:
        await exchange.answer(200, {"asked": exchange.json})

    engine.on[path] = count
    gate = await gateway(engine)
    async with http.post(gate.url + path, json={"prompt": "a", "tokens": [1]}) as response:
        assert (await response.json())["asked"] == {"model": "tiny", "prompt": "a", "tokens": [1]}


@pytest.mark.spec("G2")
async def test_the_streaming_route_streams_whatever_the_body_says(upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream("tiny")

    async def stream(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"text": "x"}]})
        await exchange.event(b"[DONE]")
        await exchange.end_stream()

    engine.on["/v1/completions/stream"] = stream
    gate = await gateway(engine)
    async with http.post(gate.url + "/v1/completions/stream", json={"prompt": "a"}) as response:
        assert response.content_type == "text/event-stream"
        assert (await response.text()).endswith("data: [DONE]\n\n")


@pytest.mark.spec("R4")
async def test_the_engines_key_goes_to_llm_engines_alone(upstream: Start) -> None:
    engine, embedder = await upstream("tiny"), await upstream("bge")
    settings = GatewaySettings(engines=(engine.url,), embeddings=(embedder.url,), engine_key="secret")
    coordinator = HttpExecutionCoordinator(engine_key=settings.engine_key)
    assert "secret" not in f"{settings} {coordinator}"

    async def answer(exchange: Any) -> None:
        await exchange.answer(200, {"choices": [], "data": []})

    engine.on[CHAT] = embedder.on["/v1/embeddings"] = answer
    await coordinator.start()
    manager = ControlPlaneManager()
    for target, path in (
        (manager.add("llm", engine.url), CHAT),
        (manager.add("embedding", embedder.url), "/v1/embeddings"),
    ):
        response = await coordinator.open(target, path, b"{}", "r")
        response.close()
    await coordinator.stop()
    assert engine.seen[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in embedder.seen[0].headers
