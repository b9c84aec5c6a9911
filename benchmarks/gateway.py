"""What the gateway costs: the same embedding requests through it and straight to the server behind it (SPEC G2)."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import httpx

from benchmarks.measure import Comparison, compare

REQUESTS = 300
BODY = {"model": "hash", "input": "Which port does the gateway use?"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(home: str, module: str, *options: str) -> Iterator[str]:
    """``python -m module`` on a free port, ready; stopped at the end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(port), *options]
    process = subprocess.Popen(argv, env=os.environ | {"SAGE_HOME": home}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                    break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def run() -> list[Comparison]:
    """One client, requests one after another, kept-alive connections on both sides."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server(str(pathlib.Path(folder) / ".sage"), "sage.llm.embedding") as upstream,
        server(str(pathlib.Path(folder) / ".sage"), "sage.llm.gateway", "--embedding", upstream) as gateway,
        httpx.Client() as client,
    ):

        def post(url: str) -> None:
            for _ in range(REQUESTS):
                client.post(f"{url}/v1/embeddings", json=BODY).raise_for_status()

        return [
            compare(
                "gateway: embedding requests, one client",
                lambda: post(gateway),
                lambda: post(upstream),
                peer_name="straight to the embedding server",
                unit="requests",
                units=REQUESTS,
            )
        ]
