"""One look at a daemon's /health over HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

from sage.supervisor.policy import Probe

__all__ = ["Health", "look", "parse"]

_LIMIT = 64 * 1024


class Health(NamedTuple):
    probe: Probe
    reason: str = ""


async def look(host: str, port: int, path: str, timeout_s: float) -> Health:
    """Ask once. Never raises; silence and nonsense are `Probe.SILENT` with the reason."""
    try:
        async with asyncio.timeout(timeout_s):
            return parse(await _get(host, port, path))
    except TimeoutError:
        return Health(Probe.SILENT, f"no answer from {path} within {timeout_s:g} s")
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        return Health(Probe.SILENT, f"no answer from {path}: {error}")


async def _get(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, limit=_LIMIT)
    try:
        name = f"[{host}]" if ":" in host else host
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return await _until_closed(reader)
    finally:
        writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while len(data) < _LIMIT:
        block = await reader.read(_LIMIT)
        if not block:
            break
        data += block
        if _complete(data):
            break
    return data


def _complete(data: bytes) -> bool:
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return False


def parse(answer: bytes) -> Health:
    """A whole HTTP answer: 200 is ok; 503 says in its JSON body whether it is starting or unhealthy."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Health(Probe.SILENT, "the answer is not HTTP")
    code = int(words[1])
    if code == 200:
        return Health(Probe.OK)
    status, reason = _body(body)
    text = reason or f"/health answers {code}"
    return Health(Probe.SICK if status == "unhealthy" or code == 500 else Probe.NOT_READY, text)


def _body(body: bytes) -> tuple[str, str]:
    start, end = body.find(b"{"), body.rfind(b"}")  # also inside chunked encoding
    try:
        content = json.loads(body[start : end + 1]) if start >= 0 else {}
    except ValueError:
        return "", ""
    return str(content.get("status") or ""), str(content.get("reason") or "")
