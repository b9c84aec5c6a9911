"""From the options of serve to daemons: ports that move or are refused, what runs already, what differs from it."""

import contextlib
import os
import pathlib
import socket
import sys
from collections.abc import Iterator

import pytest

from sage.cli.stack.compare import differences
from sage.cli.stack.plan import StackRequest, make_plan
from sage.common.config.ports import SagePorts
from sage.common.errors import ConfigError, ModelError, PortInUseError, UsageError
from sage.common.home import SageHome
from sage.common.stack import DaemonStatus, StackStatus

NOTHING = StackStatus(supervisor_alive=False, supervisor_pid=None)


@contextlib.contextmanager
def listener(port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def sage_home(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch, free_port: object) -> SageHome:
    """A home, and defaults that are free on this machine."""
    assert callable(free_port)
    for name in ("LLM_DEFAULT", "EMBEDDING_DEFAULT", "GATEWAY_DEFAULT"):
        monkeypatch.setattr(SagePorts, name, free_port())
    monkeypatch.setattr("sage.cli.stack.plan._PLACES", _places())
    for name in ("SAGE_LLM_PORT", "SAGE_EMBEDDING_PORT", "SAGE_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)
    return SageHome(home)


def _places() -> object:
    from sage.cli.stack import plan

    defaults = {"engine": SagePorts.LLM_DEFAULT, "embedding": SagePorts.EMBEDDING_DEFAULT}
    return {
        name: plan._Place(place.setting, place.option, defaults.get(name, SagePorts.GATEWAY_DEFAULT))
        for name, place in plan._PLACES.items()
    }


def running(**model_and_port: tuple[str, int]) -> StackStatus:
    kinds = {"engine": "llm", "embedding": "embedding", "gateway": "gateway"}
    daemons = [
        DaemonStatus(name, kinds[name], "ready", pid=os.getpid(), port=port, model=model)
        for name, (model, port) in model_and_port.items()
    ]
    return StackStatus(supervisor_alive=True, supervisor_pid=1, daemons=daemons)


@pytest.mark.spec("X6")
def test_the_default_stack(sage_home: SageHome) -> None:
    plan = make_plan(StackRequest(), sage_home, NOTHING)
    specs = {spec.name: spec for spec in plan.specs}
    assert set(specs) == {"gateway", "engine", "embedding"}
    assert plan.notes == []
    engine = specs["engine"]
    assert engine.argv[0] == sys.executable
    assert engine.argv[3] == "sagellm_core.engine_server"
    assert engine.port == SagePorts.LLM_DEFAULT
    assert engine.argv[-2:] == ("--port", str(engine.port))
    assert (engine.kind, engine.model, specs["embedding"].model) == ("llm", "sage-builtin", "hash")
    assert specs["gateway"].argv[-2:] == ("--home", str(sage_home.root))
    assert {spec.host for spec in plan.specs} == {"127.0.0.1"}


def test_a_model_of_ones_own_goes_by_the_name_that_was_typed(sage_home: SageHome) -> None:
    folder = pathlib.Path("tiny")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    specs = make_plan(StackRequest(model="tiny", embedding_model="tiny"), sage_home, NOTHING).specs
    path = str(folder.resolve())
    assert specs[0].argv[-4:] == ("--model", path, "--served-model-name", "tiny")
    assert specs[1].argv[-4:] == ("--model", f"hf:{path}", "--name", "tiny")
    assert [spec.model for spec in specs] == ["tiny", "tiny", ""]
    assert specs[0].ready_timeout_s > specs[2].ready_timeout_s


def test_only_the_gateway_is_opened_to_other_machines(sage_home: SageHome) -> None:
    """R4: engines know no keys, so they stay on loopback."""
    plan = make_plan(StackRequest(host="0.0.0.0"), sage_home, NOTHING)
    assert {spec.name: spec.host for spec in plan.specs} == {
        "gateway": "0.0.0.0",
        "engine": "127.0.0.1",
        "embedding": "127.0.0.1",
    }
    assert "other machines can reach it" in plan.notes[0]


@pytest.mark.spec("X12")
@pytest.mark.parametrize("host", ["256.1.1.1", "203.0.113.7", "no such host", "::zz", ""])
def test_an_address_of_another_machine_is_refused(host: str, sage_home: SageHome) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(StackRequest(host=host), sage_home, NOTHING)
    assert host in caught.value.title
    assert caught.value.hint == "sage llm serve --host 127.0.0.1"


def test_without_embedding(sage_home: SageHome) -> None:
    plan = make_plan(StackRequest(no_embedding=True), sage_home, NOTHING)
    assert [spec.name for spec in plan.specs] == ["engine", "gateway"]


@pytest.mark.spec("P2")
def test_a_taken_default_moves_and_says_who_holds_it(sage_home: SageHome) -> None:
    with listener(SagePorts.LLM_DEFAULT):
        plan = make_plan(StackRequest(), sage_home, NOTHING)
    engine = next(spec for spec in plan.specs if spec.name == "engine")
    assert engine.port != SagePorts.LLM_DEFAULT
    assert len(plan.notes) == 1
    assert f"port {SagePorts.LLM_DEFAULT} is in use by pid {os.getpid()}" in plan.notes[0]
    assert str(engine.port) in plan.notes[0]


@pytest.mark.spec("P2")
@pytest.mark.parametrize(
    ("option", "request_of"),
    [
        ("--port", lambda port: StackRequest(port=port)),
        ("--embedding-port", lambda port: StackRequest(embedding_port=port)),
        ("--gateway-port", lambda port: StackRequest(gateway_port=port)),
    ],
)
def test_a_taken_port_that_was_asked_for_is_refused(option: str, request_of: object, sage_home: SageHome) -> None:
    assert callable(request_of)
    with listener() as port, pytest.raises(PortInUseError) as caught:
        make_plan(request_of(port), sage_home, NOTHING)
    assert f"pid {os.getpid()}" in caught.value.cause
    assert f"sage llm serve {option} " in caught.value.hint


@pytest.mark.spec("P4")
def test_a_port_from_the_environment_counts_as_asked_for(sage_home: SageHome, monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as port:
        monkeypatch.setenv("SAGE_LLM_PORT", str(port))
        with pytest.raises(PortInUseError) as caught:
            make_plan(StackRequest(), sage_home, NOTHING)
    assert "SAGE_LLM_PORT" in caught.value.hint
    monkeypatch.setenv("SAGE_LLM_PORT", "many")
    with pytest.raises(ConfigError, match="SAGE_LLM_PORT"):
        make_plan(StackRequest(), sage_home, NOTHING)


def test_two_daemons_cannot_share_a_port(sage_home: SageHome) -> None:
    with listener() as port:
        pass
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        make_plan(StackRequest(port=port, embedding_port=port), sage_home, NOTHING)
    assert "sage llm serve --embedding-port " in caught.value.hint


def test_a_model_that_is_missing_stops_everything_first(sage_home: SageHome) -> None:
    with listener() as port, pytest.raises(ModelError):
        make_plan(StackRequest(model="./nothing", port=port), sage_home, NOTHING)


@pytest.mark.spec("R1")
def test_what_runs_is_kept_and_its_port_is_not_given_away(sage_home: SageHome) -> None:
    before = running(engine=("sage-builtin", SagePorts.LLM_DEFAULT), gateway=("", SagePorts.EMBEDDING_DEFAULT))
    plan = make_plan(StackRequest(), sage_home, before)
    assert [spec.name for spec in plan.specs] == ["embedding"]
    assert plan.specs[0].port not in (SagePorts.LLM_DEFAULT, SagePorts.EMBEDDING_DEFAULT)


def test_differences_to_what_runs() -> None:
    before = running(engine=("sage-builtin", 1111), embedding=("hash", 2222), gateway=("", 3333))
    assert differences(StackRequest(), before) == []
    assert differences(StackRequest(model="builtin", port=1111, gateway_port=3333), before) == []
    assert differences(StackRequest(port=1112, gateway_port=3334, no_embedding=True), before) == [
        "engine listens on port 1111, not 1112",
        "the embedding server runs",
        "gateway listens on port 3333, not 3334",
    ]


@pytest.mark.spec("X6", "R4")
def test_another_address_is_a_difference() -> None:
    before = running(gateway=("", 3333))
    before.daemons[0].host = "127.0.0.1"
    assert differences(StackRequest(host="0.0.0.0"), before) == ["gateway listens on 127.0.0.1, not on 0.0.0.0"]
    before.daemons[0].host = "0.0.0.0"
    assert differences(StackRequest(host="0.0.0.0"), before) == []


def test_another_model_is_a_difference(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    before = running(engine=("sage-builtin", 1111), embedding=("hash", 2222))
    asked = StackRequest(model=str(folder), embedding_model=str(folder))
    assert differences(asked, before) == ["engine serves sage-builtin, not tiny", "embedding serves hash, not tiny"]
    assert differences(asked, running(engine=("tiny", 1), embedding=("tiny", 2))) == []


def test_the_ports_of_a_stopped_stack_do_not_bind_the_next_one(sage_home: SageHome) -> None:
    """daemon.json remembers where the last stack listened; that is no wish of the person's."""
    from sage.common.atomic import write_json

    sage_home.ensure()
    with listener() as port:
        write_json(sage_home.daemon_json, {"version": 1, "daemons": {}, "ports": {"llm": port}})
        plan = make_plan(StackRequest(), sage_home, NOTHING)
    assert next(spec for spec in plan.specs if spec.name == "engine").port == SagePorts.LLM_DEFAULT
