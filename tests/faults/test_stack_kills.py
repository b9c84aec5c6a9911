"""kill -9 against the whole stack: the engine while it streams, then the supervisor."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(150)]


def daemons(sage: Any) -> dict[str, dict[str, Any]]:
    listed = json.loads(sage("llm", "status", "--json", check=False).stdout)
    return {row["name"]: row for row in listed["daemons"]}


def ask(url: str, **body: Any) -> httpx.Response:
    question = [{"role": "user", "content": "What is SAGE?"}]
    return httpx.post(f"{url}/v1/chat/completions", json={"messages": question, "max_tokens": 8} | body, timeout=60)


@pytest.mark.spec("R1", "G6", "E8")
def test_an_engine_killed_in_mid_stream_is_reported_and_restarted(sage: Any, until: Callable[..., None]) -> None:
    """Accept 5: the client gets an error event, the supervisor restarts the engine, the next request is answered."""
    sage("llm", "serve")
    before = daemons(sage)
    gateway = before["gateway"]["url"]
    body = {
        "messages": [{"role": "user", "content": "Tell me about SAGE."}],
        "stream": True,
        "max_tokens": 900,
        "ignore_eos": True,
    }
    received: list[str] = []
    with httpx.stream("POST", f"{gateway}/v1/chat/completions", json=body, timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data:"):
                received.append(line.removeprefix("data:").strip())
            if len(received) == 5:
                os.kill(before["engine"]["pid"], signal.SIGKILL)
    assert "[DONE]" not in received
    assert "error" in json.loads(received[-1])

    answered = ask(gateway)
    assert answered.status_code == 200, answered.text
    until(lambda: daemons(sage)["engine"]["state"] == "ready", what="the engine is ready again")
    after = daemons(sage)
    assert after["engine"]["pid"] != before["engine"]["pid"]
    assert after["engine"]["restarts"] == 1
    assert after["gateway"]["pid"] == before["gateway"]["pid"]
    sage("llm", "stop")
    assert sage.processes() == []


@pytest.mark.spec("R1", "X6")
def test_status_and_stop_tell_the_truth_without_a_supervisor(sage: Any, until: Callable[..., None]) -> None:
    """Accept 5: kill -9 of the supervisor; status still tells the truth, requests are answered, stop stops."""
    sage("llm", "serve")
    before = daemons(sage)
    supervisors = [p for p in sage.processes() if p.pid not in {row["pid"] for row in before.values()}]
    assert len(supervisors) == 1
    supervisors[0].kill()
    until(lambda: not supervisors[0].is_running(), what="the supervisor is gone")

    status = sage("llm", "status", check=False)
    assert "supervisor" in status.stdout + status.stderr
    assert {name: row["pid"] for name, row in daemons(sage).items()} == {n: r["pid"] for n, r in before.items()}
    assert ask(before["gateway"]["url"]).status_code == 200

    os.kill(before["embedding"]["pid"], signal.SIGKILL)
    until(lambda: daemons(sage)["embedding"]["state"] not in {"ready", "starting"}, what="the dead daemon is told")
    sage("llm", "stop")
    assert sage("llm", "status", check=False).returncode == 3
    assert sage.processes() == []


@pytest.mark.spec("R1")
def test_a_new_supervisor_adopts_what_lives_and_starts_what_died(sage: Any, until: Callable[..., None]) -> None:
    sage("llm", "serve")
    before = daemons(sage)
    for process in sage.processes():
        if process.pid not in {row["pid"] for row in before.values()}:
            process.kill()
    os.kill(before["engine"]["pid"], signal.SIGKILL)
    sage("llm", "serve")
    after = daemons(sage)
    assert {row["state"] for row in after.values()} == {"ready"}
    assert after["gateway"]["pid"] == before["gateway"]["pid"]
    assert after["engine"]["pid"] != before["engine"]["pid"]
    assert ask(after["gateway"]["url"]).status_code == 200
    sage("llm", "stop")
    assert sage.processes() == []
