"""Asking a daemon: what it says, and what it must not be able to do to us."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage.tui.data import scrape
from sage.tui.data.scrape import Scraper

Scrapers = Callable[..., Scraper]


@pytest.fixture
def scraper() -> Iterator[Scrapers]:
    """Make scrapers that are closed at the end."""
    made: list[Scraper] = []

    def make(url: str, timeout_s: float = 0.8) -> Scraper:
        made.append(Scraper(url, timeout_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_health_and_metrics_over_one_connection(scraper: Scrapers, daemon: Callable[..., Any]) -> None:
    engine = daemon("engine", "llm", metrics="sage_x 1\n")
    asker = scraper(engine.url)
    for _ in range(3):
        answer = asker.ask()
        assert (answer.health, answer.metrics, answer.problem) == ("ok", "sage_x 1\n", "")
    assert engine.asked == 6


def test_a_daemon_that_is_not_ready_says_why(scraper: Scrapers, daemon: Callable[..., Any]) -> None:
    engine = daemon("engine", "llm", status=503, health={"status": "starting", "reason": "loading weights"})
    answer = scraper(engine.url).ask()
    assert (answer.health, answer.reason, answer.metrics) == ("starting", "loading weights", "")


def test_metrics_that_answer_503_are_a_problem_not_numbers(scraper: Scrapers, daemon: Callable[..., Any]) -> None:
    answer = scraper(daemon("engine", "llm", metrics_status=503).url).ask()
    assert answer.metrics is None
    assert answer.problem == "/metrics answers 503"


def test_nobody_listens(scraper: Scrapers, free_port: Callable[[], int]) -> None:
    answer = scraper(f"http://127.0.0.1:{free_port()}").ask()
    assert answer.metrics is None
    assert answer.problem == "connection refused"


def test_a_restarted_daemon_is_found_again_at_once(scraper: Scrapers, daemon: Callable[..., Any]) -> None:
    engine = daemon("engine", "llm", metrics="sage_x 1")
    asker, port = scraper(engine.url), engine.port
    assert asker.ask().metrics
    engine.stop()
    assert asker.ask().metrics is None
    engine.start(port)
    assert asker.ask().metrics == "sage_x 1"


@pytest.mark.spec("T3")
def test_a_daemon_that_hangs_holds_us_for_the_timeout_only(scraper: Scrapers, daemon: Callable[..., Any]) -> None:
    engine = daemon("engine", "llm", hold=threading.Event())
    started = time.monotonic()
    answer = scraper(engine.url, timeout_s=0.2).ask()
    assert answer.problem == "no answer in time"
    assert time.monotonic() - started < 2


def test_a_daemon_that_drips_is_cut_off(scraper: Scrapers) -> None:
    """One byte at a time renews a socket's own timeout for ever; the deadline is for the whole answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.01):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        asker = scraper(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3)
        assert asker.ask().problem == "no answer in time"
        assert time.monotonic() - started < 3
        stop.set()
        thread.join()


def test_a_flood_is_cut_off(scraper: Scrapers, daemon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "MAX_BYTES", 10_000)
    answer = scraper(daemon("engine", "llm", metrics="x" * 200_000).url).ask()
    assert answer.problem == "answer too large"


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "https://example.org", "nonsense"])
def test_only_plain_http_addresses_are_asked(scraper: Scrapers, url: str) -> None:
    assert scraper(url).ask().problem == "no address"


def test_something_else_on_the_port_is_a_problem(scraper: Scrapers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-whatever\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        answer = scraper(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.5).ask()
        thread.join()
    assert answer.metrics is None
    assert answer.problem
