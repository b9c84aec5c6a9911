"""What the tests of observability share."""

from collections.abc import Iterator

import pytest

from sage.core.runtime import session


@pytest.fixture(autouse=True)
def ended(nowhere: None) -> Iterator[None]:
    """A job that a failed test has left paused is aborted."""
    running = session.Session(keeps=True)
    with session.use(running):
        yield
    for job in running.jobs:
        if job.ended_at is None:
            job.abort()
