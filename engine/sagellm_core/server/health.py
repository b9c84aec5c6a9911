"""Whether the model really computes, told without standing in anybody's way.

Steps that end are proof enough. Only an engine that has been idle is asked for one token, at the lowest priority; it
takes one step, leaves nothing in the prefix cache, and is counted in no histogram.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from uuid import uuid4

from sagellm_core.errors import EngineError
from sagellm_core.llm_engine import LLMEngine
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.messages import Request
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

_LOWEST = -(1 << 31)


class Pulse:
    """Feels whether an engine's steps end.

    Proof of life is good for `fresh_seconds`. A busy engine none of whose steps has ended for `stall_seconds` is ill;
    so is an idle one that does not answer within `patience_seconds`. `clock` returns seconds.
    """

    def __init__(
        self,
        engine: LLMEngine,
        *,
        fresh_seconds: float = 15.0,
        stall_seconds: float = 120.0,
        patience_seconds: float = 10.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._engine = engine
        self._fresh = fresh_seconds
        self._stall = stall_seconds
        self._patience = patience_seconds
        self._clock = clock
        self._steps = 0
        self._alive_at = float("-inf")
        self._busy_since: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def fault(self) -> str | None:
        """What is wrong with the engine, None for nothing."""
        now = self._clock()
        stats = self._engine.stats
        if stats.steps > self._steps:
            self._steps, self._alive_at, self._busy_since = stats.steps, now, None
        if now - self._alive_at < self._fresh:
            return None
        if self._asking is None and stats.running + stats.waiting:
            self._busy_since = self._busy_since or now
            stalled = now - self._busy_since
            return f"no step has ended for {stalled:.0f} s" if stalled > self._stall else None
        self._busy_since = None
        return await self._ask()

    async def _ask(self) -> str | None:
        """One token, or what is said in its place; who asks meanwhile waits for the same one."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._one_token())
            self._asking.add_done_callback(self._asked)
        try:
            await asyncio.wait_for(asyncio.shield(self._asking), self._patience)
        except TimeoutError:
            return f"the model gave no token within {self._patience:g} s"
        except EngineError as error:
            return str(error)
        return None

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is None:
            self._alive_at, self._steps = self._clock(), self._engine.stats.steps

    async def _one_token(self) -> None:
        params = SamplingParams(strategy=DecodingStrategy.GREEDY, max_tokens=1, ignore_eos=True)
        request = Request(request_id=f"health-{uuid4().hex}", prompt=[0], sampling_params=params, priority=_LOWEST)
        try:
            await self._engine.complete(request)
        except EngineError as error:
            if error.error_code is not ErrorCode.RESOURCE_EXHAUSTED:  # full: others keep it busy
                raise
