"""Local servers that check an embedding request as the provider documents it, and answer in the provider's shape.

A request that breaks the provider's rules gets the status and the error shape of that provider, so a test sees it.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIM = 8


@dataclass
class Request:
    """What came over the wire."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes = b""


class WrongRequestError(Exception):
    """A request that the provider would refuse."""


@dataclass
class Served:
    """A running server: its address, what it was asked, and refusals that it gives first."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    first: list[tuple[int, dict[str, str], str]] = field(default_factory=list)


def vector(text: str, length: int = DIM) -> list[float]:
    """A vector that depends on the text alone, of length 3: the client is to bring it to 1."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    numbers = np.random.default_rng(seed).normal(size=length)
    return [float(one) for one in 3 * numbers / np.linalg.norm(numbers)]


def need(condition: object, why: str) -> None:
    """Refuse the request unless the condition holds."""
    if not condition:
        raise WrongRequestError(why)


def keys_of(body: dict[str, Any], required: set[str], optional: set[str]) -> None:
    """Refuse a body that lacks a field or has one that the provider does not know."""
    need(required <= set(body), f"missing {required - set(body)}")
    need(set(body) <= required | optional, f"unknown {set(body) - required - optional}")


def texts_of(value: object, most: int) -> list[str]:
    """The texts of a request: a list of 1 to `most` strings, none of them empty."""
    need(isinstance(value, list) and all(isinstance(one, str) and one for one in value), "input: a list of texts")
    assert isinstance(value, list)
    need(1 <= len(value) <= most, f"{len(value)} texts, at most {most}")
    return value


def in_openai_shape(request: Request, texts: list[str], *, as_base64: bool = False) -> dict[str, Any]:
    length = request.body.get("dimensions", DIM)
    rows = [vector(text, length) for text in texts]
    packed: list[Any] = [base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() for row in rows]
    data = [
        {"object": "embedding", "index": index, "embedding": row}
        for index, row in enumerate(packed if as_base64 else rows)
    ]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "model": request.body["model"], "data": data[::-1], "usage": usage}


def bearer(request: Request, key: str) -> None:
    need(request.headers.get("authorization") == f"Bearer {key}", "no bearer key")
    need(request.headers.get("content-type") == "application/json", "content-type")


def openai(request: Request) -> dict[str, Any]:
    bearer(request, "sk-openai")
    need(request.path == "/v1/embeddings", request.path)
    keys_of(request.body, {"model", "input"}, {"encoding_format", "dimensions", "user"})
    need(request.body.get("encoding_format", "float") in ("float", "base64"), "encoding_format")
    texts = texts_of(request.body["input"], 2048)
    need(sum(len(text) // 4 for text in texts) <= 300_000, "300,000 tokens a request")
    return in_openai_shape(request, texts)


def jina(request: Request) -> dict[str, Any]:
    bearer(request, "sk-jina")
    need(request.path == "/v1/embeddings", request.path)
    optional = {"task", "dimensions", "embedding_type", "normalized", "late_chunking", "truncate"}
    keys_of(request.body, {"model", "input"}, optional)
    need(request.body.get("embedding_type", "float") == "float", "embedding_type")
    need(isinstance(request.body.get("normalized", True), bool), "normalized")
    return in_openai_shape(request, texts_of(request.body["input"], 512))


def zhipu(request: Request) -> dict[str, Any]:
    bearer(request, "id.secret")
    need(request.path == "/api/paas/v4/embeddings", request.path)
    keys_of(request.body, {"model", "input"}, {"dimensions"})
    need(request.body["model"] in ("embedding-3", "embedding-2"), "model")
    need(request.body.get("dimensions", 256) in (256, 512, 1024, 2048), "dimensions")
    return in_openai_shape(request, texts_of(request.body["input"], 64))


def siliconcloud(request: Request) -> dict[str, Any]:
    bearer(request, "sk-silicon")
    need(request.path == "/v1/embeddings", request.path)
    keys_of(request.body, {"model", "input"}, {"encoding_format", "dimensions"})
    need("dimensions" not in request.body or "Qwen3" in request.body["model"], "dimensions: Qwen3 only")
    return in_openai_shape(request, texts_of(request.body["input"], 32), as_base64=True)


def nvidia_openai(request: Request) -> dict[str, Any]:
    bearer(request, "nvapi-x")
    need(request.path == "/v1/embeddings", request.path)
    keys_of(request.body, {"model", "input", "input_type"}, {"encoding_format", "truncate", "dimensions", "user"})
    need(request.body["input_type"] in ("query", "passage"), "input_type")
    need(request.body.get("truncate", "NONE") in ("NONE", "START", "END"), "truncate")
    return in_openai_shape(request, texts_of(request.body["input"], 50))


def cohere(request: Request) -> dict[str, Any]:
    bearer(request, "sk-cohere")
    need(request.path == "/v2/embed", request.path)
    keys_of(request.body, {"model", "texts", "input_type", "embedding_types"}, {"truncate", "output_dimension"})
    need(request.body["embedding_types"] == ["float"], "embedding_types")
    need(request.body["input_type"] in ("search_document", "search_query", "classification", "clustering"), "input")
    texts = texts_of(request.body["texts"], 96)
    vectors = [vector(text, request.body.get("output_dimension", DIM)) for text in texts]
    return {"id": "1", "embeddings": {"float": vectors}, "texts": texts, "meta": {"billed_units": {"input_tokens": 3}}}


def ollama(request: Request) -> dict[str, Any]:
    need("authorization" not in request.headers, "Ollama on this machine knows no key")
    need(request.path == "/api/embed", request.path)
    keys_of(request.body, {"model", "input"}, {"truncate", "options", "keep_alive", "dimensions"})
    texts = texts_of(request.body["input"], 10_000)
    return {"model": request.body["model"], "embeddings": [vector(text) for text in texts], "prompt_eval_count": 8}


CHECKS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "openai": openai,
    "jina": jina,
    "zhipu": zhipu,
    "siliconcloud": siliconcloud,
    "nvidia_openai": nvidia_openai,
    "cohere": cohere,
    "ollama": ollama,
}

KEYS = {
    "openai": ("OPENAI_API_KEY", "sk-openai"),
    "jina": ("JINA_API_KEY", "sk-jina"),
    "zhipu": ("ZHIPUAI_API_KEY", "id.secret"),
    "siliconcloud": ("SILICONFLOW_API_KEY", "sk-silicon"),
    "nvidia_openai": ("NVIDIA_API_KEY", "nvapi-x"),
    "cohere": ("CO_API_KEY", "sk-cohere"),
}

BASES = {"zhipu": "/api/paas/v4", "cohere": "", "ollama": ""}


@contextmanager
def serving(check: Callable[[Request], dict[str, Any]]) -> Iterator[Served]:
    """A server on a free port of this machine that answers every POST by `check`, and GET /api/tags as Ollama does."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, json.loads(raw), raw)
            served.requests.append(request)
            if served.first:
                self.answer(*served.first.pop(0))
                return
            try:
                self.answer(200, {}, json.dumps(check(request)))
            except WrongRequestError as wrong:
                self.answer(400, {}, json.dumps({"error": {"message": str(wrong)}}))

        def do_GET(self) -> None:
            self.answer(200, {}, json.dumps({"models": [{"name": "nomic-embed-text:latest"}]}))

        def answer(self, status: int, headers: dict[str, str], body: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
