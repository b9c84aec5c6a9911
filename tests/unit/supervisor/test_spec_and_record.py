"""Specifications and daemon.json: nothing is lost, nonsense is refused, secrets are not written."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sage.common.errors import ConfigError, SageError, StateError, UsageError
from sage.common.home import SageHome
from sage.common.process import ProcessIdentity
from sage.common.stack import DaemonStatus
from sage.supervisor import processes, record
from sage.supervisor.spec import DaemonSpec

SPEC = DaemonSpec("engine", "llm", ("python", "-m", "x"), "127.0.0.1", 8123, {"HF_TOKEN": "hf_secret"}, model="m")


@pytest.fixture
def home(tmp_path: Path) -> SageHome:
    return SageHome(tmp_path / ".sage").ensure()


def test_a_spec_survives_json() -> None:
    assert DaemonSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


@pytest.mark.parametrize(
    ("host", "url", "probe"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123", "127.0.0.1"),
        ("0.0.0.0", "http://127.0.0.1:8123", "127.0.0.1"),
        ("::1", "http://[::1]:8123", "::1"),
        ("localhost", "http://localhost:8123", "localhost"),
    ],
)
def test_addresses(host: str, url: str, probe: str) -> None:
    spec = replace(SPEC, host=host)
    assert (spec.url, spec.probe_host) == (url, probe)


@pytest.mark.spec("R3")
@pytest.mark.parametrize("change", [{"name": ""}, {"name": "../x"}, {"name": ".x"}, {"argv": ()}, {"port": 0}])
def test_a_wrong_spec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ConfigError)):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    "nonsense", [{}, {"name": "a"}, {**SPEC.to_dict(), "port": "x"}, {**SPEC.to_dict(), "argv": 3}]
)
def test_nonsense_is_no_spec(nonsense: dict[str, Any]) -> None:
    with pytest.raises(SageError):
        DaemonSpec.from_dict(nonsense)


def test_timeouts_make_no_other_daemon() -> None:
    assert SPEC.same_as(replace(SPEC, ready_timeout_s=1, stop_grace_s=1))
    changes: list[dict[str, Any]] = [{"port": 8124}, {"env": {}}, {"argv": ("y",)}, {"model": "n"}, {"host": "0.0.0.0"}]
    for change in changes:
        assert not SPEC.same_as(replace(SPEC, **change))


@pytest.mark.spec("R4")
def test_the_environment_names_the_daemon_and_hides_values(home: SageHome) -> None:
    env = processes.environment(SPEC, home, {"PATH": "p", "SAGE_DAEMON": "parent", "SAGE_DAEMON_SPEC": "old"})
    assert (env["PATH"], env["SAGE_HOME"], env["SAGE_DAEMON"]) == ("p", str(home.root), "engine")
    assert env["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in env["SAGE_DAEMON_SPEC"]
    assert json.loads(env["SAGE_DAEMON_SPEC"])["env_keys"] == ["HF_TOKEN"]


def entry(**status: Any) -> record.Entry:
    identity = ProcessIdentity.current()
    return record.Entry(
        DaemonStatus("engine", "llm", "ready", identity.pid, "127.0.0.1", 8123, SPEC.url, "m", 2, 1.0, 2.0, **status),
        identity,
        SPEC,
    )


@pytest.mark.spec("P3", "R4")
def test_daemon_json_has_the_published_shape(home: SageHome) -> None:
    me = {**ProcessIdentity.current()._asdict(), "started_at": 1.0}
    record.save(home, me, [entry()], ["moved"])
    written = json.loads(home.daemon_json.read_text())
    assert stat.S_IMODE(home.daemon_json.stat().st_mode) == 0o600
    assert set(written) == {"version", "supervisor", "daemons", "ports", "models", "notes", "updated_at"}
    assert (written["version"], written["supervisor"], written["notes"]) == (1, me, ["moved"])
    assert written["ports"] == {"llm": 8123}
    assert written["models"] == {"llm": "m"}
    fields = (
        "name kind state pid start_ticks boot_id host port url model restarts started_at ready_at log last_error "
        "exit_code argv env_keys"
    )
    assert set(fields.split()) <= set(written["daemons"]["engine"])
    assert written["daemons"]["engine"]["env_keys"] == ["HF_TOKEN"]
    assert "hf_secret" not in home.daemon_json.read_text()


@pytest.mark.spec("R1")
def test_what_is_saved_is_loaded(home: SageHome) -> None:
    record.save(home, None, [entry()], [])
    entries, notes = record.load(home)
    assert notes == []
    assert entries["engine"].identity == ProcessIdentity.current()
    assert entries["engine"].status == entry().status
    assert entries["engine"].spec == replace(SPEC, env={})


def test_daemons_that_do_not_run_have_no_ports(home: SageHome) -> None:
    stopped = entry()
    stopped.status.state = "stopped"
    record.save(home, None, [stopped], [])
    assert json.loads(home.daemon_json.read_text())["ports"] == {}


@pytest.mark.spec("R1", "R3")
@pytest.mark.parametrize(
    ("content", "why"),
    [("{ damaged", "JSON"), ("[]", "lists no daemons"), ('{"version": 99, "daemons": {}}', "version is 99")],
)
def test_a_damaged_file_is_kept_aside(home: SageHome, content: str, why: str) -> None:
    home.daemon_json.write_text(content)
    entries, notes = record.load(home)
    assert entries == {}
    assert why in notes[0]
    kept = [file for file in home.llm_dir.iterdir() if "corrupt" in file.name]
    assert [file.read_text() for file in kept] == [content]
    assert kept[0].name in notes[0]
    assert record.load(home) == ({}, [])


def test_a_damaged_entry_is_dropped_alone(home: SageHome) -> None:
    record.save(home, None, [entry()], [])
    content = json.loads(home.daemon_json.read_text())
    content["daemons"]["broken"] = {"kind": "llm"}
    content["daemons"]["worse"] = 7
    home.daemon_json.write_text(json.dumps(content))
    entries, notes = record.load(home)
    assert list(entries) == ["engine"]
    assert len(notes) == 2


def test_an_unreadable_file_is_an_error_and_stays(home: SageHome) -> None:
    home.daemon_json.mkdir()
    with pytest.raises(StateError, match="Cannot read"):
        record.load(home)
    assert home.daemon_json.is_dir()
