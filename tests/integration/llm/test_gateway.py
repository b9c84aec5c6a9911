"""The gateway as a process, in front of servers that behave well and badly."""

import asyncio
import io
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

Start = Callable[..., Awaitable[Any]]
Http = aiohttp.ClientSession
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def answered(text: str) -> Callable[[Any], Awaitable[None]]:
    """A handler that answers a chat with a text."""

    async def handle(exchange: Any) -> None:
        await exchange.answer(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})

    return handle


async def events(response: aiohttp.ClientResponse) -> list[str]:
    """The data of each event of a stream."""
    text = (await response.read()).decode()
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


@pytest.mark.spec("G2")
async def test_answer_passes_through_with_its_headers(upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream("tiny")
    engine.on[CHAT] = answered("Hi")
    gate = await gateway(engine)
    headers = {"x-request-id": "my-id-1", "authorization": "Bearer sk-secret"}
    body = json.dumps({**HELLO, "model": "tiny", "seed": 7}, indent=2)
    async with http.post(gate.url + CHAT, data=body, headers=headers) as response:
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Hi"
        assert response.headers["x-sage-request-id"] == "my-id-1"
        assert response.headers["x-sage-engine"] == "engine"
        assert float(response.headers["x-sage-queue-ms"]) >= 0
    sent = engine.seen[0]
    assert sent.body == body.encode(), "the original bytes travel"
    assert sent.headers["x-request-id"] == "my-id-1"
    assert "authorization" not in sent.headers


@pytest.mark.spec("G2")
async def test_a_missing_or_default_model_is_filled_in(upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream("tiny")
    engine.on[CHAT] = answered("Hi")
    gate = await gateway(engine)
    for extra in ({}, {"model": "default"}, {"model": None}):
        async with http.post(gate.url + CHAT, json={**HELLO, **extra}) as response:
            assert response.status == 200
    assert [one.json["model"] for one in engine.seen] == ["tiny"] * 3
    assert all(one.json["messages"] == HELLO["messages"] for one in engine.seen)


@pytest.mark.spec("G2")
async def test_models_are_listed_and_shown(upstream: Start, gateway: Start, http: Http) -> None:
    gate = await gateway(await upstream("Qwen/Qwen2.5-7B"), embeddings=(await upstream("bge"),))
    async with http.get(gate.url + "/v1/models") as response:
        listed = (await response.json())["data"]
    assert [(one["id"], one["object"], one["kind"]) for one in listed] == [
        ("Qwen/Qwen2.5-7B", "model", "llm"),
        ("bge", "model", "embedding"),
    ]
    async with http.get(gate.url + "/v1/models/Qwen/Qwen2.5-7B") as response:
        assert (await response.json())["id"] == "Qwen/Qwen2.5-7B"
    async with http.get(gate.url + "/v1/models/Qwen/Qwen2.5-7") as response:
        assert response.status == 404
        assert "Did you mean 'Qwen/Qwen2.5-7B'?" in (await response.json())["error"]["message"]


BAD_REQUESTS = [
    (CHAT, b"{nonsense", 400, "invalid_body", "cannot be read"),
    (CHAT, b"[1]", 400, "invalid_body", "cannot be read"),
    (CHAT, b"\xff\xfe", 400, "invalid_body", "cannot be read"),
    (CHAT, b"[" * 100_000, 400, "invalid_body", "cannot be read"),
    (CHAT, b'{"model": 5, "messages": []}', 400, "invalid_body", "$.model"),
    (CHAT, b'{"stream": "yes", "messages": []}', 400, "invalid_body", "$.stream"),
    (CHAT, b"{}", 400, "missing_field", "`messages` is missing"),
    ("/v1/completions", b"{}", 400, "missing_field", "`prompt` is missing"),
    ("/v1/embeddings", b"{}", 400, "missing_field", "`input` is missing"),
    (CHAT, b'{"messages": [], "model": "tny"}', 404, "model_not_found", "Did you mean 'tiny'?"),
    (CHAT, b'{"messages": [], "model": "bge"}', 400, "wrong_model_kind", "/v1/embeddings"),
    ("/v1/chat/completion", b"{}", 404, "unknown_url", "Did you mean /v1/chat/completions?"),
    ("/v1/models", b"{}", 405, "method_not_allowed", "Allowed: GET"),
]


@pytest.mark.spec("R3")
async def test_bad_requests_get_openais_error_shape(upstream: Start, gateway: Start, http: Http) -> None:
    gate = await gateway(await upstream("tiny"), embeddings=(await upstream("bge"),))
    for path, body, status, code, says in BAD_REQUESTS:
        async with http.post(gate.url + path, data=body) as response:
            assert response.status == status, body[:40]
            error = (await response.json())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == code
        assert says in error["message"]


@pytest.mark.spec("R4")
async def test_a_body_past_the_limit_is_refused(upstream: Start, gateway: Start, http: Http) -> None:
    gate = await gateway(await upstream())

    async def pieces() -> Any:
        for _ in range(10):
            yield b"x" * 1024 * 1024

    async with http.post(gate.url + CHAT, data=io.BytesIO(b"x" * 9 * 1024 * 1024)) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request_too_large"
    async with http.post(gate.url + CHAT, data=pieces()) as response:
        assert response.status == 413


@pytest.mark.spec("G2")
async def test_events_arrive_as_the_engine_sends_them(upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream()
    go_on = asyncio.Event()

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"delta": {"content": "one"}}]})
        await go_on.wait()
        await exchange.chunk(b'data: {"choices": [{"delta": {"con')
        await exchange.chunk(b'tent": "two"}}]}\n\ndata: [DONE]\n\n')
        await exchange.end_stream()

    engine.on[CHAT] = handle
    gate = await gateway(engine)
    async with http.post(gate.url + CHAT, json={**HELLO, "stream": True}) as response:
        assert response.content_type == "text/event-stream"
        first = await response.content.readuntil(b"\n\n")
        assert b"one" in first, "the first event came while the engine still works"
        go_on.set()
        assert [json.loads(data) if data != "[DONE]" else data for data in await events(response)] == [
            {"choices": [{"delta": {"content": "two"}}]},
            "[DONE]",
        ]


