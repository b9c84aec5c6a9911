"""The engine server as a real process: readiness, OpenAI's routes, refusals, disconnects, drain (SPEC E8, G6, R1)."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.helpers.engine_process import Server, end, launch, serving

pytestmark = [pytest.mark.spec("E8"), pytest.mark.slow]
Until = Callable[..., None]
ENDLESS = {"prompt": "Hello", "max_tokens": 900, "ignore_eos": True}


@pytest.fixture(scope="module")
def port_number() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the built-in model and a short queue, for the tests that do it no harm."""
    with serving(tmp_path_factory.mktemp("engine"), "--max-batch-size", "4", "--max-waiting", "2") as started:
        yield started


def events_of(response: httpx.Response) -> list[dict[str, Any] | str]:
    """The data of a finished event stream, `[DONE]` as a string."""
    blocks = [block.removeprefix("data: ") for block in response.text.split("\n\n") if block]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


# -- what it says about itself ----------------------------------------------------------------------------------------


def test_the_routes_that_say_what_runs_here(server: Server) -> None:
    assert server.http.get("/").json()["model"] == "sage-builtin"
    assert server.http.get("/health").json() == {"status": "ok", "model": "sage-builtin"}
    info = server.http.get("/info").json()
    assert info["state"] == "ready"
    assert info["architecture"] == "LlamaForCausalLM"
    models = server.http.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["sage-builtin"]
    assert server.http.get("/v1/models/sage-builtin").json()["object"] == "model"
    assert server.http.get("/v1/models/other").status_code == 404
    assert "demonstration model" in server.log.read_text()


