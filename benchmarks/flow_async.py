"""Async calls in a pipeline against the same calls in a plain asyncio program: 1,000 in flight of 50 ms each.

    python -m benchmarks.flow_async

The most that 1,000 calls of 50 ms can give is 20,000 records/s. Both sides are run in turns; the best of each counts.
"""

from __future__ import annotations

import asyncio
import time

from sage.core.api import LocalEnvironment

RECORDS = 40_000
IN_FLIGHT = 1_000
SECONDS = 0.05
ROUNDS = 3


async def call(value: int) -> int:
    """A service that takes its time."""
    await asyncio.sleep(SECONDS)
    return 2 * value


def plain() -> float:
    """Records a second of a loop with a semaphore."""

    async def main() -> None:
        places, tasks = asyncio.Semaphore(IN_FLIGHT), set[asyncio.Task[None]]()
        out: list[int] = []

        async def one(value: int) -> None:
            try:
                out.append(await call(value))
            finally:
                places.release()

        for value in range(RECORDS):
            await places.acquire()
            task = asyncio.create_task(one(value))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        assert len(out) == RECORDS

    started = time.perf_counter()
    asyncio.run(main())
    return RECORDS / (time.perf_counter() - started)


def ours(*, ordered: bool) -> float:
    """Records a second of `async_map`."""
    env, out = LocalEnvironment("async"), list[int]()
    env.from_collection(range(RECORDS)).async_map(call, capacity=IN_FLIGHT, timeout="5s", ordered=ordered).sink(
        out.append
    )
    started = time.perf_counter()
    env.submit()
    elapsed = time.perf_counter() - started
    assert len(out) == RECORDS
    return RECORDS / elapsed


def main() -> None:
    """Prints one line a side."""
    best = {"plain asyncio": 0.0, "async_map, ordered": 0.0, "async_map, unordered": 0.0}
    for _ in range(ROUNDS):
        sides = (plain(), ours(ordered=True), ours(ordered=False))
        best = {name: max(known, rate) for (name, known), rate in zip(best.items(), sides, strict=True)}
    reference = best["plain asyncio"]
    for name, rate in best.items():
        print(f"{name:24} {rate:10,.0f} records/s  {rate / reference:5.2f} x")


if __name__ == "__main__":
    main()