@pytest.mark.spec("G6")
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_leaves_before_the_answer_stops_the_engine(
    eventually: Start, upstream: Start, gateway: Start, http: Http, streaming: bool
) -> None:
    engine = await upstream()
    engine.on[CHAT] = engine.hang
    gate = await gateway(engine)
    work = asyncio.ensure_future(http.post(gate.url + CHAT, json={**HELLO, "stream": streaming}))
    await eventually(lambda: engine.seen, "the engine works")
    work.cancel()
    await eventually(lambda: engine.left == [CHAT], "the engine was told")


@pytest.mark.spec("G6")
async def test_a_client_that_leaves_mid_stream_stops_the_engine(
    eventually: Start, upstream: Start, gateway: Start, http: Http
) -> None:
    engine = await upstream()

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": []})
        await engine.hang(exchange)

    engine.on[CHAT] = handle
    gate = await gateway(engine)
    async with http.post(gate.url + CHAT, json={**HELLO, "stream": True}) as response:
        await response.content.readuntil(b"\n\n")
        response.close()
    await eventually(lambda: engine.left == [CHAT], "the engine was told")
    async with http.get(gate.url + "/metrics") as response:
        page = await response.text()
    assert 'sage_gateway_requests_total{code="499",route="/v1/chat/completions"} 1.0' in page
    assert "sage_gateway_inflight 0.0" in page