def test_metrics_have_the_agreed_names_and_count(server: Server) -> None:
    before = server.metric('requests_total{finish_reason="length"}')
    server.post("/v1/completions", prompt="Hello", max_tokens=3, ignore_eos=True)
    assert server.metric('requests_total{finish_reason="length"}') == before + 1
    text = server.http.get("/metrics").text
    for name in (
        "requests_running",
        "requests_waiting",
        "kv_cache_usage_ratio",
        "prompt_tokens_total",
        "generation_tokens_total",
        "prefix_hit_ratio",
        "ttft_seconds_bucket",
        "tpot_seconds_bucket",
        "request_seconds_bucket",
    ):
        assert f"\nsage_engine_{name}" in text


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.spec("E1", "E8")
def test_the_seeds_two_curl_bodies(server: Server) -> None:
    whole = server.post("/v1/completions", model="gpt2", prompt="Hello", max_tokens=20)
    assert whole.status_code == 200
    body = whole.json()
    assert (body["object"], body["model"]) == ("text_completion", "sage-builtin")
    streamed = server.post("/v1/completions/stream", model="gpt2", prompt="Hello", max_tokens=20, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = events_of(streamed)
    assert events[-1] == "[DONE]"
    text = "".join(event["choices"][0]["text"] for event in events[:-1] if isinstance(event, dict))
    assert text == body["choices"][0]["text"]
    assert len({event["id"] for event in events[:-1] if isinstance(event, dict)}) == 1


def test_token_ids_and_several_prompts(server: Server) -> None:
    ids = server.post("/v1/completions", prompt=[1, 5, 9], max_tokens=2, ignore_eos=True).json()
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert ids["usage"] == {**usage, "prompt_tokens_details": {"cached_tokens": 0}}
    both = server.post("/v1/completions", prompt=["one", "two"], max_tokens=2, n=2, ignore_eos=True).json()
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert both["choices"][0]["text"] == both["choices"][1]["text"]


def test_the_official_client_chats_streams_and_lists(server: Server) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["sage-builtin"]
        question: Any = [{"role": "user", "content": "What is SAGE?"}]
        whole = client.chat.completions.create(
            model="sage-builtin", messages=question, max_tokens=24, logprobs=True, top_logprobs=2
        )
        chunks = list(
            client.chat.completions.create(
                model="sage-builtin",
                messages=question,
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2


def test_streams_of_several_choices_are_marked(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "n": 3, "stream": True, "max_tokens": 4}
    events = events_of(server.post("/v1/chat/completions", **body))
    ends = [event["choices"][0]["index"] for event in events if isinstance(event, dict) and _reason(event)]
    assert sorted(ends) == [0, 1, 2]


def _reason(event: dict[str, Any]) -> str | None:
    reason: str | None = event["choices"][0]["finish_reason"]
    return reason


def test_health_answers_while_the_engine_is_busy(server: Server) -> None:
    threads = [
        threading.Thread(
            target=lambda: httpx.post(f"{server.url}/v1/completions", json={**ENDLESS, "max_tokens": 300}, timeout=60)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        slowest = max(slowest, server.http.get("/health").elapsed.total_seconds())
    assert slowest < 2.0


# -- what is wrong is said ---------------------------------------------------------------------------------------------


@pytest.mark.spec("R3")
@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "prompt", "Field required"),
        ({"prompt": "x", "temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"prompt": "x", "stop": ["a"] * 17}, "stop", "at most 16"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": [999_999]}, "prompt", "outside the vocabulary"),
        ({"prompt": "word " * 3000}, "prompt", "context is 1024 tokens"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "does not support suffix"),
        ({"prompt": "x", "n": 3, "best_of": 2}, "best_of", "at least n (3)"),
        ({"prompt": "x", "logit_bias": {"5": 101}}, "logit_bias", "from -100 to 100"),
        ({"prompt": {"a": 1}}, "prompt", "must be a text, a list of"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests_name_the_field(
    body: dict[str, Any], param: str, message: str, stream: bool, server: Server
) -> None:
    response = server.post("/v1/completions", **body, stream=stream)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.spec("R3")
@pytest.mark.parametrize("data", [b"{bad", b"[]", b"\xff\xfe", b"", b"[" * 100_000])
def test_bodies_that_are_not_an_object(data: bytes, server: Server) -> None:
    response = server.http.post("/v1/chat/completions", content=data)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


def test_other_wrong_requests_have_the_same_shape(server: Server) -> None:
    assert server.http.get("/nope").json()["error"]["type"] == "not_found_error"
    assert server.http.get("/v1/completions").status_code == 405
    tools = [{"type": "custom", "custom": {"name": "f"}}]
    refused = server.post("/v1/chat/completions", messages=[{"role": "user", "content": "x"}], tools=tools)
    assert refused.json()["error"]["code"] == "not_implemented"
    large = server.http.post("/v1/completions", content=b" " * (17 << 20))
    assert large.status_code == 413


@pytest.mark.spec("G6")
def test_a_full_queue_is_429_with_retry_after(server: Server, until: Until) -> None:
    streams = [server.http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) for _ in range(6)]
    for stream in streams:
        stream.__enter__()
    refused = server.post("/v1/completions", prompt="one more")
    for stream in streams:
        stream.__exit__(None, None, None)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
    until(lambda: server.metric("requests_running") == 0, what="the engine is idle again")
    assert server.post("/v1/completions", prompt="again", max_tokens=1).status_code == 200


@pytest.mark.spec("G6")
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_request(stream: bool, server: Server, until: Until) -> None:
    before = server.metric('requests_total{finish_reason="cancelled"}')
    body = json.dumps({**ENDLESS, "stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((server.http.base_url.host, server.http.base_url.port or 0)) as client:
        client.sendall(head + body)
        until(lambda: server.metric("requests_running") == 1, what="the request runs")
    until(lambda: server.metric('requests_total{finish_reason="cancelled"}') == before + 1, what="it is cancelled")
    until(lambda: server.metric("requests_running") == 0 == server.metric("kv_cache_usage_ratio"), what="blocks free")


@pytest.mark.spec("G6")
def test_a_client_that_does_not_read_holds_up_nobody(server: Server, until: Until) -> None:
    body = json.dumps({**ENDLESS, "n": 2, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect((server.http.base_url.host, server.http.base_url.port or 0))
        silent.sendall(head + body)
        until(lambda: server.metric("requests_running") == 2, what="both choices run")
        assert server.post("/v1/completions", prompt="quick", max_tokens=2).status_code == 200
    until(lambda: server.metric("requests_running") == 0, what="the engine is idle again")


# -- life of the process -----------------------------------------------------------------------------------------------


def test_health_is_503_first_and_ready_soon(tmp_path: Path, port_number: Callable[[], int], until: Until) -> None:
    server = launch(tmp_path, port_number())
    try:
        until(lambda: server.health() != 0, what="the server listens")
        first = server.http.get("/health")
        early = server.post("/v1/completions", prompt="x")
        until(lambda: server.health() == 200, within=60, what="the model is loaded")
        assert first.status_code == 503
        assert first.json()["status"] == "starting"
        assert early.status_code == 503
        assert early.headers["retry-after"]
    finally:
        end(server)


@pytest.mark.spec("R1")
def test_term_lets_answers_end_and_exits_0(tmp_path: Path, port_number: Callable[[], int], until: Until) -> None:
    server = launch(tmp_path, port_number())
    try:
        until(lambda: server.health() == 200, within=60)
        with server.http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]" or "unavailable" in rest[-1]
        assert server.process.wait(20) == 0
    finally:
        end(server)


@pytest.mark.spec("R1")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_model_that_is_loading_holds_nobody_up(
    number: signal.Signals, code: int, tmp_path: Path, port_number: Callable[[], int], until: Until
) -> None:
    server = launch(tmp_path, port_number())
    try:
        until(lambda: server.health() == 503, within=60)
        server.process.send_signal(number)
        assert server.process.wait(20) == code
        assert "ready:" not in server.log.read_text(), "it did not finish loading first"
    finally:
        end(server)


@pytest.mark.spec("R1", "X12")
def test_a_taken_port_is_said_with_its_holder(server: Server, tmp_path: Path) -> None:
    second = launch(tmp_path, server.http.base_url.port or 0)
    assert second.process.wait(30) == 1
    end(second)
    text = second.log.read_text()
    assert f"Port {server.http.base_url.port} is already in use" in text
    assert str(server.process.pid) in text
    assert "Traceback" not in text


@pytest.mark.spec("R3", "X12")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "/no/such/model"), "No model '/no/such/model' on this machine"),
        (("--max-batch-size", "0"), "--max-batch-size is wrong"),
        (("--lora", "name"), "--lora is wrong"),
        (("--backend", "abacus"), "no backend 'abacus'; known: ascend, cpu, cuda"),
    ],
)
def test_a_wrong_start_is_one_clear_message(
    options: tuple[str, str], message: str, tmp_path: Path, port_number: Callable[[], int]
) -> None:
    server = launch(tmp_path, port_number(), *options)
    assert server.process.wait(60) == 1
    end(server)
    text = server.log.read_text()
    assert f"error: {message}" in text
    assert "Traceback" not in text
