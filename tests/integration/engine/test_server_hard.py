"""A real engine server and clients that mean no good: no key, millions of values, endless prompts (SPEC R3, R4)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.helpers.engine_process import Server, serving

pytestmark = [pytest.mark.spec("E8", "R3", "R4"), pytest.mark.slow]
KEY = "a-key-that-nobody-else-has"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key from its environment, or one from a file."""
    home = tmp_path_factory.mktemp("engine")
    (home / "keys").write_text("# second\nfrom-the-file\n")
    with serving(home, "--api-key-file", str(home / "keys"), variables={"SAGE_ENGINE_API_KEY": KEY}) as started:
        started.http.headers["Authorization"] = f"Bearer {KEY}"
        yield started


def test_only_who_has_a_key_is_answered(server: Server) -> None:
    for key in (KEY, "from-the-file"):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            assert client.completions.create(model="m", prompt="a", max_tokens=1).choices
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="guess", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError, match="API key"):
        stranger.completions.create(model="m", prompt="a", max_tokens=1)
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert httpx.get(f"{server.url}/info").status_code == 401
    assert KEY not in server.log.read_text()


def test_metrics_have_vllms_names_too(server: Server) -> None:
    server.post("/v1/completions", prompt="a", max_tokens=2, ignore_eos=True)
    text = server.http.get("/metrics").text
    label = 'model_name="sage-builtin"'
    for name in (
        "vllm:num_requests_running{",
        "vllm:num_requests_waiting{",
        "vllm:kv_cache_usage_perc{",
        "vllm:prompt_tokens_total{",
        "vllm:generation_tokens_total{",
        "vllm:prefix_cache_queries_total{",
        "vllm:time_to_first_token_seconds_bucket{",
        "vllm:e2e_request_latency_seconds_count{",
        'vllm:request_success_total{finished_reason="length",',
    ):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert label in line


@pytest.mark.parametrize(
    ("path", "data", "says"),
    [
        ("/v1/completions", b'{"prompt": [' + b"[]," * 4_000_000 + b"[]]}", "too many values"),
        ("/v1/chat/completions", b'{"messages": [' + b'{"a":1},' * 1_500_000 + b"{}]}", "too many values"),
        ("/v1/embeddings", b'{"input": [' + b'"",' * 4_000_000 + b'""]}', "too many values"),
        ("/v1/completions", json.dumps({"prompt": "word " * 2_000_000}).encode(), "context is 1024"),
        ("/tokenize", json.dumps({"prompt": "多 字 " * 500_000}).encode(), "context is 1024"),
        ("/v1/completions", json.dumps({"prompt": [5] * 1_000_000}).encode(), "context is 1024"),
    ],
)
def test_a_huge_body_is_refused_and_holds_up_nobody(path: str, data: bytes, says: str, server: Server) -> None:
    """Several at once; meanwhile others are answered."""
    answers: list[httpx.Response] = []
    headers = dict(server.http.headers)

    def send() -> None:
        answers.append(httpx.post(f"{server.url}{path}", content=data, headers=headers, timeout=100))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        begun = time.monotonic()
        assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
        slowest = max(slowest, time.monotonic() - begun)
    assert {answer.status_code for answer in answers} == {400}
    assert says in answers[0].json()["error"]["message"]
    assert slowest < 3.0


async def test_a_gateway_knows_the_engines_key(
    server: Server, daemon_with_key: Any, http_client: httpx.AsyncClient
) -> None:
    gate = await daemon_with_key(server.url)
    answer = await http_client.post(f"{gate}/v1/completions", json={"prompt": "a", "max_tokens": 1})
    assert answer.status_code == 200
    assert answer.json()["model"] == "sage-builtin"


@pytest.fixture
async def http_client() -> Any:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest.fixture
async def daemon_with_key(tmp_path: Path, free_port: Any, http_client: httpx.AsyncClient) -> Any:
    """A function that starts a gateway in front of an engine, with the engine's key in its environment."""
    import os
    import sys

    started: list[asyncio.subprocess.Process] = []

    async def start(engine: str) -> str:
        port = free_port()
        argv = [sys.executable, "-m", "sage.llm.gateway", "--port", str(port), "--engine", engine]
        env = {**os.environ, "SAGE_HOME": str(tmp_path), "SAGE_ENGINE_API_KEY": f"{KEY},other"}
        started.append(await asyncio.create_subprocess_exec(*argv, env=env))
        async with asyncio.timeout(30):
            while True:
                try:
                    if (await http_client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                        return f"http://127.0.0.1:{port}"
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    yield start
    for process in started:
        process.kill()
        await process.wait()
