"""A worker's place among ranks, and what becomes of exchanges that fail (SPEC E5)."""

from __future__ import annotations

import pytest
import torch

from sagellm_core.comm import ALONE, Place, SingleProcess, SingleStage, Stage
from sagellm_core.comm.distributed import Traffic, exchange
from sagellm_core.errors import EngineError
from sagellm_protocol import ErrorCode

pytestmark = pytest.mark.spec("E5")


class Middle(SingleStage):
    """The second of three stages."""

    index = 1
    count = 3


class Last(SingleStage):
    index = 2
    count = 3


class Second(SingleProcess):
    rank = 1
    size = 2


def test_one_process_is_all_at_once() -> None:
    x = torch.ones(2, 3)
    assert (ALONE.is_first, ALONE.is_last, ALONE.answers, ALONE.alone) == (True,) * 4
    assert ALONE.least(7) == 7
    assert ALONE.group.all_reduce(x) is ALONE.group.all_gather(x) is x
    with pytest.raises(AssertionError):
        ALONE.stage.send(x)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place(SingleProcess(), Middle()), (False, False, False)),
        (Place(SingleProcess(), Last()), (False, True, True)),
        (Place(Second(), Last()), (False, True, False)),
        (Place(Second(), SingleStage()), (True, True, False)),
    ],
    ids=["middle", "last", "last, second share", "second share"],
)
def test_one_rank_of_the_last_stage_answers_for_all(place: Place, expected: tuple[bool, bool, bool]) -> None:
    stage: Stage = place.stage
    assert (place.is_first, place.is_last, place.answers) == expected
    assert stage.count in (1, 3)
    assert not place.alone


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Timed out waiting 1000ms for recv operation to complete", ErrorCode.COMM_TIMEOUT),
        ("Connection closed by peer [127.0.0.1]:1", ErrorCode.DISTRIBUTED_RUNTIME_ERROR),
    ],
)
def test_a_failed_exchange_says_what_it_was(message: str, code: ErrorCode) -> None:
    traffic = Traffic()
    with exchange(traffic):
        pass
    assert traffic.seconds > 0
    with pytest.raises(EngineError, match="other ranks") as caught, exchange(traffic):
        raise RuntimeError(message)
    assert caught.value.error_code is code
    assert message in str(caught.value)
