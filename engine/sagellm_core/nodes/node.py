"""One node of a runtime: an engine core that computes prompts for others, runs requests, or both.

    python -m sagellm_core.nodes.node CONTROL LIFE                 started by a runtime of this host
    python -m sagellm_core.nodes.node --listen HOST:PORT           serves one runtime of another host after the other

A listening node takes its token from the environment variable SAGE_NODE_TOKEN and refuses a runtime with another one.
Tokens and blocks travel in the clear: between hosts, use a network that you trust.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any, NoReturn

from pydantic import ValidationError

from sage.common.errors import ConfigError, SageError
from sage.common.listening import listen, report
from sagellm_core.config import LLMEngineConfig
from sagellm_core.core_of import new_core
from sagellm_core.engine_core.core import EngineCore
from sagellm_core.engine_core.loop import start_thread
from sagellm_core.engine_core.messages import Submission, Update
from sagellm_core.errors import EngineError
from sagellm_core.executor.rank import LifeWatch
from sagellm_core.kv_transfer import Arrival, KVAddress, KVForm, KVReceiver, KVTransferChannel
from sagellm_core.models.bundle import ModelBundle, open_bundle
from sagellm_core.nodes.decode import DecodeEngine
from sagellm_core.nodes.messages import (
    Cancel,
    Down,
    Enter,
    Expect,
    Halt,
    Job,
    News,
    NodeOrder,
    Prefill,
    Proceed,
    Report,
    Setup,
    Up,
)
from sagellm_core.nodes.prefill import PrefillEngine
from sagellm_core.text.output import OutputText
from sagellm_core.wire import MAX_FRAME, Connection, Fault
from sagellm_protocol.errors import ErrorCode

TOKEN_VARIABLE = "SAGE_NODE_TOKEN"  # noqa: S105 - the name of a variable, not a token
_USAGE = f"{TOKEN_VARIABLE}=SECRET python -m sagellm_core.nodes.node --listen HOST:PORT"
_REPORT_EVERY_S = 0.2
BEAT_EVERY_S = 1.0
_GREET_WITHIN_S = 10.0
_GREETING_BYTES = 1 << 20


class Node:
    """Serves the runtime at the other end of a connection."""

    def __init__(self, control: Connection, token: str | None = None, rubbish: list[Path] | None = None) -> None:
        self._control = control
        self._rubbish = rubbish if rubbish is not None else []
        self._token = token
        self._stopped = threading.Event()
        self._bundle: ModelBundle | None = None
        self._core: EngineCore | None = None
        self._prefill: PrefillEngine | None = None
        self._decode: DecodeEngine | None = None
        self._receiver: KVReceiver | None = None

    def run(self) -> bool:
        """Until the runtime says `Halt` (True) or the connection to it ends."""
        halted = False
        try:
            self._start(self._greeted())
        except (EngineError, ValidationError) as error:
            self._control.send(Fault.of(error))
            return True
        threading.Thread(target=self._beat, name="sage-node-beat", daemon=True).start()
        try:
            while True:
                order, _ = self._control.receive()
                if isinstance(order, Halt):
                    halted = True
                    break
                self._obey(order)
        except (EOFError, OSError):
            pass
        self._stop()
        return halted

    # -- life ---------------------------------------------------------------------------------------------------

    def _greeted(self) -> Setup:
        """The first order. A stranger (where there is a token) holds up the node for a moment, and fills no memory."""
        control = self._control
        if self._token is not None:
            control.sock.settimeout(_GREET_WITHIN_S)
            control.limit = _GREETING_BYTES
        setup, _ = control.receive()
        if not isinstance(setup, Setup):
            raise EngineError(ErrorCode.INVALID_ARGUMENT, "the first order to a node is Setup")
        if self._token is not None and not hmac.compare_digest(setup.token.encode(), self._token.encode()):
            raise EngineError(ErrorCode.INVALID_ARGUMENT, "the runtime's token is not this node's")
        control.sock.settimeout(None)
        control.limit = MAX_FRAME
        return setup

    def _start(self, setup: Setup) -> None:
        """Load the model and listen for blocks. Raises EngineError."""
        if setup.folder:
            self._rubbish.append(Path(setup.folder))
        config = LLMEngineConfig.model_validate(setup.config)
        bundle = self._bundle = open_bundle(config)
        core = self._core = new_core(bundle, self._deliver, self._after_step)
        ready: SimpleQueue[BaseException | None] = SimpleQueue()
        start_thread(core, ready.put, self._ended)
        error = ready.get()
        if error is not None:
            raise error if isinstance(error, EngineError) else Fault.of(error).error()
        info = core.executor.info
        size = config.kv_cache_block_size
        form = KVForm(info.kv_layout, size, info.block_bytes)

        def new_channel(
            address: KVAddress, on_free: Callable[[str], None], on_broken: Callable[[EngineError], None]
        ) -> KVTransferChannel:
            return KVTransferChannel(
                address, form, setup.token, transport=setup.transport, on_free=on_free, on_broken=on_broken
            )

        self._decode = DecodeEngine(core, form, self._submission, self._say)
        self._prefill = PrefillEngine(core, form, new_channel, self._say)
        self._receiver = KVReceiver(form, setup.token, self._on_arrival, host=setup.host, folder=setup.folder)
        self._control.send(Up(self._receiver.address, bundle.max_model_len, core.stats))

    def _stop(self) -> None:
        assert self._core is not None
        assert self._prefill is not None
        assert self._receiver is not None
        self._receiver.close()
        self._prefill.close()
        self._core.stop()
        self._stopped.wait(10)

    def _ended(self) -> None:
        """The step loop is over: on order, or because the engine cannot go on."""
        self._stopped.set()
        failure = self._core.failure if self._core is not None else None
        if failure is not None:
            self._say(Down(Fault.of(failure)))

    def _say(self, message: Any) -> None:
        """Tell the runtime, from any thread; when it is gone, the thread that listens to it ends the node."""
        try:
            self._control.send(message)
        except OSError:
            pass

    # -- orders -------------------------------------------------------------------------------------------------

    def _obey(self, order: Any) -> None:
        core, prefill, decode = self._core, self._prefill, self._decode
        assert core is not None
        assert prefill is not None
        assert decode is not None
        if isinstance(order, Enter):
            core.call(lambda: decode.enter(order.job))
        elif isinstance(order, Expect):
            core.call(lambda: decode.expect(order.job))
        elif isinstance(order, Proceed):
            core.call(lambda: decode.proceed(order.id))
        elif isinstance(order, Prefill):
            core.call(lambda: prefill.begin(order))
        elif isinstance(order, Cancel):
            core.call(lambda: self._cancel(order.id))

    def _cancel(self, job_id: str) -> None:
        assert self._core is not None
        assert self._prefill is not None
        assert self._decode is not None
        self._prefill.cancel(job_id)
        if not self._decode.cancel(job_id):
            self._core.cancel(job_id)

    def _submission(self, job: Job) -> Submission:
        assert self._bundle is not None
        tokenizer = self._bundle.tokenizer

        def new_text() -> OutputText:
            text = OutputText(tokenizer, job.prompt, job.sampling)
            for token in job.output:  # its text is out already
                text.push(token, last=None)
            return text

        return Submission(
            job.id,
            job.prompt,
            job.sampling,
            new_text=new_text,
            stop_ids=frozenset(job.stop_ids),
            priority=job.priority,
            max_total=job.max_total,
            deadline=None if job.seconds_left is None else monotonic() + job.seconds_left,
            adapter=job.adapter,
            pooling=job.pooling,
            output=job.output,
        )

    # -- on the step thread -------------------------------------------------------------------------------------

    def _deliver(self, updates: list[Update]) -> None:
        if self._prefill is not None and self._decode is not None:
            updates = self._prefill.take_updates(updates)
            self._decode.after_step()
        if updates:
            self._say(News(updates))

    def _after_step(self) -> None:
        if self._prefill is not None and self._decode is not None:
            self._prefill.after_step()
            self._decode.after_step()

    def _on_arrival(self, arrival: Arrival) -> None:
        assert self._decode is not None
        self._decode.on_arrival(arrival)

    # -- on a thread of its own ---------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Send the counters when they changed, and signs of life."""
        assert self._core is not None
        sent, silent_s = replace(self._core.stats), 0.0
        while not self._stopped.wait(_REPORT_EVERY_S):
            silent_s += _REPORT_EVERY_S
            if silent_s >= BEAT_EVERY_S or self._core.stats != sent:
                sent, silent_s = replace(self._core.stats), 0.0
                self._say(Report(sent))


