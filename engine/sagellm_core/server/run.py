"""uvicorn for one engine: a TERM lets running answers end for a while, then ends them with an error event."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from sagellm_core.server.direct import DirectProtocol
from sagellm_core.server.service import EngineService

_GRACE = 2


class DrainingServer(uvicorn.Server):
    """Stops in two steps: no new connections; after `drain_seconds` the engine ends what still runs."""

    def __init__(self, config: uvicorn.Config, service: EngineService, drain_seconds: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at once while the model loads: nothing is under way, and loading cannot be cut short otherwise."""
        if self._service.loading:
            os._exit(130 if sig == signal.SIGINT else 0)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        deadline = asyncio.create_task(self._end_answers())
        try:
            await super().shutdown(sockets)
        finally:
            deadline.cancel()

    async def _end_answers(self) -> None:
        await asyncio.sleep(self._drain_seconds)
        await self._service.engine.stop()


def server_config(app: Starlette, drain_seconds: float) -> uvicorn.Config:
    """uvicorn's settings for an engine; logging is left to the process."""
    return uvicorn.Config(
        app,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http=DirectProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(drain_seconds) + _GRACE,
    )
