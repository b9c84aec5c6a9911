"""Real processes for the gateway's tests: the gateway itself, and upstream servers that behave as a test tells them."""

import asyncio
import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

Handler = Callable[["Exchange"], Awaitable[None]]


@dataclass(slots=True)
class Exchange:
    """One request that an upstream got, and the means to answer it byte by byte."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, value: object, *, kind: str = "application/json", extra: str = "") -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        await self.raw(head.encode() + body)

    async def begin_stream(self) -> None:
        await self.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, value: object) -> None:
        await self.chunk(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    async def end_stream(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def die(self) -> None:
        """Drop the connection without a farewell, as a killed process does."""
        self.writer.transport.abort()

    async def until_left(self) -> None:
        """Return when the other side closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()


@dataclass(slots=True)
class Upstream:
    """A server on a port of its own. `on[path]` handles a path; `seen` holds the requests to inference routes."""

    model: str
    on: dict[str, Handler] = field(default_factory=dict)
    seen: list[Exchange] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    port: int = 0
    healthy: bool = True
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                continue
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        exchange = Exchange(method, path, headers, body, reader, writer)
        if path in self.on:
            self.seen.append(exchange)
            await self.on[path](exchange)
        elif path == "/health":
            await exchange.answer(200 if self.healthy else 503, {"status": "ok"})
        elif path == "/v1/models":
            await exchange.answer(200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        else:
            await exchange.answer(404, {"detail": "Not Found"})
        return not writer.is_closing()

    async def hang(self, exchange: Exchange) -> None:
        """A handler that works until the other side leaves, and records that it did."""
        await exchange.until_left()
        self.left.append(exchange.path)


@pytest.fixture
async def upstream() -> AsyncIterator[Callable[..., Awaitable[Upstream]]]:
    """A function that starts an upstream server: `await upstream("model-name")`."""
    started: list[Upstream] = []

    async def start(model: str = "tiny") -> Upstream:
        server = Upstream(model)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@dataclass(slots=True)
class Daemon:
    """A process of ours that serves HTTP."""

    process: asyncio.subprocess.Process
    url: str
    ready_seconds: float


async def _answering(session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.returncode is None, "the daemon ended instead of serving"
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as response:
                if response.status == 200:
                    return
        assert time.monotonic() < deadline, f"{url} is not well after 30 s"
        await asyncio.sleep(0.02)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """A function that polls what other processes do: `await eventually(lambda: ...)`."""

    async def poll(true: Callable[[], Any], what: str = "") -> None:
        for _ in range(1000):
            if true():
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"not within 10 s: {what}")

    return poll


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client that is not ours."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
async def daemon(
    http: aiohttp.ClientSession, free_port: Callable[[], int], tmp_path: pathlib.Path
) -> AsyncIterator[Callable[..., Awaitable[Daemon]]]:
    """A function that starts `python -m MODULE --port P ARGS...` and waits until `probe` answers 200."""
    running: list[asyncio.subprocess.Process] = []

    async def start(module: str, *args: str, probe: str = "/health", home: pathlib.Path | None = None) -> Daemon:
        port = free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SAGE_", "HF_", "OPENAI_"))}
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, "--port", str(port), *args, env=env | {"SAGE_HOME": str(home or tmp_path)}
        )
        running.append(process)
        url = f"http://127.0.0.1:{port}"
        await _answering(http, url + probe, process)
        return Daemon(process, url, time.perf_counter() - began)

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def gateway(daemon: Callable[..., Awaitable[Daemon]]) -> Callable[..., Awaitable[Daemon]]:
    """A function that starts a gateway in front of upstreams: `await gateway(engine, embeddings=[...])`."""

    async def start(*engines: Upstream, embeddings: tuple[Upstream, ...] = (), args: tuple[str, ...] = ()) -> Daemon:
        options = [option for one in engines for option in ("--engine", one.url)]
        options += [option for one in embeddings for option in ("--embedding", one.url)]
        return await daemon("sage.llm.gateway", *options, *args, probe="/ready")

    return start
