"""The admission queue under every policy: places and tokens are never lost, and the queue is bounded."""

import asyncio
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sage.llm.control_plane import AdmissionQueue, QueueFull
from sage.llm.control_plane.strategies import Ticket, create_policy, policy_names

Admitted = tuple[float, Ticket]


@pytest.mark.spec("G3")
@pytest.mark.parametrize("name", policy_names())
@given(st.lists(st.sampled_from(["enter", "enter", "leave", "cancel", "switch"]), max_size=40))
@example(["enter", "enter", "enter", "cancel", "leave", "enter"])
@example(["enter", "enter", "enter", "enter", "leave", "cancel", "switch", "leave"])
def test_places_are_never_lost(name: str, steps: list[str]) -> None:
    async def play() -> None:
        queue = AdmissionQueue(2, 3, policy=create_policy(name, time.monotonic))
        inside: list[Admitted] = []
        tasks: list[asyncio.Task[Admitted]] = []

        async def enter(number: int) -> Admitted:
            ticket = Ticket(key=str(number % 3), tokens=number + 1, priority=number % 2)
            return await queue.acquire(ticket), ticket

        for number, step in enumerate(steps):
            if step == "enter" and queue.waiting < 3:
                tasks.append(asyncio.create_task(enter(number)))
            elif step == "enter":
                with pytest.raises(QueueFull):
                    await enter(number)
            elif step == "leave" and inside:
                queue.release(*inside.pop())
            elif step == "cancel" and tasks:
                tasks.pop().cancel()
            elif step == "switch":
                queue.use(create_policy(policy_names()[number % len(policy_names())], time.monotonic))
            if step != "cancel":
                await asyncio.sleep(0)  # a cancel may meet an admission of the same moment
            inside += [task.result() for task in tasks if task.done() and not task.cancelled()]
            tasks = [task for task in tasks if not task.done()]
            assert queue.running <= 2
            assert queue.waiting <= 3
        for task in tasks:
            task.cancel()
        inside += [one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, tuple)]
        for admitted in inside:
            queue.release(*admitted)
        await asyncio.sleep(0)
        assert queue.outstanding == queue.outstanding_tokens == len(queue.policy) == 0

    asyncio.run(play())
