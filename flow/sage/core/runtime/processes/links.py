"""Channels between subtasks of different worker processes.

All channels between two workers share one socket. A sender may have `channel.capacity` batches on their way to a gate:
what the receiving task has taken comes back as credit (credit-based flow control, as in Flink's network stack), with
how many records it can digest at once. The thread that reads the socket puts everything into its gate at once, so no
channel ever waits for another, and barriers pass batches for which a slow task has no time yet.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Mapping

from sage.core.runtime.bell import Bell
from sage.core.runtime.channel import InputGate
from sage.core.runtime.events import Batch, Item, JobAborted
from sage.core.runtime.local.gates import GateInput
from sage.core.runtime.processes.frames import Connection, Frame, FrameKind, packed, unpacked

__all__ = ["CreditInput", "Link", "RemoteGate"]

_CREDIT = struct.Struct("<II")


class _Channel:
    """From one subtask here to one elsewhere. `sent` is the sender's thread's, `returned` the link's."""

    __slots__ = ("credit", "returned", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.returned = 0
        self.credit = Bell()


class RemoteGate:
    """The gate of a subtask in another worker, as the senders in this one see it (a `Receiver`)."""

    def __init__(self, number: int, link: Link, capacity: int, aborted: threading.Event) -> None:
        self.preferred = 1
        self._number = number
        self._link = link
        self._capacity = capacity
        self._aborted = aborted
        self._channels: dict[int, _Channel] = {}

    def open(self, sender: int) -> None:
        """A subtask of this worker sends on that channel."""
        self._channels[sender] = _Channel()

    def put(self, sender: int, item: Item, *, force: bool = False) -> float:
        """See Receiver. Raises JobAborted, also when the other process is gone."""
        waited = 0.0
        if isinstance(item, Batch):
            channel = self._channels[sender]
            if channel.sent - channel.returned >= self._capacity and not force:
                waited = self._wait(channel)
            channel.sent += 1
        if self._aborted.is_set():
            raise JobAborted
        self._link.put(self._number, sender, item)
        return waited

    def credit(self, sender: int, count: int, preferred: int) -> None:
        """The receiver has taken `count` batches."""
        self.preferred = preferred
        channel = self._channels[sender]
        channel.returned += count
        channel.credit.ring()

    def wake(self) -> None:
        """Whoever waits here looks whether the job was aborted."""
        for channel in self._channels.values():
            channel.credit.ring()

    def _wait(self, channel: _Channel) -> float:
        started = time.monotonic()
        while channel.sent - channel.returned >= self._capacity and not self._is_over:
            channel.credit.arm()
            if channel.sent - channel.returned >= self._capacity and not self._is_over:
                channel.credit.sleep()
            else:
                channel.credit.disarm()
        return time.monotonic() - started

    @property
    def _is_over(self) -> bool:
        return self._aborted.is_set() or self._link.is_broken


class CreditInput(GateInput):
    """A gate that has senders in other workers: gives them credit for what was taken."""

    def __init__(self, gate: InputGate, number: int, senders: Mapping[int, Link], capacity: int) -> None:
        super().__init__(gate)
        self._number = number
        self._senders = [(sender, link) for sender, link in senders.items()]
        self._given = dict.fromkeys(senders, 0)
        self._least = max(1, capacity // 2)

    def take(self, limit: int, timeout: float | None) -> tuple[int, Item] | None:
        """See TaskInput."""
        taken = super().take(limit, timeout)
        gate = self._gate
        for sender, link in self._senders:
            owed = gate.taken[sender] - self._given[sender]
            if owed >= self._least:
                self._given[sender] += owed
                link.credit(self._number, sender, owed, gate.preferred)
        return taken


class Link:
    """This worker's end of its connection with another one. `run` is for a thread of its own.

    `on_error` is called with what cannot be read: a class whose objects cannot be made there.
    """

    def __init__(self, connection: Connection, on_error: Callable[[Exception], None]) -> None:
        self.is_broken = False
        self.receivers: dict[int, RemoteGate] = {}  # there, by number
        self._connection = connection
        self._on_error = on_error

    def put(self, gate: int, sender: int, item: Item) -> None:
        """Send an item to a gate there. Raises JobAborted when the other process is gone."""
        if isinstance(item, Batch):
            kind, (body, buffers) = FrameKind.BATCH, packed((item.records, item.timestamps, item.trace))
        else:
            kind, (body, buffers) = FrameKind.EVENT, packed(item)
        try:
            self._connection.send(kind, body, buffers, gate=gate, channel=sender)
        except OSError:
            raise JobAborted from None

    def credit(self, gate: int, sender: int, count: int, preferred: int) -> None:
        """A gate here has taken batches of a sender there, which may have ended meanwhile."""
        try:
            self._connection.send(FrameKind.CREDIT, _CREDIT.pack(count, preferred), gate=gate, channel=sender)
        except OSError:
            pass

    def run(self, gates: Mapping[int, InputGate]) -> None:
        """Hand on what comes, until the other process ends or closes."""
        while True:
            frame = self._connection.receive()
            if frame is None:
                break
            try:
                self._deliver(frame, gates)
            except JobAborted:  # read on, so that nobody there waits for this socket
                continue
            except Exception as error:
                self._on_error(error)
        self.is_broken = True
        for receiver in self.receivers.values():
            receiver.wake()

    def close(self) -> None:
        """The job has ended."""
        self._connection.close()

    def _deliver(self, frame: Frame, gates: Mapping[int, InputGate]) -> None:
        if frame.kind == FrameKind.CREDIT:
            self.receivers[frame.gate].credit(frame.channel, *_CREDIT.unpack(frame.body))
        elif frame.kind == FrameKind.BATCH:
            batch = Batch(*unpacked(frame.body, frame.buffers))
            gates[frame.gate].put(frame.channel, batch, force=True)
        else:
            gates[frame.gate].put(frame.channel, unpacked(frame.body), force=True)
