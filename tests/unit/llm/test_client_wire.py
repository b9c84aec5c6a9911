"""What the client says and hears, without a network."""

import base64
import json
import pathlib
from array import array
from typing import Any

import pytest

from sage.common.errors import ConfigError, ModelError, NotRunningError, SageError, UpstreamError
from sage.common.process import ProcessIdentity
from sage.llm import client_wire as wire
from sage.llm.client_retries import MAX_REFUSALS, RETURN_SECONDS, Attempts

httpx = pytest.importorskip("httpx")


@pytest.mark.spec("G1", "P4")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://localhost:8889/v1", "http://localhost:8889/v1"),
        ("http://localhost:8889", "http://localhost:8889/v1"),
        ("http://localhost:8889/", "http://localhost:8889/v1"),
        ("https://gate.example/api/v1/", "https://gate.example/api/v1"),
    ],
)
def test_addresses(given: str, expected: str) -> None:
    assert wire.resolve_base_url(given) == expected


@pytest.mark.spec("G1", "P4")
def test_the_order_argument_environment_default(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGE_UNIFIED_BASE_URL", raising=False)
    assert wire.resolve_base_url(None).endswith(":8889/v1")
    monkeypatch.setenv("SAGE_UNIFIED_BASE_URL", "http://10.0.0.1:1234")
    assert wire.resolve_base_url(None) == "http://10.0.0.1:1234/v1"
    assert wire.resolve_base_url("http://10.0.0.2:1") == "http://10.0.0.2:1/v1"


@pytest.mark.parametrize("wrong", ["localhost:8889", "ftp://x/v1", "http://", "", "8889"])
def test_a_wrong_address_is_said(wrong: str) -> None:
    with pytest.raises(ConfigError, match="no address of a gateway"):
        wire.resolve_base_url(wrong)


def test_payloads() -> None:
    message = {"role": "user", "content": "hi"}
    assert wire.chat_payload("hi", None, {"seed": 1, "stop": None}, stream=False) == {
        "model": "default",
        "messages": [message],
        "seed": 1,
    }
    assert wire.chat_payload([message], "m", {}, stream=True)["stream"] is True
    with pytest.raises(ConfigError, match="at least one message"):
        wire.chat_payload([], None, {}, stream=False)
    parts = wire.embed_payloads(["x"] * 1030, None)
    assert [len(part["input"]) for part in parts] == [512, 512, 6]
    assert [len(part["input"]) for part in wire.embed_payloads(["x" * 600_000] * 2, None)] == [1, 1]
    with pytest.raises(TypeError, match="expected texts, got int"):
        wire.embed_payloads(["a", 1], None)  # type: ignore[list-item]


def test_vectors_in_any_order_and_either_format() -> None:
    packed = base64.b64encode(array("f", [0.5, -1.0]).tobytes()).decode()
    answer = {"data": [{"index": 1, "embedding": [3.0]}, {"index": 0, "embedding": packed}]}
    assert wire.read_vectors(answer, 2) == [[0.5, -1.0], [3.0]]
    cases: list[dict[str, Any]] = [{}, {"data": [{}]}, {"data": [{"index": 0, "embedding": "!"}]}]
    for broken in cases:
        with pytest.raises(UpstreamError, match="cannot be read"):
            wire.read_vectors(broken, 1)


@pytest.mark.parametrize("indices", [[], [0], [0, 0], [1, 2], [0, 1, 2]])
def test_each_text_gets_its_vector_or_all_get_an_error(indices: list[int]) -> None:
    with pytest.raises(UpstreamError, match="2 texts"):
        wire.read_vectors({"data": [{"index": index, "embedding": [1.0]} for index in indices]}, 2)


def test_an_idempotency_key_stands_for_one_request() -> None:
    assert wire.part_keys("k", 1) == ["k"]
    assert wire.part_keys("k", 3) == ["k.1", "k.2", "k.3"]
    assert wire.part_keys(None, 2) == [None, None]
    assert wire.part_keys("k", 0) == []


def test_answers_without_text() -> None:
    assert wire.read_chat({"choices": [{"message": {"content": None, "tool_calls": []}}]}) == ""
    cases: list[dict[str, Any]] = [{}, {"choices": []}, {"choices": [1]}]
    for broken in cases:
        with pytest.raises(UpstreamError):
            wire.read_chat(broken)


def test_events() -> None:
    lines = ["", ": ping", 'data: {"choices":[{"delta":{"content":"a"}}]}', 'data: {"choices":[]}', "data: [DONE]"]
    assert list(wire.deltas(iter(lines), chat=True)) == ["a"]
    with pytest.raises(UpstreamError, match="broke off"):
        list(wire.deltas(iter(lines[:3]), chat=True))
    with pytest.raises(UpstreamError, match="The answer broke off: it died"):
        list(wire.deltas(iter(['data: {"error": {"message": "it died"}}']), chat=True))
    with pytest.raises(UpstreamError, match="no JSON"):
        list(wire.deltas(iter(["data: {oops"]), chat=True))


@pytest.mark.spec("X12")
@pytest.mark.parametrize(
    ("status", "body", "kind", "says", "hint"),
    [
        (503, {"error": {"message": "No LLM engine is running. Start one", "code": "engine_unavailable"}},
         NotRunningError, "No LLM engine is running", "sage llm serve"),
        (404, {"error": {"message": "There is no model 'x'.", "code": "model_not_found"}},
         ModelError, "no model 'x'", "sage llm status"),
        (429, {"error": {"message": "busy"}}, UpstreamError, "busy", "Try again"),
        (400, {"error": {"message": "too long"}}, UpstreamError, "refused (400): too long", ""),
        (500, {"detail": "x"}, UpstreamError, "refused (500)", "sage llm logs"),
        (502, "<html>", UpstreamError, "<html>", "Try again"),
        (400, {"error": "plain"}, UpstreamError, "plain", ""),
    ],
)  # fmt: skip
def test_refusals_become_errors(status: int, body: object, kind: type[SageError], says: str, hint: str) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    error = wire.error_of(httpx.Response(status, text=content, headers={"x-sage-request-id": "r1"}))
    assert type(error) is kind
    assert says in str(error)
    assert hint in error.hint
    assert error.details["request_id"] == "r1"


def test_which_refusals_are_tried_again() -> None:
    def pause(status: int, refusals: int = 0, body: bytes = b"{}", after: str | None = None) -> float | None:
        headers = {"retry-after": after} if after else {}
        attempts = Attempts("http://127.0.0.1:1/v1", refusals=refusals)
        return attempts.after_refusal(httpx.Response(status, headers=headers, content=body), body)

    assert pause(429, after="3") == 3
    assert pause(429, after="3600") is None
    assert pause(503) == 0.25
    assert pause(503, 1) == 0.5
    assert pause(503, MAX_REFUSALS) is None
    assert pause(503, body=b'{"error": {"code":"engine_unavailable"}}') is None
    assert pause(400) is None
    assert pause(500) is None


@pytest.mark.spec("R1")
def test_only_a_supervised_gateway_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    now = [0.0]
    refused = httpx.ConnectError("refused")

    def attempts(url: str = "http://localhost:8889/v1") -> Attempts:
        return Attempts(url, clock=lambda: now[0])

    assert attempts().after_failure(refused) is None, "no stack"
    me = ProcessIdentity.current()
    supervisor = {"pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id}
    gateway = {"kind": "gateway", "state": "backing-off", "url": "http://127.0.0.1:8889", "port": 8889}
    (tmp_path / "llm").mkdir()
    file = tmp_path / "llm" / "daemon.json"
    file.write_text(json.dumps({"supervisor": supervisor, "daemons": {"gateway": gateway}}))
    waiting = attempts()
    assert waiting.after_failure(refused) == 0.25
    assert waiting.after_failure(httpx.RemoteProtocolError("gone")) == 0.25
    assert waiting.after_failure(httpx.ReadTimeout("slow")) is None
    assert attempts("http://127.0.0.1:9999/v1").after_failure(refused) is None, "another gateway"
    now[0] = RETURN_SECONDS
    assert waiting.after_failure(refused) is None, "not for ever"
    file.write_text(json.dumps({"supervisor": supervisor, "daemons": {"gateway": gateway | {"state": "crash-loop"}}}))
    assert attempts().after_failure(refused) is None, "given up"
    file.write_text(json.dumps({"daemons": {"gateway": gateway}}))
    assert attempts().after_failure(refused) is None, "no supervisor"


def test_status_of_any_openai_compatible_server() -> None:
    assert wire.read_status("u", None, ["m"])["llm_available"] is True
    assert wire.read_status("u", {"status": "ok"}, [])["llm_available"] is False
    engines = [{"kind": "llm", "state": "starting"}, {"kind": "embedding", "state": "ready"}]
    status = wire.read_status("u", {"engines": engines}, ["hash"])
    assert (status["llm_available"], status["embedding_available"]) == (False, True)
    assert "sage llm serve" in status["hint"]
