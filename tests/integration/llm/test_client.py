"""The client against a gateway whose engine misbehaves, and against no gateway at all."""

import asyncio
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sage.common.atomic import write_json
from sage.common.errors import NotRunningError, UpstreamError
from sage.common.process import ProcessIdentity
from sage.llm import UnifiedInferenceClient

Start = Callable[..., Awaitable[Any]]
CHAT = "/v1/chat/completions"


def client_for(url: str, **options: Any) -> UnifiedInferenceClient:
    return UnifiedInferenceClient.create(control_plane_url=url, **options)


@pytest.mark.spec("G1", "X12")
async def test_no_gateway_names_the_command(free_port: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    def use() -> None:
        with client_for(url) as client:
            for call in (
                lambda: client.chat("x"),
                lambda: client.generate("x"),
                lambda: client.embed(["x"]),
                lambda: list(client.stream_chat("x")),
            ):
                with pytest.raises(NotRunningError) as caught:
                    call()
                assert "sage llm serve" in caught.value.hint
            status = client.get_status()
            assert status["gateway_available"] is status["llm_available"] is status["embedding_available"] is False
            assert "sage llm serve" in status["hint"]

    await asyncio.to_thread(use)
    async with client_for(url) as client:
        with pytest.raises(NotRunningError):
            await client.achat("x")
        with pytest.raises(NotRunningError):
            await anext(client.astream_chat("x"))


@pytest.mark.spec("G1")
async def test_a_busy_gateway_is_asked_again(upstream: Start) -> None:
    server = await upstream()

    async def busy_once(exchange: Any) -> None:
        if len(server.seen) == 1:
            await exchange.answer(429, {"error": {"message": "busy"}}, extra="retry-after: 0\r\n")
        else:
            await exchange.answer(200, {"choices": [{"message": {"content": "now"}}]})

    server.on[CHAT] = busy_once
    with client_for(server.url) as client:
        assert await asyncio.to_thread(client.chat, "x") == "now"
    server.seen.clear()
    async with client_for(server.url) as aclient:
        assert await aclient.achat("x") == "now"
    assert len(server.seen) == 2


@pytest.mark.spec("G1", "G6")
async def test_a_stream_that_breaks_is_an_error_after_its_pieces(upstream: Start) -> None:
    server = await upstream()

    async def break_off(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"delta": {"content": "one"}}]})
        await asyncio.sleep(0.05)
        exchange.die()

    server.on[CHAT] = break_off

    def use() -> list[str]:
        with client_for(server.url) as client:
            stream = client.stream_chat("x")
            pieces = [next(stream)]
            with pytest.raises(UpstreamError):
                next(stream)
        return pieces

    assert await asyncio.to_thread(use) == ["one"]
    async with client_for(server.url) as client:
        stream = client.astream_chat("x")
        assert await anext(stream) == "one"
        with pytest.raises(UpstreamError):
            await anext(stream)
    assert len(server.seen) == 2, "a stream that has begun is not asked for again"


@pytest.mark.spec("G1")
async def test_a_stream_that_is_closed_stops_the_engine(eventually: Start, upstream: Start, gateway: Start) -> None:
    engine = await upstream()

    async def one_then_hang(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event({"choices": [{"delta": {"content": "one"}}]})
        await engine.hang(exchange)

    engine.on[CHAT] = one_then_hang
    gate = await gateway(engine)

    def use() -> None:
        with client_for(gate.url) as client:
            stream = client.stream_chat("x")
            assert next(stream) == "one"
            stream.close()  # type: ignore[attr-defined]

    await asyncio.to_thread(use)
    await eventually(lambda: engine.left, "the engine was told")


@pytest.mark.spec("G1", "R1")
async def test_a_gateway_that_its_supervisor_restarts_is_waited_for(
    upstream: Start, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    server = await upstream()

    async def handle(exchange: Any) -> None:
        await exchange.answer(200, {"choices": [{"message": {"content": "back"}}]})

    server.on[CHAT] = handle
    await server.stop()
    me = ProcessIdentity.current()
    supervisor = {"pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id}
    daemon = {"kind": "gateway", "state": "backing-off", "url": server.url, "port": server.port}
    (tmp_path / "llm").mkdir()
    write_json(tmp_path / "llm" / "daemon.json", {"supervisor": supervisor, "daemons": {"gateway": daemon}})
    async with client_for(server.url) as client:
        first = asyncio.create_task(client.achat("x"))
        second = asyncio.create_task(asyncio.to_thread(client.chat, "x"))
        await asyncio.sleep(0.5)
        assert not first.done()
        assert not second.done()
        await server.start()
        assert await first == await second == "back"


@pytest.mark.spec("G1")
async def test_a_silent_engine_is_a_timeout(upstream: Start) -> None:
    server = await upstream()
    server.on[CHAT] = server.hang
    expected = pytest.raises(UpstreamError, match=r"did not answer within 0\.3 s")
    with client_for(server.url, timeout=0.3) as client, expected:
        await asyncio.to_thread(client.chat, "x")


@pytest.mark.spec("G1")
async def test_models_are_sent_as_chosen(upstream: Start) -> None:
    server = await upstream()

    async def handle(exchange: Any) -> None:
        await exchange.answer(200, {"choices": [{"message": {"content": "x"}, "text": "x"}]})

    server.on[CHAT] = server.on["/v1/completions"] = handle
    bound = UnifiedInferenceClient.create_for_model("big", control_plane_url=server.url)
    async with bound:
        await bound.achat("x", temperature=0.5)
        await bound.agenerate("x", model="other")
    async with client_for(server.url) as plain:
        await plain.achat("x")
    sent = [one.json for one in server.seen]
    assert [one["model"] for one in sent] == ["big", "other", "default"]
    assert sent[0]["temperature"] == 0.5


def test_a_client_works_in_one_event_loop_after_another(free_port: Callable[[], int], tmp_path: pathlib.Path) -> None:
    client = client_for(f"http://127.0.0.1:{free_port()}")

    async def use() -> None:
        with pytest.raises(NotRunningError):
            await client.achat("x")
        await client.aclose()

    asyncio.run(use())
    asyncio.run(use())
