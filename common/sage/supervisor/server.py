"""The supervisor's process: control socket and signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from sage.common.errors import SageError, UsageError
from sage.common.home import SageHome
from sage.common.logs import get_logger
from sage.supervisor import wire
from sage.supervisor.policy import Tuning
from sage.supervisor.spec import DaemonSpec
from sage.supervisor.supervisor import Supervisor

__all__ = ["serve"]

_DRAIN_S = 2.0
_log = get_logger("sage.supervisor")


async def serve(home: SageHome, on_ready: Callable[[], None], tuning: Tuning | None = None) -> None:
    """Supervise until told to end. The caller holds the lock."""
    supervisor = Supervisor(home, tuning)
    loop = asyncio.get_running_loop()
    ended_by: list[str] = []

    def end(name: str) -> None:
        ended_by.append(name)
        supervisor.done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    wire.check_socket_folder(home, make=True)
    home.socket.unlink(missing_ok=True)  # we hold the lock: whoever made it is dead
    supervisor.take_over()
    server = await asyncio.start_unix_server(_Connections(supervisor), str(home.socket), limit=wire.LINE_LIMIT)
    home.socket.chmod(0o600)
    _log.info("supervisor is up", home=str(home.root), pid=os.getpid())
    on_ready()
    try:
        await supervisor.done.wait()
        _log.info("supervisor ends", by=ended_by[0] if ended_by else "request")
    finally:
        server.close()
        if not supervisor.leave_daemons:
            home.socket.unlink(missing_ok=True)
        await supervisor.close(stop_daemons=not supervisor.leave_daemons)
        await _drained(supervisor)


async def _drained(supervisor: Supervisor) -> None:
    """Give the answers that are under way a moment to get out."""
    deadline = time.monotonic() + _DRAIN_S
    while supervisor.clients and time.monotonic() < deadline:  # noqa: ASYNC110 - at most two seconds, once
        await asyncio.sleep(0.01)


class _Connections:
    """Answers the clients of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._supervisor.clients += 1
        try:
            line = await reader.readline()
            if line:
                await self._answer(line, writer)
        except (ConnectionError, ValueError) as error:  # the client went away, or its line is beyond the limit
            _log.debug("client lost", error=str(error))
        finally:
            self._supervisor.clients -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = _request(line)
            answer = await self._act(request, writer)
        except ConnectionError:
            raise
        except SageError as error:
            answer = {"ok": False, "error": error.to_dict()}
        except Exception as error:  # a fault of ours: the client hears of it, the supervisor lives on
            _log.error("request failed", exc_info=True)
            answer = {
                "ok": False,
                "error": {"code": "SAGE-R001", "title": "The supervisor failed", "cause": repr(error)},
            }
        await _send(writer, answer)

    async def _act(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        supervisor, op = self._supervisor, request["op"]
        names = request.get("names")
        if op == "ping":
            return {"ok": True, "pid": os.getpid(), "version": wire.VERSION}
        if op == "status":
            return _done(supervisor, None)
        if op == "start":
            specs = [DaemonSpec.from_dict(spec) for spec in request.get("specs", ())]
            environ = request.get("environ")
            await supervisor.start(
                specs, replace=bool(request.get("replace")), notes=request.get("notes") or (), environ=environ
            )
            return await self._settled([spec.name for spec in specs], request, writer)
        if op == "restart":
            return await self._settled(await supervisor.restart(names), request, writer)
        if op == "stop":
            stopped = await supervisor.stop(names)
            return {"ok": True, "daemons": [status.to_dict() for status in stopped]}
        if op == "shutdown":
            supervisor.done.set()
            return _done(supervisor, None)
        raise UsageError(f"The supervisor knows no {op!r}")

    async def _settled(self, names: list[str], request: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        if request.get("wait", True):
            async with contextlib.aclosing(self._supervisor.settle(names)) as changes:
                async for status in changes:
                    await _send(writer, {"event": "daemon", "daemon": status.to_dict()})
        return _done(self._supervisor, names)


def _done(supervisor: Supervisor, names: list[str] | None) -> dict[str, Any]:
    return {
        "ok": True,
        "pid": os.getpid(),
        "daemons": [status.to_dict() for status in supervisor.statuses(names)],
        "notes": supervisor.notes,
    }


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise UsageError("The request is no JSON", cause=str(error)) from error
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise UsageError("The request names no operation")
    if request.get("version") != wire.VERSION and request["op"] not in wire.ANY_VERSION:
        raise UsageError(
            "This supervisor is of another version of SAGE",
            cause=f"it speaks version {wire.VERSION}, the command speaks {request.get('version')!r}",
            hint="Stop the stack and start it again:  sage llm stop && sage llm serve",
        )
    return request


async def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()
