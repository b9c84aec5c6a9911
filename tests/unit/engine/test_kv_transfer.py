"""Blocks between two processes' caches, over real sockets: contents, flow control, strangers, broken ends (SPEC E6)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from sagellm_core.errors import EngineError
from sagellm_core.kv_transfer import Arrival, KVAddress, KVForm, KVReceiver, KVTransferChannel
from sagellm_protocol import ErrorCode

pytestmark = pytest.mark.spec("E6")
FORM = KVForm("float32[1, 2]", 16, 1000)
WITHIN_S = 20.0


class Sender:
    """A channel whose callbacks end up in queues."""

    def __init__(self, address: KVAddress, *, form: KVForm = FORM, token: str = "t", transport: str = "auto") -> None:
        self.freed: Queue[str] = Queue()
        self.broken: Queue[EngineError] = Queue()
        self.channel = KVTransferChannel(
            address,
            form,
            token,
            transport=transport,
            slots=3,
            slot_bytes=2500,
            on_free=self.freed.put,
            on_broken=self.broken.put,
        )
        self.channel.open()


@pytest.fixture
def arrivals() -> Queue[Arrival]:
    return Queue()


@pytest.fixture
def receiver(arrivals: Queue[Arrival]) -> Iterator[KVReceiver]:
    receiver = KVReceiver(FORM, "t", arrivals.put)
    yield receiver
    receiver.close()


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_blocks_arrive_whole_and_in_order_and_slots_bound_what_is_under_way(
    transport: str, receiver: KVReceiver, arrivals: Queue[Arrival]
) -> None:
    sender = Sender(receiver.address, transport=transport)
    assert sender.channel.shared is (transport == "shm")
    assert sender.freed.get(timeout=WITHIN_S) == ""
    channel = sender.channel
    assert channel.blocks_per_slot == 2
    sent = [bytes([number]) * 2000 for number in range(9)]
    got: list[tuple[str, int, int, int, bytes]] = []
    for number, content in enumerate(sent):
        if not channel.num_free:
            arrival = arrivals.get(timeout=WITHIN_S)
            assert channel.num_free == 0, "a slot is free only when the receiver has said so"
            got.append((arrival.transfer, arrival.first, arrival.count, arrival.cached, bytes(arrival.content)))
            arrival.done()
            assert sender.freed.get(timeout=WITHIN_S) == "x"
        channel.send("x", 2 * number, 2, content, cached=number % 3)
    while len(got) < len(sent):
        arrival = arrivals.get(timeout=WITHIN_S)
        got.append((arrival.transfer, arrival.first, arrival.count, arrival.cached, bytes(arrival.content)))
        arrival.done()
    assert got == [("x", 2 * number, 2, number % 3, content) for number, content in enumerate(sent)]
    channel.close()
    assert sender.broken.empty()


@pytest.mark.parametrize(
    ("form", "token", "message"),
    [(FORM, "guess", "does not belong"), (KVForm("float16[1, 2]", 16, 1000), "t", "another form")],
    ids=["another token", "another form"],
)
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_strangers_and_other_forms_are_refused(
    form: KVForm, token: str, message: str, transport: str, receiver: KVReceiver
) -> None:
    sender = Sender(receiver.address, form=form, token=token, transport=transport)
    error = sender.broken.get(timeout=WITHIN_S)
    assert error.error_code is ErrorCode.KV_TRANSFER_FAILED
    assert message in str(error)
    assert sender.channel.num_free == 0


def test_a_receiver_that_goes_away_breaks_the_channel_once(receiver: KVReceiver, arrivals: Queue[Arrival]) -> None:
    sender = Sender(receiver.address)
    assert sender.freed.get(timeout=WITHIN_S) == ""
    sender.channel.send("x", 0, 1, b"a" * 1000)
    arrivals.get(timeout=WITHIN_S)
    receiver.close()
    assert sender.broken.get(timeout=WITHIN_S).error_code is ErrorCode.KV_TRANSFER_FAILED
    sender.channel.close()
    assert sender.broken.empty()
    late = Sender(receiver.address, transport="tcp")
    assert late.broken.get(timeout=WITHIN_S).error_code is ErrorCode.KV_TRANSFER_FAILED


def test_shared_memory_is_for_processes_of_one_host(receiver: KVReceiver) -> None:
    here = receiver.address
    elsewhere = KVAddress(here.host, here.port, here.path, "another machine")
    with pytest.raises(EngineError, match="another host"):
        Sender(elsewhere, transport="shm")
    assert not Sender(elsewhere).channel.shared
    receiver.close()
    assert not Path(here.path).parent.exists()


def test_a_receiver_that_closes_leaves_no_thread(until: Callable[..., None]) -> None:
    before = set(threading.enumerate())
    receiver = KVReceiver(FORM, "t", lambda _: None)
    sender = Sender(receiver.address)
    assert sender.freed.get(timeout=WITHIN_S) == ""
    sender.channel.close()
    receiver.close()
    until(lambda: set(threading.enumerate()) <= before, what="all threads end")
