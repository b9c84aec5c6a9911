"""Tries grammars in a process of their own, which a hostile one may crash, fill or block without harm.

The library that compiles grammars is native code that recurses: ten thousand rules in a chain overflow its stack, and
that cannot be caught. What this process got through within its limits is compiled again where it is used.

Protocol of the child: it is started with a model folder and a vocabulary size; each line on its standard input is a
`Grammar` as JSON, each line on its standard output the reason against it as a JSON string, empty when there is none.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
import sys
import threading
from pathlib import Path

from sagellm_core.errors import EngineError
from sagellm_protocol.errors import ErrorCode
from sagellm_protocol.sampling import Grammar

SECONDS = 5.0
"""What a grammar may take before its process is killed; starting the process and reading a tokenizer come on top."""
START_SECONDS = 60.0
_MEMORY = 4 << 30
# Half the stack of an ordinary thread: what fits here fits where it is used.
_STACK = 4 << 20


class GrammarGuard:
    """The parent's side: one child, started when first needed and again after it died. Used from one thread."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._command = [sys.executable, "-m", __name__, str(folder), str(vocab_size)]
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


def _serve(folder: Path, vocab_size: int) -> None:
    from sagellm_core.decoding.grammar import GrammarCompiler

    compiler = GrammarCompiler(folder, vocab_size)
    compiler.start(Grammar(kind="json_object"))
    print('"ready"', flush=True)
    for line in sys.stdin:
        try:
            compiler.start(Grammar.model_validate_json(line))
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
    thread = threading.Thread(target=_serve, args=(Path(sys.argv[1]), int(sys.argv[2])))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
