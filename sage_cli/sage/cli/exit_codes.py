"""What the exit code of ``sage`` means; ``sage help exit-codes`` prints this table."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "done",
    FAILED: "failed: the message on stderr says what happened, why, and what to type next",
    USAGE: "wrong usage: unknown command or option, bad value, file that is not there",
    NOT_RUNNING: "the local AI services are not running (start them: sage llm serve)",
    INTERRUPTED: "interrupted with Ctrl-C; everything this command started has been stopped",
}
