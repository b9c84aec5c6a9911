"""`ModelService` against a real HTTP server that speaks the gateway's routes (SPEC S3)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sage.common.errors import ConfigError, NotRunningError, UpstreamError
from sage.core.api import LocalEnvironment
from sage.middleware.service import ModelService

pytestmark = pytest.mark.spec("S3")


class Gateway(ThreadingHTTPServer):
    """Answers embeddings with text lengths and chats with an echo; refuses the first `failures` requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures = 0
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        models = [
            {"id": "echo", "object": "model", "kind": "llm"},
            {"id": "hash", "object": "model", "kind": "embedding"},
        ]
        self._answer(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.append(self.headers["Idempotency-Key"])
        if self.server.failures > 0:
            self.server.failures -= 1
            error = {"message": "the engine is gone", "type": "upstream_error", "param": None, "code": "unavailable"}
            self._answer(502, {"error": error})
        elif self.path == "/v1/embeddings":
            data = [{"index": i, "embedding": [float(len(text))]} for i, text in enumerate(body["input"])]
            self._answer(200, {"object": "list", "data": data})
        else:
            message = {"role": "assistant", "content": body["messages"][-1]["content"].upper()}
            self._answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def service(gateway: Gateway) -> Iterator[ModelService]:
    policy = {"max_attempts": 3, "delay": "1ms"}
    service = ModelService(f"127.0.0.1:{gateway.server_port}", timeout=30000, retry_policy=policy, model="echo")
    yield service
    service.close()


def test_its_methods_stand_in_a_pipeline(service: ModelService) -> None:
    """As the documents write it: `.map(model_service.embedding)`."""
    out: list[Any] = []
    env = LocalEnvironment("models")
    texts = env.from_collection(["a", "bbb"])
    texts.map(service.embedding).sink(out.append)
    texts.map(service.chat, parallelism=2).sink(out.append, parallelism=1)
    env.submit()
    assert sorted(map(str, out)) == ["A", "BBB", "[1.0]", "[3.0]"]


def test_several_texts_go_in_one_request(service: ModelService, gateway: Gateway) -> None:
    assert service.embedding(["a", "bb"]) == [[1.0], [2.0]]
    assert len(gateway.requests) == 1


def test_parameters_go_along(service: ModelService, gateway: Gateway) -> None:
    assert service.chat([{"role": "user", "content": "hi"}], temperature=0, max_tokens=5) == "HI"
    assert gateway.requests[0]["max_tokens"] == 5


def test_what_broke_off_is_tried_again(service: ModelService, gateway: Gateway) -> None:
    gateway.failures = 2
    assert service.embedding("abc") == [3.0]
    assert len(gateway.requests) >= 3


def test_it_gives_up_in_the_end(gateway: Gateway) -> None:
    gateway.failures = 1000
    service = ModelService(f"127.0.0.1:{gateway.server_port}", retry_policy={"max_attempts": 2, "delay": 0})
    with pytest.raises(UpstreamError):
        service.embedding("abc")
    service.close()


def test_a_gateway_that_is_not_there(free_port: Any) -> None:
    service = ModelService(f"127.0.0.1:{free_port()}", retry_policy={"max_attempts": 1})
    with pytest.raises(NotRunningError):
        service.embedding("abc")
    service.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": "soon"},
        {"retry_policy": {"max_atempts": 3}},
        {"retry_policy": {"max_attempts": 0}},
        {"retry_policy": {"max_attempts": "many"}},
        {"retry_policy": {"delay": "x"}},
    ],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ModelService"):
        ModelService("localhost:8080", **wrong)


@pytest.mark.spec("K9")
class TestKeysOfCalls:
    def test_retries_of_a_chat_have_one_key_and_each_record_its_own(
        self, gateway: Gateway, service: ModelService
    ) -> None:
        gateway.failures = 1
        out: list[str] = []
        env = LocalEnvironment("keys")
        env.from_collection(["a", "b", "a"]).map(service.chat).sink(out.append)
        env.submit()
        assert out == ["A", "B", "A"]
        chats = list(dict.fromkeys(gateway.keys))
        assert len(gateway.keys) == 4
        assert len(chats) == 3
        assert None not in chats

    def test_a_restarted_job_sends_the_same_keys(self, gateway: Gateway, service: ModelService) -> None:
        failing = {"b"}

        def fails_once(text: str) -> str:
            if text.lower() in failing:
                failing.discard(text.lower())
                raise RuntimeError("once")
            return text

        env = LocalEnvironment("keys", {"restart.strategy": "fixed-delay", "restart.delay": 1})
        env.from_collection(["a", "b", "c"]).map(service.chat).map(fails_once).sink(lambda text: None)
        assert env.submit().restarts == 1
        sent = [request["messages"][-1]["content"] for request in gateway.requests]
        assert sorted(sent) == ["a", "a", "b", "b", "c"]
        assert len(set(zip(sent, gateway.keys, strict=True))) == 3

    def test_outside_of_pipelines_there_is_no_key(self, gateway: Gateway, service: ModelService) -> None:
        service.chat("a")
        assert gateway.keys == [None]

    def test_embeddings_of_a_registered_service_go_together(self, gateway: Gateway, service: ModelService) -> None:
        assert service.embedding_batch(["a", ["bb", "ccc"], []]) == [[1.0], [[2.0], [3.0]], []]
        assert len(gateway.requests) == 1