@pytest.mark.spec("G6")
async def test_a_client_that_leaves_the_queue_never_reaches_the_engine(
    eventually: Start, upstream: Start, gateway: Start, http: Http
) -> None:
    engine = await upstream()
    engine.on[CHAT] = engine.hang
    gate = await gateway(engine, args=("--max-running", "1", "--max-waiting", "1"))
    running = asyncio.ensure_future(http.post(gate.url + CHAT, json=HELLO))
    await eventually(lambda: engine.seen, "the first one runs")
    waiting = asyncio.ensure_future(http.post(gate.url + CHAT, json=HELLO))
    await _metric(http, gate.url, "sage_gateway_queue_depth 1.0")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 429
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert (await response.json())["error"]["code"] == "queue_full"
    waiting.cancel()
    await _metric(http, gate.url, "sage_gateway_queue_depth 0.0")
    running.cancel()
    await _metric(http, gate.url, "sage_gateway_inflight 0.0")
    engine.on[CHAT] = answered("free again")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 200
    assert len(engine.seen) == 2
    await _metric(http, gate.url, "sage_gateway_rejected_total 1.0")


async def _metric(http: Http, url: str, line: str) -> None:
    """Wait until the gateway's metrics hold a line."""
    async with asyncio.timeout(10):
        while True:
            async with http.get(url + "/metrics") as response:
                if line in (await response.text()).splitlines():
                    return
            await asyncio.sleep(0.02)


@pytest.mark.spec("G6")
@pytest.mark.parametrize("ending", ["dies", "half an event", "ends without [DONE]"])
async def test_an_engine_that_dies_mid_stream_ends_in_an_error_event(
    upstream: Start, gateway: Start, http: Http, ending: str
) -> None:
    engine = await upstream()

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"delta": {"content": "one"}}]})
        if ending == "ends without [DONE]":
            await exchange.end_stream()
            return
        if ending == "half an event":
            await exchange.chunk(b'data: {"choices": [{"del')
        await asyncio.sleep(0.05)
        exchange.die()

    engine.on[CHAT] = handle
    gate = await gateway(engine)
    async with http.post(gate.url + CHAT, json={**HELLO, "stream": True}) as response:
        got = await events(response)
    assert json.loads(got[0])["choices"][0]["delta"]["content"] == "one"
    assert json.loads(got[1])["error"]["code"] == "upstream_died"
    assert len(got) == 2


