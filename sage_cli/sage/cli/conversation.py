"""A conversation with the model through the gateway: keeps the turns, streams each answer, lets Ctrl-C cut it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sage.common.errors import NotRunningError

if TYPE_CHECKING:
    from sage.llm import UnifiedInferenceClient


class Conversation:
    """The turns so far and the client that answers; ``write`` gets each piece of an answer as it comes."""

    def __init__(
        self,
        client: UnifiedInferenceClient,
        *,
        system: str | None = None,
        options: dict[str, Any] | None = None,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._client = client
        self._system = system
        self._options = options or {}
        self._write = write or _to_stdout
        self.turns: list[dict[str, str]] = []

    @classmethod
    def open(
        cls, *, model: str | None, system: str | None, max_tokens: int | None, temperature: float | None
    ) -> Conversation:
        """A conversation through the local gateway; options that are None are left to the model."""
        from sage.cli.chosen import chosen_text
        from sage.llm import UnifiedInferenceClient

        given = {"max_tokens": max_tokens, "temperature": temperature}
        client = UnifiedInferenceClient.create(default_llm_model=model or chosen_text("chat.model"))
        return cls(client, system=system, options={k: v for k, v in given.items() if v is not None})

    def answer(self, text: str) -> bool:
        """Ask ``text`` and stream the answer; False when Ctrl-C cut it short (what came stays in the conversation).

        Raises what the client raises; the turn is then forgotten.
        """
        self.turns.append({"role": "user", "content": text})
        pieces: list[str] = []
        finished = True
        try:
            self._stream(pieces)
        except KeyboardInterrupt:
            finished = False
        except BaseException:
            self.turns.pop()
            raise
        finally:
            if pieces:
                self._write("\n")
        self.turns.append({"role": "assistant", "content": "".join(pieces)})
        return finished

    def check(self) -> None:
        """Raise NotRunningError where no gateway answers."""
        status = self._client.get_status()
        if not status["gateway_available"]:
            raise NotRunningError("There is nobody to talk to", cause=status["error"], hint=status["hint"])

    def forget(self) -> None:
        """Start over; the system message stays."""
        self.turns.clear()

    def _stream(self, pieces: list[str]) -> None:
        head = [{"role": "system", "content": self._system}] if self._system else []
        stream: Iterator[str] = self._client.stream_chat([*head, *self.turns], **self._options)
        # Closing the generator closes the connection, and the gateway then cancels the engine's work.
        with closing(stream):  # type: ignore[type-var]
            for piece in stream:
                pieces.append(piece)
                self._write(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()


def _to_stdout(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