def _listen(where: str) -> NoReturn:
    """Serve runtimes of other hosts, one at a time; of this host where none is named. Without a token, make one."""
    host, _, port = where.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--listen {where} is no address", hint=_USAGE)
    given = os.environ.get(TOKEN_VARIABLE)
    token = given or secrets.token_hex(16)
    with listen(host.strip("[]") or "127.0.0.1", int(port)) as listener:
        listener.setblocking(True)
        if not given:
            print(f"{TOKEN_VARIABLE}={token}", file=sys.stderr, flush=True)
        host, bound = listener.getsockname()[:2]
        print(f"listening on {host}:{bound}", flush=True)
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, NodeOrder)
            try:
                Node(connection, token).run()
            except (OSError, EOFError) as error:
                print(f"a connection failed: {error}", file=sys.stderr, flush=True)
            connection.close()


def main(argv: list[str]) -> int:
    """A node of the parent process, by two descriptors, or one that listens. Returns the exit code."""
    if argv in (["--help"], ["-h"]):
        print(f"A node for runtimes of other hosts:  {_USAGE}")
        return 0
    if len(argv) != 2 or not (argv[0] == "--listen" or all(word.isdecimal() for word in argv)):
        return report(ConfigError("The command line is wrong", hint=_USAGE))
    if argv[0] == "--listen":
        try:
            _listen(argv[1])
        except SageError as error:
            return report(error)
        except KeyboardInterrupt:
            return 130
    return _serve_parent(*(int(number) for number in argv))


def _serve_parent(control: int, life: int) -> NoReturn:
    rubbish: list[Path] = []
    watch = LifeWatch(life, rubbish)
    halted = Node(Connection(socket.socket(fileno=control), NodeOrder), rubbish=rubbish).run()
    watch.leave(alone=not halted)  # at once: the step thread may be in a step that nobody waits for any more


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
