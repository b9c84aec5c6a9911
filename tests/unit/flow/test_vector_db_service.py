"""`VectorDBService` against a real HTTP server that speaks Qdrant's query route (SPEC S3)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sage.common.errors import ConfigError, NotRunningError, UpstreamError
from sage.core.api import LocalEnvironment
from sage.middleware.service import VectorDBService

pytestmark = pytest.mark.spec("S3")


class Database(ThreadingHTTPServer):
    """Two points; answers with the nearest by inner product."""

    daemon_threads = True
    points = ((1, [1.0, 0.0], {"text": "tea"}), ("two", [0.0, 1.0], None))

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, Any], str | None]] = []
        self.answer: bytes | None = None


class Handler(BaseHTTPRequestHandler):
    server: Database
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body, self.headers.get("api-key")))
        if self.path != "/collections/my%20docs/points/query":
            self._answer(404, b'{"status": {"error": "Not found: Collection"}}')
            return
        scored = [
            {"id": key, "version": 1, "score": sum(a * b for a, b in zip(vector, body["query"], strict=True))}
            | ({} if payload is None else {"payload": payload})
            for key, vector, payload in self.server.points
        ]
        best = sorted(scored, key=lambda point: -point["score"])[: body["limit"]]
        self._answer(200, self.server.answer or json.dumps({"result": {"points": best}, "status": "ok"}).encode())

    def _answer(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def database() -> Iterator[Database]:
    server = Database()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def service(database: Database) -> Iterator[VectorDBService]:
    made = VectorDBService(host="127.0.0.1", port=database.server_port, collection="my docs", api_key="secret")
    try:
        yield made
    finally:
        made.close()


def test_the_nearest_come_first(service: VectorDBService, database: Database) -> None:
    assert service.retrieve([0.9, 0.4]) == [
        {"id": 1, "score": 0.9, "payload": {"text": "tea"}},
        {"id": "two", "score": 0.4, "payload": {}},
    ]
    assert database.requests[0][2] == "secret"


def test_how_many_and_which(service: VectorDBService, database: Database) -> None:
    wanted = {"must": [{"key": "lang", "match": {"value": "en"}}]}
    assert len(service.retrieve([1, 0], top_k=1, query_filter=wanted)) == 1
    assert database.requests[0][1] == {"query": [1.0, 0.0], "limit": 1, "with_payload": True, "filter": wanted}


def test_as_an_operator(service: VectorDBService) -> None:
    out: list[Any] = []
    env = LocalEnvironment("vectors")
    env.from_collection([[1.0, 0.0], [0.0, 1.0]]).map(service.retrieve).map(lambda hits: hits[0]["id"]).sink(out.append)
    env.submit()
    assert out == [1, "two"]


def test_a_collection_that_is_not_there(database: Database) -> None:
    service = VectorDBService(host="127.0.0.1", port=database.server_port, collection="other")
    with pytest.raises(UpstreamError, match="404") as caught:
        service.retrieve([1.0])
    assert "Not found" in str(caught.value)
    service.close()


@pytest.mark.parametrize("answer", [b"no json", b"{}", b'{"result": {"points": [{"id": 1}]}}', b"[]"])
def test_an_answer_that_makes_no_sense(service: VectorDBService, database: Database, answer: bytes) -> None:
    database.answer = answer
    with pytest.raises(UpstreamError):
        service.retrieve([1.0, 0.0])


def test_no_server() -> None:
    service = VectorDBService(host="127.0.0.1", port=9)
    with pytest.raises(NotRunningError, match="No vector database answers"):
        service.retrieve([1.0])
    service.close()


@pytest.mark.parametrize("options", [{"timeout": "soon"}, {"host": ""}, {"collection": ""}, {"top_k": 0}])
def test_wrong_settings(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        VectorDBService(**options)
