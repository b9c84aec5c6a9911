"""Gateway, embedding server and LLM engine as real processes, used by OpenAI's own client and by ours."""

import asyncio
import json
import pathlib
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import openai
import pytest

from sage.llm import UnifiedInferenceClient

Start = Callable[..., Awaitable[Any]]


@pytest.fixture
async def stack(daemon: Start, http: aiohttp.ClientSession) -> Any:
    """The three daemons; the gateway."""
    engine, embedding = await asyncio.gather(daemon("sagellm_core.engine_server"), daemon("sage.llm.embedding"))
    gate = await daemon("sage.llm.gateway", "--engine", engine.url, "--embedding", embedding.url, probe="/ready")
    async with asyncio.timeout(10):
        while True:
            async with http.get(gate.url + "/v1/models") as response:
                if len((await response.json())["data"]) == 2:
                    break
            await asyncio.sleep(0.02)
    return gate


@pytest.mark.slow
@pytest.mark.spec("G2")
async def test_the_official_openai_client(stack: Any) -> None:
    async with openai.AsyncOpenAI(base_url=stack.url + "/v1", api_key="unused", max_retries=0) as client:
        models = [model.id async for model in client.models.list()]
        assert models[1:] == ["hash"]
        assert (await client.models.retrieve(models[0])).id == models[0]

        stream = await client.chat.completions.create(
            model=models[0], messages=[{"role": "user", "content": "Who are you?"}], stream=True, max_tokens=16
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        whole = await client.chat.completions.create(
            model=models[0], messages=[{"role": "user", "content": "Who are you?"}], max_tokens=16, temperature=0
        )
        assert len(pieces) > 1
        assert "".join(pieces)
        assert whole.choices[0].message.content
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 0

        answer = await client.embeddings.create(model="hash", input=["Hello", "World"])
        plain = await client.embeddings.create(model="hash", input=["Hello", "World"], encoding_format="float")
        assert [len(item.embedding) for item in answer.data] == [384, 384]
        assert answer.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-7)

        own = await client.embeddings.create(model=models[0], input=["Hello", "World"])
        assert {len(item.embedding) for item in own.data} == {192}
        await _use_fields_of_the_engine(client, models[0])

        with pytest.raises(openai.NotFoundError, match="Did you mean 'hash'"):
            await client.embeddings.create(model="hush", input="x")
        with pytest.raises(openai.BadRequestError, match="token ids"):
            await client.embeddings.create(model="hash", input=[1, 2, 3])


async def _use_fields_of_the_engine(client: openai.AsyncOpenAI, model: str) -> None:
    """Fields that the gateway knows nothing of do in the engine what they are there for."""
    asked: Any = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 200}
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "f", "parameters": nothing}}]
    forced: Any = {"tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}}
    called = await client.chat.completions.create(**asked, **forced)
    assert called.choices[0].finish_reason == "tool_calls"
    described: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a", "b"]}}}
    chosen = await client.chat.completions.create(**asked, response_format=described, n=2, temperature=1)
    assert {choice.message.content for choice in chosen.choices} <= {'"a"', '"b"'}
    assert len(chosen.choices) == 2
    scored = await client.completions.create(model=model, prompt="Hello", max_tokens=0, echo=True, logprobs=1)
    assert scored.choices[0].text == "Hello"


@pytest.mark.slow
@pytest.mark.spec("G1")
async def test_our_client_sync_and_async(stack: Any) -> None:
    def use() -> dict[str, Any]:
        with UnifiedInferenceClient.create(control_plane_url=stack.url) as client:
            status = client.get_status()
            assert client.chat([{"role": "user", "content": "Who are you?"}], max_tokens=8, temperature=0)
            assert client.chat("Who are you?", max_tokens=8)
            assert isinstance(client.generate("SAGE is", max_tokens=4), str)
            assert "".join(client.stream_chat("Who are you?", max_tokens=8, temperature=0))
            assert isinstance("".join(client.stream_generate("SAGE is", max_tokens=4)), str)
            vectors = client.embed(["one", "two"])
            assert [len(vector) for vector in vectors] == [384, 384]
            assert client.embed("one") == vectors[:1]
            assert len(client.embed([f"text {number}" for number in range(1100)])) == 1100
            assert client.embed([]) == []
            return status

    status = await asyncio.to_thread(use)
    assert status["llm_available"] is True
    assert status["embedding_available"] is True
    assert "hash" in status["models"]
    async with UnifiedInferenceClient.create(control_plane_url=stack.url + "/v1") as client:
        assert await client.achat("Who are you?", max_tokens=8, temperature=0)
        assert isinstance(await client.agenerate("SAGE is", max_tokens=4), str)
        assert "".join([piece async for piece in client.astream_chat("Who are you?", max_tokens=8)])
        assert "".join([piece async for piece in client.astream_generate("SAGE is", max_tokens=4)]) is not None
        assert len(await client.aembed(["one", "two"])) == 2
        assert (await client.aget_status())["llm_available"] is True


@pytest.mark.spec("R1")
@pytest.mark.parametrize("module", ["sage.llm.gateway", "sage.llm.embedding"])
async def test_a_daemon_ends_cleanly(daemon: Start, module: str) -> None:
    server = await daemon(module)
    server.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await server.process.wait() == 0


@pytest.mark.spec("G6")
async def test_the_gateway_drains_before_it_ends(
    eventually: Start, upstream: Start, gateway: Start, http: aiohttp.ClientSession
) -> None:
    engine = await upstream()
    go_on = asyncio.Event()

    async def slow(exchange: Any) -> None:
        await go_on.wait()
        await exchange.answer(200, {"choices": []})

    engine.on["/v1/completions"] = slow
    gate = await gateway(engine)
    work = asyncio.ensure_future(http.post(gate.url + "/v1/completions", json={"prompt": "x"}))
    await eventually(lambda: engine.seen, "the engine works")
    async with asyncio.timeout(10):
        gate.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        go_on.set()
        async with await work as response:
            assert response.status == 200
        assert await gate.process.wait() == 0


@pytest.mark.spec("P2")
@pytest.mark.parametrize("module", ["sage.llm.gateway", "sage.llm.embedding"])
async def test_a_taken_port_is_one_clear_message(upstream: Start, module: str, tmp_path: pathlib.Path) -> None:
    holder = await upstream()
    code, text = await run(module, "--port", str(holder.port))
    assert code == 1
    assert f"Port {holder.port} is already in use" in text
    assert "pid" in text
    assert "Traceback" not in text


@pytest.mark.spec("R3")
async def test_wrong_options_are_one_clear_message(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    cases = [
        (("sage.llm.embedding", "--model", "hsh"), "sage llm serve --embedding-model hash"),
        (("sage.llm.embedding", "--model", "/nowhere/model"), "There is no embedding model at /nowhere/model"),
        (("sage.llm.embedding", "--model", f"hf:{tmp_path}"), "no weights"),
        (("sage.llm.gateway", "--engine", "ftp://x"), "no engine URL"),
        (("sage.llm.gateway", "--host", "203.0.113.9"), "Cannot listen on 203.0.113.9"),
        (("sage.llm.gateway", "--port", "99999"), "--port 99999 is no port"),
    ]
    for argv, says in cases:
        code, text = await run(argv[0], "--port", "0", *argv[1:])
        assert code == 1, text
        assert says in text
        assert "next: " in text
        assert "Traceback" not in text


async def run(module: str, *args: str) -> tuple[int, str]:
    """The exit code and the output of a daemon that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()
