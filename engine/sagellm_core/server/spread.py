"""Several answers to one prompt as several requests, put together again behind the engine."""

from __future__ import annotations

from collections.abc import Sequence

from sagellm_protocol.messages import Choice, Request, Response, StreamEvent


def spread(request: Request) -> list[Request]:
    """One request an answer, each with a seed of its own."""
    params = request.sampling_params
    if params is None or params.n == 1:
        return [request]
    copies = []
    for index in range(params.n):
        changed = {"n": 1} | ({} if params.seed is None else {"seed": params.seed + index})
        own = params.model_copy(update=changed)
        own.model_fields_set.discard("n")
        request_id = request.request_id + (f"-{index}" if index else "")
        copies.append(request.model_copy(update={"request_id": request_id, "sampling_params": own}))
    return copies


def gathered(responses: Sequence[Response]) -> Response:
    """The responses of copies as one."""
    if len(responses) == 1:
        return responses[0]
    choices = [
        Choice(
            index=index,
            output_text=each.output_text,
            output_tokens=each.output_tokens,
            finish_reason=each.finish_reason,
            logprobs=each.logprobs,
        )
        for index, each in enumerate(responses)
    ]
    return responses[0].model_copy(update={"choices": choices})


def numbered(event: StreamEvent, index: int) -> StreamEvent | None:
    """A copy's event as one of the whole request; None for what the first copy has said already."""
    if event.event == "start":
        return event if index == 0 else None
    if event.event == "end" and event.error is None:
        return event.model_copy(update={"event": "delta", "index": index})
    return event.model_copy(update={"index": index})
