"""One rank of a multi-process engine: `python -m sagellm_core.executor.rank CONTROL LIFE` (two inherited descriptors).

Orders come over the control socket. The life pipe is held open by the engine and never written to: when it closes, the
engine is gone, whatever it died of, and the rank ends at once, even inside a step.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sagellm_core.config import LLMEngineConfig
from sagellm_core.executor.messages import Done, Load, Loaded, Order, ReadBlocks, Sleep, Step, Stop, Wake, WriteBlocks
from sagellm_core.wire import Connection, Fault

if TYPE_CHECKING:
    from sagellm_core.comm import Place
    from sagellm_core.comm.distributed import Traffic
    from sagellm_core.worker import Worker

_GONE_WITHIN_S = 10.0


class LifeWatch:
    """Ends this process when the other end of the pipe closes, and removes the folders in `rubbish`."""

    def __init__(self, life: int, rubbish: list[Path]) -> None:
        self._life = life
        self._rubbish = rubbish
        self._thread = threading.Thread(target=self._wait, name="sage-life", daemon=True)
        self._thread.start()

    def leave(self, *, alone: bool) -> NoReturn:
        """End this process now. `alone`: the engine seems gone, and if it is, the folders are removed first."""
        if alone:
            self._thread.join(_GONE_WITHIN_S)
        os._exit(0)

    def _wait(self) -> None:
        os.read(self._life, 1)
        for folder in self._rubbish:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


class Rank:
    """Carries out orders, one after the other."""

    def __init__(self, control: Connection, rubbish: list[Path]) -> None:
        self.control = control
        self._rubbish = rubbish
        self._worker: Worker | None = None
        self._traffic: Traffic | None = None

    def run(self) -> bool:
        """Until `Stop` comes (True) or the connection to the engine ends."""
        while True:
            try:
                order, body = self.control.receive()
            except (EOFError, ConnectionResetError):
                return False
            if isinstance(order, Stop):
                return True
            try:
                answer, content = self._carry_out(order, body)
            except Exception as error:  # the engine decides what becomes of it
                import traceback

                traceback.print_exc()
                answer, content = Fault.of(error), bytearray()
            try:
                self.control.send(answer, content)
            except (BrokenPipeError, ConnectionResetError):
                return False

    def _carry_out(self, order: Any, body: bytearray) -> tuple[Any, bytearray]:
        if isinstance(order, Load):
            return Loaded(self._load(order)), bytearray()
        assert self._worker is not None, "Load comes first"
        if isinstance(order, Step):
            output = self._worker.execute(order.plan)
            return self._done(output if self._worker.place.answers else None), bytearray()
        if isinstance(order, Sleep | Wake):
            self._worker.sleep() if isinstance(order, Sleep) else self._worker.wake()
            return self._done(None), bytearray()
        if isinstance(order, ReadBlocks):
            return self._done(None), self._worker.read_blocks(order.blocks)
        assert isinstance(order, WriteBlocks)
        self._worker.write_blocks(order.blocks, body)
        return self._done(None), bytearray()

    def _load(self, order: Load) -> Any:
        from sagellm_core.models.config import read_model_config
        from sagellm_core.worker import Worker

        self._rubbish.append(Path(order.meeting).parent)
        folder = Path(order.folder)
        config = LLMEngineConfig.model_validate(order.config)
        place = self._join(order, config)
        self._worker = Worker(config, read_model_config(folder), folder, order.max_model_len, place)
        return self._worker.load()

    def _join(self, order: Load, config: LLMEngineConfig) -> Place:
        import torch

        from sagellm_core.backends import BackendConfig, create_backend
        from sagellm_core.comm.distributed import Meeting, join

        backend = create_backend(BackendConfig(config.backend_type, config.device, config.device_ids))
        device = backend.device
        if device.type != "cpu":  # collectives of this process are on its current device
            getattr(torch, device.type).set_device(device)
        meeting = Meeting(
            Path(order.meeting),
            order.rank,
            config.tensor_parallel_size,
            config.pipeline_parallel_size,
            backend.collectives if config.comm_type == "auto" else config.comm_type,
            order.timeout_s,
        )
        place = join(meeting, device)
        self._traffic = place.traffic
        return place

    def _done(self, output: Any) -> Done:
        traffic = self._traffic
        if traffic is None:
            return Done(output)
        return Done(output, traffic.all_reduces, traffic.all_gathers, traffic.seconds)


def main(argv: list[str]) -> None:
    control, life = (int(number) for number in argv)
    rubbish: list[Path] = []
    watch = LifeWatch(life, rubbish)
    rank = Rank(Connection(socket.socket(fileno=control), Order), rubbish)
    stopped = rank.run()
    watch.leave(alone=not stopped)  # no goodbyes between ranks: a group's farewell would wait for those that are gone


if __name__ == "__main__":
    main(sys.argv[1:])
