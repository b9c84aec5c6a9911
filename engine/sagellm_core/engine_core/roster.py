"""What the workers know of the sequences: who is new, who is a copy of whom, who has ended."""

from __future__ import annotations

from collections.abc import Iterable

from sagellm_core.engine_core.describe import Scheduled
from sagellm_core.engine_core.plan import Fork, NewSequence
from sagellm_core.engine_core.sequence import Sequence


class Roster:
    """Collects what the next plan has to tell. Each sequence is told of once, when its first step comes."""

    def __init__(self) -> None:
        self._unannounced: set[str] = set()
        self._forks: dict[str, tuple[Fork, Sequence]] = {}
        self._finished: list[str] = []
        self._last_told: set[str] = set()
        self._last_finished: list[str] = []

    def enter(self, sequence: Sequence) -> None:
        self._unannounced.add(sequence.seq_id)

    def fork(self, parent: Sequence, child: Sequence, number: int) -> None:
        """`child` begins as a copy of what the workers know of `parent` when the next step begins."""
        self._forks[child.seq_id] = Fork(parent.seq_id, child.seq_id, number), child

    def leave(self, sequence: Sequence) -> None:
        self._unannounced.discard(sequence.seq_id)
        self._forks.pop(sequence.seq_id, None)
        if sequence.is_known:
            self._finished.append(sequence.seq_id)

    def tell(self, scheduled: Iterable[Scheduled]) -> tuple[list[NewSequence], list[Fork], list[str]]:
        """What the plan of these sequences says: who is new, forks, who has ended."""
        new = [item for item, _ in scheduled if item.seq_id in self._unannounced] if self._unannounced else []
        children = [child for _, child in self._forks.values()]
        forks = [fork for fork, _ in self._forks.values()]
        for item in (*new, *children):
            item.is_known = True
        self._unannounced.difference_update(item.seq_id for item in new)
        self._last_told = {item.seq_id for item in (*new, *children)}
        self._last_finished, self._finished, self._forks = self._finished, [], {}
        return [_introduction(item) for item in new], forks, self._last_finished

    def tell_again(self, tried: Iterable[Sequence]) -> set[str]:
        """Nobody knows how much of the last plan was carried out: say it again.

        Returns who was told of there for the first time; these cannot go on when their parents are gone.
        """
        self._finished = [*self._last_finished, *self._finished]
        self._unannounced.update(item.seq_id for item in tried)
        return self._last_told

    def begin_anew(self, sequences: Iterable[Sequence]) -> None:
        """The workers are new and know nothing."""
        self._forks, self._finished = {}, []
        for sequence in sequences:
            sequence.prompt_logprobs, sequence.is_known = [], False
            self._unannounced.add(sequence.seq_id)


def _introduction(item: Sequence) -> NewSequence:
    prompt, output = item.tokens[: item.num_prompt], item.tokens[item.num_prompt :]
    stop_ids = sorted(item.stop_ids)
    return NewSequence(item.seq_id, prompt, item.sampling, item.adapter, item.pooling, item.index, stop_ids, output)
