"""One engine's process: started with a model, asked to run prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peer
from benchmarks.peer import PeerFailedError

__all__ = ["PeerFailedError", "PeerProcess", "Run"]

_SCRIPTS = Path(__file__).parent / "peers"
_ENVIRON = {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Run:
    """One scenario, once: tokens that came, seconds of wall and of processor time of the peer's process."""

    tokens: int
    wall: float
    cpu: float


class PeerProcess(peer.PeerProcess):
    """A process with an engine: its script has `load(**options) -> note` and `run(prompts, max_tokens) -> tokens`.

    `load` gets ready to run and returns a note for the report (type of the weights, say); `run` continues all prompts
    at once, greedily, by exactly `max_tokens` each.
    """

    def __init__(self, name: str, environment: str, script: str) -> None:
        super().__init__(name, environment, _SCRIPTS / f"{script}.py", _ENVIRON)

    def load(self, **options: Any) -> tuple[float, str]:
        """Seconds until it was ready, imports left out, and its note."""
        answer = self.ask("load", **options)
        return float(answer["wall"]), str(answer["result"])

    def run(self, prompts: list[list[int]], max_tokens: int, *, timeout: float = 180) -> Run:
        """Run prompts at once. Raises PeerFailedError, also when another number of tokens came than was asked for."""
        answer = self.ask("run", timeout=timeout, prompts=prompts, max_tokens=max_tokens)
        run = Run(int(answer["result"]), float(answer["wall"]), float(answer["cpu"]))
        if run.tokens != len(prompts) * max_tokens:
            raise PeerFailedError(f"gave {run.tokens} tokens instead of {len(prompts) * max_tokens}", alive=True)
        return run
