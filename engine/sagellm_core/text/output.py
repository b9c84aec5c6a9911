"""The text of one answer as its tokens come: detokenised, cut at stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from sagellm_core.text.detokenizer import Detokenizer
from sagellm_core.text.stops import StopScanner
from sagellm_core.text.tokenizer import Tokenizer
from sagellm_protocol.sampling import SamplingParams


class OutputText:
    """Turns the tokens of one sequence into text that may be shown at once."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], params: SamplingParams) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt, skip_special_tokens=params.skip_special_tokens)
        self._stops = StopScanner(params.stop)

    def push(self, token_id: int, *, last: str | None) -> tuple[str, bool]:
        """Text that this token made certain, and whether a stop string ended the answer.

        `last` is the reason why this token is the last one: a token that stops ("stop") has no text of its own, and
        with the last token everything that was held back comes out.
        """
        fresh = "" if last == "stop" else self._detokenizer.push(token_id)
        if last is not None:
            fresh += self._detokenizer.flush()
        text, stopped = self._stops.push(fresh)
        if last is not None and not stopped:
            text += self._stops.flush()
        return text, stopped
