"""What the two ends of a transfer say to each other, and how a sender finds a receiver."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sagellm_core.wire import Fault


class KVAddress(msgspec.Struct, frozen=True):
    """Where a receiver listens: TCP for everyone, a socket file for processes of the same host."""

    host: str
    port: int
    path: str = ""
    machine: str = ""


class KVForm(msgspec.Struct, frozen=True):
    """The form of a block's content; equal on both ends, or blocks cannot go between them."""

    layout: str
    block_size: int
    block_bytes: int


class Greeting(msgspec.Struct, frozen=True, tag=True):
    """A sender introduces itself. With `shared`, the descriptor of the shared slots follows."""

    token: str
    form: KVForm
    slots: int
    slot_bytes: int
    shared: bool


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """The receiver takes blocks from this sender."""


class Blocks(msgspec.Struct, frozen=True, tag=True):
    """Blocks `first .. first + count - 1` of a transfer, in shared slot `slot` or as the frame's body.

    `cached` of them the sender had from earlier requests.
    """

    transfer: str
    first: int
    count: int
    slot: int
    cached: int = 0


class Credit(msgspec.Struct, frozen=True, tag=True):
    """The blocks that were in `slot` are in the receiver's cache: the slot is free again."""

    transfer: str
    slot: int


ToReceiver = Greeting | Blocks
ToSender = Welcome | Credit | Fault


def machine_id() -> str:
    """The same for all processes that can share memory and socket files, different on another host or after a boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = os.uname().nodename
    return f"{boot}:{os.getuid()}"