@pytest.mark.spec("G6")
async def test_an_engines_own_error_event_is_not_doubled(upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream()

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": []})
        await exchange.event({"error": {"message": "out of memory"}})
        await exchange.end_stream()

    engine.on[CHAT] = handle
    gate = await gateway(engine)
    async with http.post(gate.url + CHAT, json={**HELLO, "stream": True}) as response:
        got = await events(response)
    assert [json.loads(data) for data in got] == [{"choices": []}, {"error": {"message": "out of memory"}}]


@pytest.mark.spec("G6")
async def test_html_becomes_502(upstream: Start, gateway: Start, http: Http) -> None:
    engine = await upstream()

    async def handle(exchange: Any) -> None:
        await exchange.answer(200, b"<html>Welcome</html>", kind="text/html")

    engine.on[CHAT] = handle
    gate = await gateway(engine)
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 502
        error = (await response.json())["error"]
    assert error["code"] == "upstream_not_json"
    assert "text/html" in error["message"]


@pytest.mark.spec("G2")
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_engines_refusal_keeps_its_status_and_gets_the_shape(
    upstream: Start, gateway: Start, http: Http, streaming: bool
) -> None:
    engine = await upstream()
    gate = await gateway(engine)
    cases: list[tuple[int, object, str]] = [
        (400, {"error": {"message": "too long", "type": "invalid_request_error", "code": "x"}}, "too long"),
        (422, {"detail": [{"msg": "field required"}]}, "field required"),
        (500, {"detail": "boom"}, "boom"),
        (429, {"error": "slow down"}, "slow down"),
    ]
    for status, body, text in cases:

        async def handle(exchange: Any, status: int = status, body: object = body) -> None:
            await exchange.answer(status, body, extra="retry-after: 7\r\n")

        engine.on[CHAT] = handle
        async with http.post(gate.url + CHAT, json={**HELLO, "stream": streaming}) as response:
            assert response.status == status
            assert response.headers["retry-after"] == "7"
            assert text in (await response.json())["error"]["message"]


@pytest.mark.spec("G6")
async def test_an_engine_that_is_down_gives_503_with_the_next_command(
    upstream: Start, gateway: Start, http: Http
) -> None:
    engine = await upstream()
    gate = await gateway(engine)
    await engine.stop()
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 503
        assert "sage llm serve" in (await response.json())["error"]["message"]
        assert "retry-after" in response.headers
    await engine.start()
    engine.on[CHAT] = answered("back")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 200, "a static engine that is back is used at once"


@pytest.mark.spec("G6")
async def test_a_request_that_kills_engines_is_not_repeated_for_ever(
    upstream: Start, gateway: Start, http: Http
) -> None:
    engine = await upstream()

    async def handle(exchange: Any) -> None:
        exchange.die()

    engine.on[CHAT] = handle
    gate = await gateway(engine)
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status in (502, 503)
    assert len(engine.seen) <= 4


@pytest.mark.spec("G6")
async def test_the_less_loaded_of_two_engines_is_taken(
    eventually: Start, upstream: Start, gateway: Start, http: Http
) -> None:
    first, second = await upstream("tiny"), await upstream("tiny")
    first.on[CHAT], second.on[CHAT] = first.hang, answered("from the second")
    gate = await gateway(first, second)
    work = asyncio.ensure_future(http.post(gate.url + CHAT, json=HELLO))
    await eventually(lambda: first.seen, "the first one is busy")
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.headers["x-sage-engine"] == "engine-2"
    work.cancel()
    await eventually(lambda: first.left, "the first one was told")


@pytest.mark.spec("G6")
async def test_another_engine_takes_over_when_one_dies_before_the_answer(
    upstream: Start, gateway: Start, http: Http
) -> None:
    first, second = await upstream("tiny"), await upstream("tiny")
    second.on[CHAT] = answered("from the second")
    gate = await gateway(first, second)
    async with asyncio.timeout(10):
        while True:
            async with http.get(gate.url + "/health") as response:
                if all(one["state"] == "ready" for one in (await response.json())["engines"]):
                    break
    await first.stop()
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == "from the second"


async def test_a_gateway_without_engines_is_healthy_and_not_ready(daemon: Start, http: Http) -> None:
    gate = await daemon("sage.llm.gateway")
    async with http.get(gate.url + "/ready") as response:
        assert response.status == 503
    async with http.post(gate.url + CHAT, json=HELLO) as response:
        assert response.status == 503
        assert "sage llm serve" in (await response.json())["error"]["message"]


@pytest.mark.slow
@pytest.mark.spec("G6")
async def test_many_clients_that_stay_and_leave_lose_no_place(upstream: Start, gateway: Start, http: Http) -> None:
    """300 streams through 4 places; a third of the clients leaves somewhere. Nobody gets an internal error."""
    engine = await upstream()

    async def stream(exchange: Any) -> None:
        await exchange.begin_stream()
        for _ in range(3):
            await exchange.event({"choices": []})
            await asyncio.sleep(0.001)
        await exchange.event(b"[DONE]")
        await exchange.end_stream()

    engine.on[CHAT] = stream
    gate = await gateway(engine, args=("--max-running", "4", "--max-waiting", "20"))
    chance = random.Random(7)
    seen: Counter[object] = Counter()

    async def client(patience: float | None) -> None:
        try:
            async with (
                asyncio.timeout(patience),
                http.post(gate.url + CHAT, json={**HELLO, "stream": True}) as response,
            ):
                body = await response.read()
                seen[response.status if response.status != 200 else b"[DONE]" in body] += 1
        except TimeoutError:
            seen["left"] += 1

    for _ in range(10):
        await asyncio.gather(*(client(chance.random() * 0.05 if chance.random() < 0.4 else None) for _ in range(30)))
    assert set(seen) <= {True, "left", 429}
    assert seen[True] > 0 < seen["left"]
    await _metric(http, gate.url, "sage_gateway_inflight 0.0")
    await _metric(http, gate.url, "sage_gateway_queue_depth 0.0")
