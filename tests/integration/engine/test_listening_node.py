"""A node that listens for runtimes of other hosts: strangers, and runtimes that say nonsense, do not end it."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sagellm_core.errors import EngineError
from sagellm_core.nodes.messages import Halt, NodeAnswer, Setup
from sagellm_core.nodes.node import main
from sagellm_core.wire import Connection, Fault

pytestmark = pytest.mark.spec("E6")


@pytest.fixture(scope="module")
def node() -> Iterator[tuple[str, int, str]]:
    """Host, port and token of a node that was given an empty token, and no address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sagellm_core.nodes.node", "--listen", ":0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SAGE_NODE_TOKEN": ""},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        host, _, port = process.stdout.readline().strip().removeprefix("listening on ").rpartition(":")
        token = process.stderr.readline().strip().removeprefix("SAGE_NODE_TOKEN=")
        try:
            yield host, int(port), token
            assert process.poll() is None, "it goes on listening"
        finally:
            process.kill()
            process.wait()


def said(node: tuple[str, int, str], order: Setup | Halt) -> EngineError:
    """What the node answers to a first order that it cannot carry out."""
    with socket.create_connection(node[:2], 30) as sock:
        connection = Connection(sock, NodeAnswer)
        connection.send(order)
        answer, _ = connection.receive()
    assert isinstance(answer, Fault)
    return answer.error()


def test_without_an_address_it_listens_on_this_host_alone_and_says_its_token(node: tuple[str, int, str]) -> None:
    host, _, token = node
    assert host == "127.0.0.1"
    assert len(token) == 32


def test_a_stranger_gets_no_memory(node: tuple[str, int, str]) -> None:
    with socket.create_connection(node[:2], 30) as sock:
        sock.sendall(struct.pack("<IQ", 16, 1 << 32))
        assert sock.recv(1) == b"", "closed, not waited for four gigabytes"


def test_a_runtime_that_says_nonsense_is_told_so(node: tuple[str, int, str]) -> None:
    host, _, token = node
    setup = Setup("n", {"model_path": "m", "of_another_version": 1}, token, host, "auto")
    assert "of_another_version" in said(node, setup).title
    assert "token" in said(node, Setup("n", {}, "wrong", host, "auto")).title
    assert "first order" in said(node, Halt()).title


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--help"], 0, ""),
        (["--lisen", "7001"], 1, "The command line is wrong"),
        (["--listen", "here"], 1, "--listen here is no address"),
        (["--listen", "127.0.0.1:99999"], 1, "99999 is no address"),
    ],
)
def test_a_wrong_command_line_is_told_with_the_right_one(
    words: list[str], code: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    out, err = capfd.readouterr()
    assert says in err
    assert "--listen HOST:PORT" in out + err
