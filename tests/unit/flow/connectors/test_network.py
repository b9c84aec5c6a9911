"""Sockets, event streams and webhooks, over real connections (SPEC K10)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.flow.connectors.harness import context, read, reader, until
from tests.unit.flow.connectors.servers import request_head, reset, serving

from sage.common.errors import PipelineError, UpstreamError
from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.connectors.backoff import Retry
from sage.core.connectors.sockets import SocketSource
from sage.core.connectors.sse import EventParser, SseSource
from sage.core.connectors.threaded import ThreadedReader
from sage.core.connectors.webhook import WebhookReader, WebhookSource
from sage.core.runtime import session

pytestmark = pytest.mark.spec("K10")
QUICK = Retry(attempts=5, first=0.01, most=0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class TestSockets:
    def test_lines_until_the_server_closes(self) -> None:
        def talk(connection: socket.socket, number: int) -> None:
            connection.sendall(b"one\r\ntw")
            connection.sendall("o é\nlast".encode())

        with serving(talk) as server:
            made = reader(SocketSource("127.0.0.1", server.server_address[1], retry=QUICK))
            assert read(made) == ["one", "two é", "last"]
            made.close()

    def test_a_broken_connection_is_made_again_and_half_a_line_is_no_record(self) -> None:
        def talk(connection: socket.socket, number: int) -> None:
            connection.sendall(b"first\nhal" if number == 1 else b"second\n")
            if number == 1:
                until(lambda: records)
                reset(connection)

        records: list[Any] = []
        with serving(talk) as server:
            made = reader(SocketSource("127.0.0.1", server.server_address[1], retry=QUICK))
            records += read(made, 1)
            records += read(made)
            made.close()
        assert records == ["first", "second"]

    def test_reconnecting_after_the_end(self) -> None:
        with serving(lambda connection, number: connection.sendall(b"%d\n" % number)) as server:
            made = reader(SocketSource("127.0.0.1", server.server_address[1], reconnect=True, retry=QUICK))
            assert read(made, 3) == ["1", "2", "3"]
            made.close()

    def test_nobody_there(self) -> None:
        made = reader(SocketSource("127.0.0.1", free_port(), retry=QUICK))
        with pytest.raises(UpstreamError, match=r"connection to 127.0.0.1:\d+ is lost.*refused"):
            read(made)
        made.close()

    def test_a_line_in_another_encoding_is_a_bad_record(self) -> None:
        told: list[object] = []
        with serving(lambda connection, number: connection.sendall(b"a\n\xff\nb\n")) as server:
            source = SocketSource("127.0.0.1", server.server_address[1], retry=QUICK)
            made = reader(source, None, context(bad_record=lambda record, error: told.append(record)))
            assert read(made) == ["a", "b"]
            made.close()
        assert told == ["\\xff"]

    def test_a_job_can_be_cancelled_while_nothing_comes(self) -> None:
        silent = threading.Event()

        def talk(connection: socket.socket, number: int) -> None:
            silent.wait(30)

        with serving(talk) as server:
            env = LocalEnvironment("silent")
            env.from_socket("127.0.0.1", server.server_address[1]).print()
            handle = env.submit(block=False)
            until(lambda: server.connections)
            handle.cancel()
            assert handle.wait(20) == "cancelled"
            silent.set()


STREAM = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"


class TestEvents:
    @given(st.lists(st.integers(1, 12), max_size=30), st.sampled_from(["\n", "\r\n", "\r"]))
    def test_events_do_not_depend_on_how_the_bytes_are_cut(self, cuts: list[int], end: str) -> None:
        lines = [": hello", "event: add", "data: é", "data:  two", "id: 7", "", "", "retry: 30", "data", "", "id:x"]
        lines += ["event: none", "", "data: {}", "nonsense: 1", "", "data: unfinished"]
        data = ("\ufeff" + end.join(lines)).encode()
        parser, events = EventParser(), []
        for cut in cuts:
            events += list(parser.feed(data[:cut]))
            data = data[cut:]
        events += list(parser.feed(data)) + list(parser.feed(end.encode()))
        assert events == [
            {"event": "add", "data": "é\n two", "id": "7"},
            {"event": "message", "data": "", "id": "7"},
            {"event": "message", "data": "{}", "id": "x"},
        ]
        assert parser.retry == 0.03

    def test_an_endless_event_is_refused(self) -> None:
        parser = EventParser()
        with pytest.raises(ValueError, match="longer than"):
            list(parser.feed((b"data: " + b"x" * 2**19 + b"\n") * 40))
        with pytest.raises(ValueError, match="longer than"):
            list(EventParser().feed(b"x" * 2**25))

    @contextmanager
    def server(self, heads: list[str], *, close_at: int, broken: int = 0) -> Iterator[str]:
        """Ten events with ids, three at a time, each connection going on behind `Last-Event-ID`; then 204."""

        def talk(connection: socket.socket, number: int) -> None:
            head = request_head(connection)
            heads.append(head)
            start = next((int(x[15:]) for x in head.lower().splitlines() if x.startswith("last-event-id:")), 0)
            if start >= close_at:
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                return
            events = [f"id: {n}\ndata: {json.dumps({'n': n})}\n\n" for n in range(start + 1, start + 4)]
            connection.sendall((STREAM + "retry: 1\n\n" + "".join(events) + "data: torn").encode())
            if number == broken:
                reset(connection)

        with serving(talk) as server:
            yield f"http://127.0.0.1:{server.server_address[1]}/events"

    def test_it_goes_on_behind_the_last_event(self) -> None:
        heads: list[str] = []
        with self.server(heads, close_at=9, broken=2) as url:
            source = SseSource(url, {"X-Key": "k"}, json=True, retry=QUICK)
            made = reader(source)
            records = read(made, 4)
            stored = made.snapshot()
            made.close()
            assert stored[0].position == "4"
            made = reader(source, stored)
            records += read(made)
            made.close()
        assert [record["n"] for record in records][:4] == [1, 2, 3, 4]
        assert sorted({record["n"] for record in records}) == [record["n"] for record in records]
        assert all("x-key: k" in head.lower() for head in heads)

    def test_a_restored_reader_asks_for_what_comes_behind_its_position(self) -> None:
        heads: list[str] = []
        with self.server(heads, close_at=6) as url:
            source = SseSource(url, retry=QUICK, reconnect=False)
            first = reader(source)
            assert [event["id"] for event in read(first, 2)] == ["1", "2"]
            again = reader(source, first.snapshot())
            first.close()
            assert [event["id"] for event in read(again)] == ["3", "4", "5"]
            again.close()
        assert "last-event-id: 2" in heads[-1].lower()

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
            ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", "answered 200 text/html"),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "is lost.*answered 503"),
            ("garbage\r\n\r\n", "is lost"),
        ],
    )
    def test_answers_that_are_no_stream(self, answer: str, said: str) -> None:
        def talk(connection: socket.socket, number: int) -> None:
            request_head(connection)
            connection.sendall(answer.encode())

        with serving(talk) as server:
            source = SseSource(f"http://127.0.0.1:{server.server_address[1]}/", retry=Retry(1, 0.001))
            made = reader(source)
            with pytest.raises(UpstreamError, match=said):
                read(made)
            made.close()

    def test_data_that_is_no_json_is_a_bad_record(self) -> None:
        told: list[Any] = []

        def bad(record: Any, error: Exception) -> None:
            told.append(record["data"])

        def talk(connection: socket.socket, number: int) -> None:
            request_head(connection)
            connection.sendall((STREAM + "data: {\n\ndata: 2\n\n").encode())

        with serving(talk) as server:
            source = SseSource(f"http://127.0.0.1:{server.server_address[1]}/", json=True, reconnect=False)
            made = reader(source, None, context(bad_record=bad))
            assert read(made) == [2]
            made.close()
        assert told == ["{"]

    def test_a_job_can_be_cancelled_while_nothing_comes(self) -> None:
        silent = threading.Event()

        def talk(connection: socket.socket, number: int) -> None:
            request_head(connection)
            connection.sendall(STREAM.encode())
            silent.wait(30)

        with serving(talk) as server:
            env = LocalEnvironment("silent")
            env.from_sse(f"http://127.0.0.1:{server.server_address[1]}/").print()
            handle = env.submit(block=False)
            until(lambda: server.connections)
            handle.cancel()
            assert handle.wait(20) == "cancelled"
            silent.set()


def post(port: int, record: Any, key: str = "", **headers: str) -> httpx.Response:
    headers |= {"Idempotency-Key": key} if key else {}
    return httpx.post(f"http://127.0.0.1:{port}/in", json=record, headers=headers, timeout=20)


@contextmanager
def listening(stored: Any = None, **options: Any) -> Iterator[tuple[WebhookReader, int]]:
    port = free_port()
    made = reader(WebhookSource(port, path="/in", **options), stored)
    assert isinstance(made, WebhookReader)
    assert made.poll(10, 0.0) == []
    until(lambda: _answers(port))
    try:
        yield made, port
    finally:
        made.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class TestWebhooks:
    def test_requests_are_records(self) -> None:
        with listening() as (made, port):
            assert post(port, {"n": 1}).json() == {"status": "ok"}
            text = httpx.post(
                f"http://127.0.0.1:{port}/in?x=1", content="é".encode(), headers={"Content-Type": "text/plain"}
            )
            assert text.status_code == 200
            assert read(made, 2) == [{"n": 1}, "é"]

    def test_what_is_no_record_is_refused(self) -> None:
        with listening(token="secret", max_body=100) as (made, port):
            url = f"http://127.0.0.1:{port}"
            allowed = {"Authorization": "Bearer secret"}
            assert post(port, 1).status_code == 401
            assert post(port, 1, Authorization="Bearer wrong").status_code == 401
            assert httpx.get(f"{url}/in").status_code == 405
            assert httpx.post(f"{url}/other", json=1, headers=allowed).status_code == 404
            assert httpx.post(f"{url}/in", content=b"{", headers=allowed).status_code == 400
            assert httpx.post(f"{url}/in", content=b"\xff", headers=allowed).status_code == 400
            assert httpx.post(f"{url}/in", content=iter([b"1"]), headers=allowed).status_code == 411
            assert httpx.post(f"{url}/in", content=b"1" * 101, headers=allowed).status_code == 413
            with socket.create_connection(("127.0.0.1", port)) as rude:
                rude.sendall(b"POST /in HTTP/1.1\r\nAuthorization: Bearer secret\r\nContent-Length: 5\r\n\r\n1")
            assert post(port, 7, **allowed).status_code == 200
            assert read(made, 1) == [7]
            assert made.poll(10, 0.0) == []

    def test_senders_are_told_to_come_again_when_too_much_waits(self) -> None:
        with listening(capacity=2) as (made, port):
            answers = [post(port, n) for n in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 503]
            assert answers[2].headers["Retry-After"] == "1"
            assert read(made, 2) == [0, 1]
            assert post(port, 3).status_code == 200

    def test_a_request_that_comes_again_is_one_record_after_a_restore_too(self) -> None:
        with listening() as (made, port):
            assert [post(port, n, key=f"k{n}").json()["status"] for n in (1, 2, 2)] == ["ok", "ok", "known"]
            assert read(made, 2) == [1, 2]
            stored = made.snapshot()
            assert post(port, 3, key="k3").status_code == 200  # lost with the job
        with listening(stored) as (made, port):
            assert [post(port, n, key=f"k{n}").json()["status"] for n in (2, 3)] == ["known", "ok"]
            assert read(made, 1) == [3]
            assert made.poll(10, 0.0) == []

    def test_with_checkpoints_the_answer_comes_when_the_record_is_safe(self) -> None:
        answers: list[int] = []

        def send(record: int) -> threading.Thread:
            thread = threading.Thread(target=lambda: answers.append(post(port, record, f"k{record}").status_code))
            thread.start()
            return thread

        with listening(acknowledge="checkpoint") as (made, port):
            first = send(1)
            assert read(made, 1) == [1]
            stored = made.snapshot()
            second = send(2)
            assert read(made, 1) == [2]
            again = send(1)
            assert answers == []
            made.notify_complete(1, stored)
            first.join(20)
            again.join(20)
            assert answers == [200, 200]
            assert made.poll(10, 0.0) == []
        second.join(20)
        assert answers == [200, 200, 503]  # the job ended first: the sender keeps it

    def test_a_port_that_is_taken(self) -> None:
        with serving(lambda connection, number: None) as server:
            made = reader(WebhookSource(server.server_address[1]))
            with pytest.raises(PipelineError, match="Cannot listen at"):
                read(made)
            made.close()

    def test_a_job_with_checkpoints_answers_with_them(self, tmp_path: Path) -> None:
        port = free_port()
        with session.use(session.Session(home=SageHome(tmp_path / ".sage"))):
            env = LocalEnvironment("orders", {"checkpoint.interval": "20ms"})
            seen: list[int] = []
            env.from_webhook(port, path="/in", acknowledge="checkpoint").sink(seen.append)
            handle = env.submit(block=False)
            until(lambda: _answers(port))
            assert [post(port, n, f"k{n}").status_code for n in range(3)] == [200, 200, 200]
            assert seen == [0, 1, 2]
            handle.cancel()
            assert handle.wait(20) == "cancelled"

    def test_the_word_of_acknowledgement_is_checked(self) -> None:
        with pytest.raises(PipelineError, match="got 'never'"):
            LocalEnvironment("x").from_webhook(1, acknowledge="never")


class Fast(ThreadedReader[int]):
    """Counts as fast as it is let."""

    capacity = 10
    made = 0

    def run(self, splits: dict[str, Any]) -> None:
        while True:
            self.put("s", self.made, self.made)
            self.made += 1


def test_a_reader_in_a_thread_reads_ahead_only_so_far_and_its_position_is_what_was_taken() -> None:
    from sage.core.connectors.base import Split

    fast = Fast("fast")
    fast.add_splits([Split("s")])
    assert read(fast, 5) == [0, 1, 2, 3, 4]
    until(lambda: len(fast._read) == 10)
    assert fast.made <= 16
    assert fast.snapshot() == [Split("s", 4)]
    fast.close()
    assert fast._thread is not None
    assert not fast._thread.is_alive()
