"""Tries grammars in a process of their own, which a hostile one may crash, fill or block without harm.

The library that compiles grammars is native code that recurses: ten thousand rules in a chain overflow its stack, and
that cannot be caught. What this process got through within its limits is compiled again where it is used.

Its vocabulary is the 256 bytes: what a grammar costs before it is used hardly depends on the vocabulary, and so the
process is there at once and small.

Protocol of the child: each line on its standard input is a `Grammar` as JSON, each line on its standard output the
reason against it as a JSON string, empty when there is none; the first line says that it is ready.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
import sys
import threading
from typing import ClassVar

from sagellm_core.errors import EngineError
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.sampling import Grammar

SECONDS = 5.0
"""What a grammar may take before its process is killed; starting the process comes on top."""
START_SECONDS = 60.0
_MEMORY = 4 << 30
# Half the stack of an ordinary thread: what fits here fits where it is used.
_STACK = 4 << 20


class GrammarGuard:
    """The parent's side: one child, started when first needed and again after it died. Used from one thread."""

    def __init__(self) -> None:
        self._command = [sys.executable, "-m", __name__]
        self._child: subprocess.Popen[bytes] | None = None

    def objection(self, grammar: Grammar) -> str:
        """Why this grammar cannot be used; empty when it can."""
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(grammar.model_dump_json().encode() + b"\n")
            child.stdin.flush()
            answer = _line(child, SECONDS)
        except BrokenPipeError:
            answer = b""
        if not answer:
            self.close()
            return "it takes too much time or memory"
        return str(json.loads(answer))

    def close(self) -> None:
        """End the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is None:
            return
        atexit.unregister(self.close)
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # what it never read
                stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._child is None:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            atexit.register(self.close)
            if not _line(self._child, START_SECONDS):
                self.close()
                raise EngineError(ErrorCode.UNAVAILABLE, "the process that tries grammars does not start")
            assert self._child is not None
        return self._child


def _line(child: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The child's next line; empty when none comes in time, or ever. Answers are one short write each."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    return child.stdout.readline() if ready else b""


class _Bytes:
    """A vocabulary of the single bytes and an end, in the form that llguidance asks for."""

    eos_token_id = 256
    bos_token_id = None
    tokens: ClassVar[list[bytes]] = [*(bytes([value]) for value in range(256)), b"<end>"]
    special_token_ids: ClassVar[list[int]] = [256]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def _serve() -> None:
    from llguidance import LLTokenizer, TokenizerWrapper

    from sagellm_core.decoding.grammar import compile_grammar

    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()))
    print('"ready"', flush=True)
    for line in sys.stdin:
        try:
            compile_grammar(tokenizer, Grammar.model_validate_json(line))
        except EngineError as error:
            print(json.dumps(str(error)), flush=True)
        else:
            print('""', flush=True)


def main() -> None:
    """The child's side, until its standard input ends."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # a system without such limits
        pass
    threading.stack_size(_STACK)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
