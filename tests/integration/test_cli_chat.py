"""``sage chat`` and ``sage embed`` as real processes, on a terminal and in a pipe, against a scripted OpenAI server."""

import http.server
import json
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import pexpect
import pytest

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))
Terminal: TypeAlias = "pexpect.spawn[str]"
ANSWER = "It is a local AI stack."
SLOWLY = "slowly"


class Server(http.server.ThreadingHTTPServer):
    """Answers every chat with ANSWER, word by word; a question that holds "slowly" gets words without end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.left_early = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._json({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.path.endswith("/embeddings"):
            rows = [{"index": i, "embedding": [float(i), 1.0]} for i, _ in enumerate(body["input"])]
            self._json({"object": "list", "data": rows, "model": "hash"})
        elif body["messages"][-1]["content"] == "fail":
            self._json({"error": {"message": "The engine is tired", "type": "server_error"}}, status=500)
        else:
            self._stream(endless=SLOWLY in body["messages"][-1]["content"])

    def _json(self, value: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, *, endless: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        words = [f"{word} " for word in ANSWER.split()]
        try:
            while True:
                for word in words:
                    event = {"choices": [{"index": 0, "delta": {"content": word}}]}
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                    self.wfile.flush()
                    time.sleep(0.02 if endless else 0)
                if not endless:
                    break
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left_early.set()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(sage: Any) -> Iterator[Server]:
    """A gateway of our own; the ``sage`` command is pointed at it through the project's sage.toml."""
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        (sage.cwd / "sage.toml").write_text(f'base_url = "{running.url}"\n')
        yield running
        running.shutdown()


@pytest.fixture
def terminal(sage: Any, server: Server) -> Iterator[Terminal]:
    """``sage chat`` on a terminal, at its first prompt."""
    env = {k: v for k, v in sage.env.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    child = pexpect.spawn(SAGE, ["chat"], env=env, cwd=str(sage.cwd), encoding="utf-8", timeout=20)
    child.expect("> ")
    yield child
    child.close(force=True)


@pytest.mark.spec("X10")
def test_one_question_from_the_command_line(sage: Any, server: Server) -> None:
    done = sage("chat", "What", "is", "SAGE?", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "9")
    assert done.stdout.strip() == ANSWER
    assert done.stderr == ""
    (body,) = server.bodies
    assert [turn["content"] for turn in body["messages"]] == ["Be brief.", "What is SAGE?"]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 9, True)


@pytest.mark.spec("X10", "X11")
def test_the_question_comes_through_a_pipe(sage: Any, server: Server) -> None:
    for words in (["chat"], ["chat", "Shorten:", "-"]):
        done = subprocess.run(
            [SAGE, *words],
            input="a long\ntext\n",
            capture_output=True,
            text=True,
            env=sage.env,
            cwd=sage.cwd,
            check=True,
        )
        assert done.stdout.strip() == ANSWER
    assert [body["messages"][0]["content"] for body in server.bodies] == ["a long\ntext", "Shorten: a long\ntext"]


def test_no_question_at_all_is_wrong_usage(sage: Any, server: Server) -> None:
    done = subprocess.run(
        [SAGE, "chat"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=sage.env,
        cwd=sage.cwd,
        check=False,
    )
    assert done.returncode == 2
    assert "There is no question" in done.stderr


@pytest.mark.spec("X10")
def test_a_conversation_on_a_terminal(terminal: Terminal, server: Server) -> None:
    terminal.sendline("What is SAGE?")
    terminal.expect(ANSWER)
    terminal.expect("> ")
    terminal.sendline("And who are you?")
    terminal.expect(ANSWER)
    terminal.expect("> ")
    terminal.sendline("/new")
    terminal.expect("> ")
    terminal.sendline("Hello")
    terminal.expect(ANSWER)
    terminal.expect("> ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert [len(body["messages"]) for body in server.bodies] == [1, 3, 1]


@pytest.mark.spec("X10", "G6")
def test_ctrl_c_cuts_an_answer_short_and_the_conversation_goes_on(terminal: Terminal, server: Server) -> None:
    """The connection is closed, which is what cancels the engine's work; at the prompt Ctrl-C leaves with 130."""
    terminal.sendline(f"Count {SLOWLY}")
    terminal.expect("AI stack")
    terminal.sendintr()
    terminal.expect("cut short")
    terminal.expect("> ")
    assert server.left_early.wait(10)
    terminal.sendline("Hello")
    terminal.expect(ANSWER)
    terminal.expect("> ")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130


def test_an_error_is_told_and_the_conversation_goes_on(terminal: Terminal) -> None:
    terminal.sendline("fail")
    terminal.expect("error:")
    terminal.expect("tired")
    terminal.expect("> ")
    terminal.sendline("Hello")
    terminal.expect(ANSWER)
    terminal.sendline("/exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


@pytest.mark.spec("X12")
def test_no_conversation_begins_without_a_gateway(sage: Any, free_port: Any) -> None:
    (sage.cwd / "sage.toml").write_text(f'base_url = "http://127.0.0.1:{free_port()}/v1"\n')
    child = pexpect.spawn(SAGE, ["chat"], env=sage.env, cwd=str(sage.cwd), encoding="utf-8", timeout=20)
    child.expect("sage llm serve")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


@pytest.mark.spec("X10", "X11")
def test_ctrl_c_in_a_single_answer_is_130(sage: Any, server: Server) -> None:
    child = pexpect.spawn(SAGE, ["chat", SLOWLY], env=sage.env, cwd=str(sage.cwd), encoding="utf-8", timeout=20)
    child.expect("AI stack")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in (child.before or "")
    assert server.left_early.wait(10)


@pytest.mark.spec("X10", "X11")
def test_embed_prints_one_object_a_line_or_one_array(sage: Any, server: Server) -> None:
    rows = [json.loads(line) for line in sage("embed", "Hello", "World").stdout.splitlines()]
    assert [(row["index"], row["text"], row["dim"], row["embedding"]) for row in rows] == [
        (0, "Hello", 2, [0.0, 1.0]),
        (1, "World", 2, [1.0, 1.0]),
    ]
    assert [row["text"] for row in json.loads(sage("embed", "a", "b", "--json").stdout)] == ["a", "b"]
    piped = subprocess.run(
        [SAGE, "embed"], input="one\n\ntwo\n", capture_output=True, text=True, env=sage.env, cwd=sage.cwd, check=True
    )
    assert [json.loads(line)["text"] for line in piped.stdout.splitlines()] == ["one", "two"]


@pytest.mark.spec("X12")
@pytest.mark.parametrize("words", [["chat", "Hello"], ["embed", "Hello"]], ids=" ".join)
def test_no_gateway_says_how_to_start_it(words: list[str], sage: Any, free_port: Any) -> None:
    (sage.cwd / "sage.toml").write_text(f'base_url = "http://127.0.0.1:{free_port()}/v1"\n')
    done = sage(*words, check=False)
    assert done.returncode == 3
    assert "sage llm serve" in done.stderr
    assert "Traceback" not in done.stderr
