"""What a runtime and its nodes say to each other. Requests go by their id and attempt, `id#n`."""

from __future__ import annotations

from typing import Any

import msgspec

from sagellm_core.engine_core.messages import CoreStats, Update
from sagellm_core.kv_transfer.messages import KVAddress
from sagellm_core.wire import Fault
from sagellm_protocol.sampling import SamplingParams


class Job(msgspec.Struct, frozen=True):
    """A request on its way to a node. `output` are tokens that another node gave before it died.

    `seconds_left` is what remains until its deadline when it is sent.
    """

    id: str
    prompt: list[int]
    sampling: SamplingParams
    stop_ids: list[int]
    priority: int = 0
    max_total: int | None = None
    seconds_left: float | None = None
    adapter: str = ""
    pooling: str = ""
    output: list[int] = []

    @property
    def tokens(self) -> list[int]:
        """Everything whose keys and values have to be in the cache before it goes on."""
        return self.prompt + self.output if self.output else self.prompt


class Setup(msgspec.Struct, frozen=True, tag=True):
    """The first order: load the model (`config` is an LLMEngineConfig), listen for blocks on `host`.

    `folder` is the runtime's own, where it is on this host.
    """

    name: str
    config: dict[str, Any]
    token: str
    host: str
    transport: str
    folder: str = ""


class Enter(msgspec.Struct, frozen=True, tag=True):
    """Run a request whole."""

    job: Job


class Expect(msgspec.Struct, frozen=True, tag=True):
    """Make room for the blocks of a request that another node is going to fill, then run it."""

    job: Job


class Proceed(msgspec.Struct, frozen=True, tag=True):
    """No more blocks will come: run the request with those that came."""

    id: str


class Prefill(msgspec.Struct, frozen=True, tag=True):
    """Compute a prompt, and send its blocks from number `have` on to the receiver at `to`."""

    id: str
    tokens: list[int]
    have: int
    wanted: int
    to: KVAddress
    priority: int = 0
    adapter: str = ""


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Give up a request, whatever is being done for it."""

    id: str


class Halt(msgspec.Struct, frozen=True, tag=True):
    """End the node."""


class Up(msgspec.Struct, frozen=True, tag=True):
    """The node has loaded. `address` is where it takes blocks."""

    address: KVAddress
    max_model_len: int
    stats: CoreStats


class Reserved(msgspec.Struct, frozen=True, tag=True):
    """There is room; blocks `have .. wanted - 1` of the request have to come."""

    id: str
    have: int
    wanted: int


class Full(msgspec.Struct, frozen=True, tag=True):
    """There is no room now; `Room` will tell when it is worth asking again."""

    id: str


class Room(msgspec.Struct, frozen=True, tag=True):
    """A node that was full has space again."""


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """Blocks of a request are in the cache of the node that decodes, and the request is in its scheduler.

    `ms`: time in which some of them were under way. `cached` of them the sender had from earlier requests.
    """

    id: str
    blocks: int
    bytes: int
    ms: float
    cached: int


class Sent(msgspec.Struct, frozen=True, tag=True):
    """A node that prefills has nothing to do for a request any more: all blocks are confirmed."""

    id: str


class NotSent(msgspec.Struct, frozen=True, tag=True):
    """A prompt could not be computed or its blocks could not be sent."""

    id: str
    fault: Fault


class News(msgspec.Struct, frozen=True, tag=True):
    """What a step gave."""

    updates: list[Update]


class Report(msgspec.Struct, frozen=True, tag=True):
    """Counters of the node; a sign of life."""

    stats: CoreStats


class Down(msgspec.Struct, frozen=True, tag=True):
    """The node's engine has ended and will not come back."""

    fault: Fault


NodeOrder = Setup | Enter | Expect | Proceed | Prefill | Cancel | Halt
NodeAnswer = Up | Reserved | Full | Room | Arrived | Sent | NotSent | News | Report | Down | Fault
