"""From the options of ``sage llm serve`` to the daemons that the supervisor shall run."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field

from sage.cli.chosen import chosen
from sage.cli.stack.address import check_host
from sage.cli.stack.models import HASH, Model, find_embedding_model, find_llm_model
from sage.common.config.ports import LOOPBACK, SagePorts
from sage.common.config.settings import Settings
from sage.common.errors import ConfigError, PortInUseError
from sage.common.home import SageHome
from sage.common.stack import StackStatus
from sage.supervisor import DaemonSpec

GATEWAY, ENGINE, EMBEDDING = "gateway", "engine", "embedding"
_PROGRAMS = {
    GATEWAY: ("sage.llm.gateway", "gateway"),
    ENGINE: ("sagellm_core.engine_server", "llm"),
    EMBEDDING: ("sage.llm.embedding", "embedding"),
}


@dataclass(frozen=True, slots=True)
class StackRequest:
    """What was typed; None: not said."""

    model: str | None = None
    embedding_model: str | None = None
    port: int | None = None
    embedding_port: int | None = None
    gateway_port: int | None = None
    no_embedding: bool = False
    host: str = LOOPBACK

    def typed(self) -> str:
        """The command line that asks for this."""
        words = ["sage", "llm", "serve"]
        for option, value in (
            ("--model", self.model),
            ("--embedding-model", self.embedding_model),
            ("--port", self.port),
            ("--embedding-port", self.embedding_port),
            ("--gateway-port", self.gateway_port),
            ("--host", self.host if self.host != LOOPBACK else None),
        ):
            words += [] if value is None else [option, str(value)]
        return shlex.join([*words, "--no-embedding"] if self.no_embedding else words)


@dataclass(slots=True)
class StackPlan:
    """The daemons that shall run, those of them to start, and what a person should know (a port that moved)."""

    wanted: set[str] = field(default_factory=set)
    specs: list[DaemonSpec] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a daemon's port comes from."""

    setting: str
    option: str
    default: int
    fallbacks: tuple[int, ...] = ()


_PLACES = {
    ENGINE: _Place("llm.port", "--port", SagePorts.LLM_DEFAULT, (SagePorts.LLM_WSL_FALLBACK,)),
    EMBEDDING: _Place("embedding.port", "--embedding-port", SagePorts.EMBEDDING_DEFAULT),
    GATEWAY: _Place("gateway.port", "--gateway-port", SagePorts.GATEWAY_DEFAULT),
}


def make_plan(request: StackRequest, home: SageHome, running: StackStatus) -> StackPlan:
    """The daemons of the stack that do not run yet, with free ports and models that are there.

    Raises ModelError, PortInUseError, ConfigError or UsageError (no such address) before anything is started.
    """
    models = {ENGINE: find_llm_model(request.model), EMBEDDING: find_embedding_model(request.embedding_model)}
    settings = Settings.load(home)
    asked = {ENGINE: request.port, EMBEDDING: request.embedding_port, GATEWAY: request.gateway_port}
    alive = {daemon.name: daemon for daemon in running.daemons if daemon.running}
    taken = {daemon.port for daemon in alive.values()}
    plan = StackPlan()
    exposed = check_host(request.host)
    if exposed and GATEWAY not in alive:
        plan.notes.append(exposed)
    for name, place in _PLACES.items():
        if name == EMBEDDING and request.no_embedding:
            continue
        plan.wanted.add(name)
        if name in alive:
            continue
        host = request.host if name == GATEWAY else LOOPBACK
        port, note = _port(place, asked[name], settings, home, host, taken)
        taken.add(port)
        if note:
            plan.notes.append(note)
        plan.specs.append(_spec(name, host, port, models.get(name), home))
    return plan


def _port(
    place: _Place, asked: int | None, settings: Settings, home: SageHome, host: str, taken: set[int]
) -> tuple[int, str]:
    """The port, and the note when a default had to move. A port from the environment or sage.toml was chosen too."""
    setting = chosen(place.setting, home, settings)
    explicit = settings.port(place.setting) if asked is None and setting is not None else asked
    try:
        choice = SagePorts.choose(place.default, explicit, host=host, fallbacks=_fallbacks(place), taken=taken)
    except ConfigError as error:
        free = SagePorts.find_available_port(host=host, taken=taken)
        origin = f"  (now from {setting.origin})" if asked is None and setting is not None else ""
        hint = f"Take another port:  sage llm serve {place.option} {free}{origin}"
        if isinstance(error, PortInUseError):
            raise PortInUseError(error.port, error.holder, hint=hint) from None
        raise ConfigError(error.title, cause=error.cause, hint=hint) from None
    return choice.port, choice.reason


def _fallbacks(place: _Place) -> tuple[int, ...]:
    return place.fallbacks if SagePorts.is_wsl() else ()


def _spec(name: str, host: str, port: int, model: Model | None, home: SageHome) -> DaemonSpec:
    """The command line of one daemon; a model of the person's own may take minutes to load."""
    module, kind = _PROGRAMS[name]
    extra = ["--home", str(home.root)] if model is None else _model_options(name, model)
    own = model is None or model.source in ("", HASH)
    return DaemonSpec(
        name=name,
        kind=kind,
        # -P: the current folder is no place to import from
        argv=(sys.executable, "-P", "-m", module, "--host", host, "--port", str(port), *extra),
        host=host,
        port=port,
        model=model.name if model is not None else "",
        ready_timeout_s=60 if own else 600,
    )


def _model_options(name: str, model: Model) -> list[str]:
    if not model.source:
        return []
    naming = "--served-model-name" if name == ENGINE else "--name"
    return ["--model", model.source] + ([] if model.source == model.name else [naming, model.name])
