"""From the scheduler's progress to updates: text, stop strings, deadlines, times. Used on the step thread alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sagellm_core.engine_core.messages import Submission, Update
from sagellm_core.engine_core.plan import SampledToken, SchedulerOutput, StepOutput
from sagellm_core.engine_core.progress import Progress
from sagellm_core.engine_core.scheduler import Scheduler
from sagellm_core.text.output import OutputText
from sagellm_protocol.errors import Error, ErrorCode
from sagellm_protocol.messages import FinishReason

_UNUSABLE = "the model gave no usable numbers (NaN)"


@dataclass(slots=True)
class _Open:
    """A request that has not ended: the text of each of its answers, and when its first step began."""

    new_text: Callable[[], OutputText] | None
    begun: float = 0.0
    cached_tokens: int = 0
    texts: dict[int, OutputText] = field(default_factory=dict)

    def text(self, index: int) -> OutputText | None:
        if self.new_text is None:
            return None
        if index not in self.texts:
            self.texts[index] = self.new_text()
        return self.texts[index]


class Answers:
    """The requests in a scheduler, as those who asked see them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._open: dict[str, _Open] = {}
        self._deadlines: dict[str, float] = {}
        self._steering: set[str] = set()

    @property
    def steer(self) -> bool:
        """Whether texts decide what the next step computes: some have stop strings."""
        return bool(self._steering)

    def enter(self, item: Submission) -> None:
        """Hand a request to the scheduler. Raises ValueError with the reason when it can never run."""
        self._scheduler.add(
            item.seq_id,
            item.prompt,
            item.sampling,
            priority=item.priority,
            stop_ids=item.stop_ids,
            max_total=item.max_total,
            adapter=item.adapter,
            pooling=item.pooling,
            output=item.output,
        )
        self._open[item.seq_id] = _Open(item.new_text)
        if item.new_text is not None and item.sampling.stop:
            self._steering.add(item.seq_id)
        if item.deadline is not None:
            self._deadlines[item.seq_id] = item.deadline

    def expired(self, now: float) -> list[str]:
        """Requests whose deadline has passed."""
        return [name for name, deadline in self._deadlines.items() if deadline <= now] if self._deadlines else []

    def begin(self, plan: SchedulerOutput, now: float) -> None:
        """A step begins: for new sequences it is the first."""
        for new in plan.new:
            sequence = self._scheduler.get(new.seq_id)
            request = self._open.get(sequence.group.request_id) if sequence is not None else None
            if request is not None and not request.begun:
                request.begun = now

    def news(self, progress: list[Progress], output: StepOutput, at: float) -> list[Update]:
        """What a step means to those who asked. May end answers: those whose text has reached a stop string."""
        updates = [self._update(each, output, at) for each in progress]
        for each in progress:
            if not each.group.members:
                self._close(each.group.request_id)
        return updates

    def end(self, name: str, reason: FinishReason, error: Error | None, at: float) -> list[Update]:
        """End a request now; one update for each of its answers that was open."""
        ended = self._scheduler.finish(name, reason)
        request = self._open.get(name)
        begun, cached = (request.begun, request.cached_tokens) if request is not None else (0.0, 0)
        self._close(name)
        return [Update(name, at, [], "", reason, error, begun, cached, index) for index in ended]

    def _update(self, each: Progress, output: StepOutput, at: float) -> Update:
        name, reason, error = each.group.request_id, each.finish_reason, None
        request = self._open[name]
        request.cached_tokens = each.group.num_cached
        tokens, text = each.tokens, ""
        if tokens and (writer := request.text(each.index)) is not None:
            text, used, stopped = write(writer, tokens, reason)
            if stopped:
                tokens, reason = tokens[:used], self._stop(each)
        if reason == "error":
            faults = output.failures.get(each.sequence.seq_id) if each.sequence is not None else None
            error = Error(code=ErrorCode.INTERNAL, message=faults or _UNUSABLE)
        drafter = each.sequence.drafter if each.sequence is not None else None
        drafts = (drafter.proposed, drafter.accepted) if drafter is not None else (0, 0)
        begun, cached = request.begun, request.cached_tokens
        return Update(name, at, tokens, text, reason, error, begun, cached, each.index, each.score, each.vector,
                      each.prompt_logprobs, drafts)  # fmt: skip

    def _stop(self, each: Progress) -> FinishReason:
        """A stop string ends an answer, whether or not it has ended anyway."""
        if each.finish_reason is None:
            self._scheduler.finish(each.group.request_id, "stop", each.index)
        elif each.sequence is not None:
            each.sequence.finish_reason = "stop"
        return "stop"

    def _close(self, name: str) -> None:
        self._open.pop(name, None)
        self._deadlines.pop(name, None)
        self._steering.discard(name)


def write(text: OutputText, tokens: list[SampledToken], reason: FinishReason | None) -> tuple[str, int, bool]:
    """The text of new tokens, how many of them it took, and whether a stop string ended it."""
    shown = ""
    for used, token in enumerate(tokens, 1):
        last = reason if used == len(tokens) else None
        piece, stopped = text.push(token.token_id, last=last)
        shown += piece
        if stopped:
            return shown, used, True
    return shown, len(tokens), False
