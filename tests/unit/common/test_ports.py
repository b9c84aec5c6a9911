"""SagePorts: what is free, who holds what, where to go instead."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sage.common.config import port_holders, ports
from sage.common.config.ports import PortHolder, SagePorts, port_holder, round_trip
from sage.common.errors import ConfigError, PortInUseError


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@pytest.mark.spec("P1")
def test_the_published_numbers() -> None:
    names = (
        "GATEWAY_DEFAULT EDGE_DEFAULT LLM_DEFAULT LLM_SECONDARY LLM_WSL_FALLBACK EMBEDDING_DEFAULT EMBEDDING_SECONDARY "
        "BENCHMARK_LLM BENCHMARK_EMBEDDING BENCHMARK_API"
    )
    numbers = [8889, 8899, 8001, 8002, 8901, 8090, 8091, 8901, 8950, 8951]
    assert [getattr(SagePorts, name) for name in names.split()] == numbers
    assert SagePorts.get_embedding_ports() == [8090, 8091]
    assert SagePorts.get_benchmark_ports() == [8901, 8950, 8951]


@pytest.mark.spec("P1")
def test_no_other_source_file_holds_a_port_number() -> None:
    root = Path(ports.__file__).parents[4]
    numbers = re.compile(r"(?<![\w.#])(8889|8899|8001|8002|8901|8090|8091|8950|8951)(?![\w.])")
    folders = ("common", "engine", "flow", "tui", "sage_cli")
    files = [file for folder in folders for file in (root / folder).rglob("*.py") if file != Path(ports.__file__)]
    guilty = [
        f"{file.relative_to(root)}:{number}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if numbers.search(re.sub(r'#.*|""".*|`[^`]*`', "", line))
    ]
    assert guilty == []


@pytest.mark.spec("P1")
def test_a_listener_makes_a_port_unavailable(listener: socket.socket) -> None:
    port = port_of(listener)
    assert not SagePorts.is_available(port)
    assert SagePorts.why_unavailable(port) == "in use"
    listener.close()
    assert SagePorts.is_available(port)


def test_a_listener_on_all_addresses_counts() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        assert not SagePorts.is_available(port_of(server))


def test_a_listener_on_all_ipv6_addresses_counts() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = port_of(server)
        assert not SagePorts.is_available(port)
        holder = port_holder(port)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_connections_in_time_wait_do_not_count() -> None:
    """The server closes first, so that its side waits; a restarted daemon must get its port back at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = port_of(server)
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.recv(1)
        client.close()
    assert SagePorts.is_available(port)


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_a_number_that_is_no_port_is_a_clear_error(port: int) -> None:
    with pytest.raises(ConfigError, match="is not a port"):
        SagePorts.is_available(port)


def test_an_address_that_is_not_ours() -> None:
    assert "no such address" in (SagePorts.why_unavailable(SagePorts.LLM_DEFAULT, "192.0.2.1") or "")


@pytest.mark.spec("P2")
def test_the_holder_of_a_port_is_named() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        holder = port_holder(port)
        with pytest.raises(PortInUseError) as caught:
            SagePorts.choose(SagePorts.LLM_DEFAULT, explicit=port)
        child.communicate(b"\n")
    assert holder is not None
    assert holder.pid == child.pid
    assert "import socket" in holder.command
    assert str(child.pid) in caught.value.cause
    assert port_holder(port) is None


def test_the_holder_is_found_with_psutil_too(listener: socket.socket) -> None:
    """macOS has no /proc; there the same answer comes from psutil."""
    holder = port_holders._find_psutil(port_of(listener))
    assert holder is not None
    assert holder.pid == os.getpid()


def test_a_holder_that_may_not_be_seen(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_holders, "_holds", lambda pid, inodes: False)
    holder = port_holders.find(port_of(listener))
    assert holder is not None
    assert holder.pid == 0
    assert "may not see" in holder.command


@pytest.mark.spec("P2")
def test_a_default_port_moves_and_says_why(listener: socket.socket) -> None:
    taken = port_of(listener)
    choice = SagePorts.choose(taken)
    assert choice.moved
    assert choice.port != taken
    assert f"port {taken} is in use by pid {os.getpid()}" in choice.reason
    assert f"using {choice.port}" in choice.reason
    assert SagePorts.is_available(choice.port)


def test_a_port_promised_to_a_neighbour_is_not_given_twice(listener: socket.socket) -> None:
    free = SagePorts.choose(port_of(listener)).port
    again = SagePorts.choose(free, taken={free})
    assert again.port != free
    with pytest.raises(ConfigError, match="cannot be used"):
        SagePorts.choose(free, explicit=free, taken={free})


def test_fallbacks_come_first(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        fallback = port_of(other)
    assert SagePorts.choose(port_of(listener), fallbacks=(fallback,)).port == fallback


def test_a_free_default_stays() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = port_of(server)
    choice = SagePorts.choose(port)
    assert (choice.port, choice.moved, choice.reason) == (port, False, "")


def test_the_range_is_searched_and_may_be_full(listener: socket.socket) -> None:
    port = port_of(listener)
    with pytest.raises(ConfigError, match="is free"):
        SagePorts.find_available_port(port, port)
    assert SagePorts.find_available_port(8900, 8999) in range(8900, 9000)


@pytest.mark.spec("P1")
def test_on_wsl_the_llm_moves_to_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a port may be bound and still refuse: only the HTTP round trip shows it."""
    monkeypatch.setattr(SagePorts, "is_wsl", staticmethod(lambda: True))
    monkeypatch.setattr(SagePorts, "LLM_DEFAULT", SagePorts.choose(SagePorts.LLM_DEFAULT).port)
    monkeypatch.setattr(SagePorts, "LLM_WSL_FALLBACK", SagePorts.find_available_port(taken={SagePorts.LLM_DEFAULT}))
    monkeypatch.setattr(ports, "round_trip", lambda server: port_of(server) != SagePorts.LLM_DEFAULT)
    assert SagePorts.get_recommended_llm_port() == SagePorts.LLM_WSL_FALLBACK
    assert "refuses connections (WSL2)" in (SagePorts.fallback_reason or "")
    assert SagePorts.get_llm_ports()[0] == SagePorts.LLM_WSL_FALLBACK
    monkeypatch.setattr(ports, "round_trip", round_trip)
    assert SagePorts.get_recommended_llm_port() == SagePorts.LLM_DEFAULT
    assert SagePorts.fallback_reason is None


def test_the_round_trip_is_real(listener: socket.socket) -> None:
    assert round_trip(listener)
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))  # bound, does not listen: connections are refused
    with deaf:
        assert not round_trip(deaf)


@pytest.mark.parametrize(("text", "port"), [("8123", 8123), (" 8123 ", 8123), ("", 77), (None, 77)])
def test_a_port_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str | None, port: int) -> None:
    if text is not None:
        monkeypatch.setenv("SAGE_LLM_PORT", text)
    assert SagePorts.get_from_env("SAGE_LLM_PORT", 77) == port


@pytest.mark.parametrize("text", ["http", "80.5", "70000", "-1"])
def test_a_wrong_port_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SAGE_LLM_PORT", text)
    with pytest.raises(ConfigError):
        SagePorts.get_from_env("SAGE_LLM_PORT", 77)


def test_status_and_diagnosis_are_plain_values(listener: socket.socket) -> None:
    status = SagePorts.check_port_status(port_of(listener))
    assert (status["available"], status["reason"], status["holder_pid"]) == (False, "in use", os.getpid())
    told = SagePorts.diagnose()
    assert set(told) == {"wsl", "ports", "recommended_llm_port", "fallback_reason"}
    assert told["ports"]["gateway"]["port"] == SagePorts.GATEWAY_DEFAULT


def test_a_holder_is_a_plain_pair() -> None:
    assert PortHolder(1, "init") == (1, "init")
