"""``sage bench llm``: a reproducible load on the gateway, or on any OpenAI-compatible server."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sage.cli import exit_codes
from sage.cli.numbers import real
from sage.cli.output import emit_json, result, say, table
from sage.common.errors import UsageError

if TYPE_CHECKING:
    from sage.llm.bench import Load, Outcome, Round

_KEY_VARIABLE = "SAGE_CHAT_API_KEY"
_HELP = "sage bench llm --help"


class Route(StrEnum):
    """Which route gets the load."""

    chat = "chat"
    completions = "completions"


def llm(
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="The server.", show_default="the local gateway")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model.", show_default="served")] = None,
    route: Annotated[Route, typer.Option(help="The route.")] = Route.completions,
    concurrency: Annotated[
        str, typer.Option("--concurrency", "-c", metavar="N[,N]...", help="Requests at once; a round each.")
    ] = "1,8,32",
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, metavar="N", help="Requests a round.")] = 64,
    prompt_tokens: Annotated[
        str, typer.Option(metavar="N[-N]", help="Length of the prompts, or from where to where.")
    ] = "128",
    output_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Length of the answers.")] = 64,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=100000.0, callback=real, metavar="R",
            help="Requests a second, at random times, in place of one after the other.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Another one: other prompts, other times.")] = 0,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86400.0, callback=real, metavar="SECONDS", help="For a whole answer.")
    ] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:  # fmt: skip
    """Put load on a server and measure what its users would feel.

    Ctrl-C ends it with what was measured until then. An API key is taken from SAGE_CHAT_API_KEY.
    """
    import os

    from sage.llm.bench import Load
    from sage.llm.client_wire import resolve_base_url

    load = Load(
        base_url=resolve_base_url(url),
        model=model or "",
        route=route.value,
        requests=requests,
        prompt_tokens=_range(prompt_tokens),
        output_tokens=output_tokens,
        rate=rate,
        seed=seed,
        timeout_seconds=timeout,
        api_key=os.environ.get(_KEY_VARIABLE) or None,
    )
    rounds, whole = _measure(load, _widths(concurrency))
    if not rounds:
        say("Interrupted before the first request had ended.")
        raise typer.Exit(exit_codes.INTERRUPTED)
    _show(load, rounds, whole=whole, json=json)
    if not whole:
        raise typer.Exit(exit_codes.INTERRUPTED)
    raise typer.Exit(exit_codes.OK if all(each.good for each in rounds) else exit_codes.FAILED)


def _measure(load: Load, widths: list[int]) -> tuple[list[Round], bool]:
    """The rounds, and whether they are all there: after Ctrl-C the last one has the requests that had ended."""
    import asyncio
    from dataclasses import replace
    from functools import partial

    from sage.llm.bench import Round, run

    rounds: list[Round] = []
    for width in widths:
        this = replace(load, concurrency=width)
        ended: list[Outcome] = []
        progress = partial(_progress, width, load.requests)
        try:
            outcomes = asyncio.run(run(this, progress=progress, ended=ended.append))
        except KeyboardInterrupt:
            return rounds + ([Round(this, ended)] if ended else []), False
        rounds.append(Round(this, outcomes))
    return rounds, True


def _progress(width: int, requests: int, ended: int) -> None:
    """One line that is written over, on a terminal only."""
    if sys.stderr.isatty():
        end = "\n" if ended == requests else ""
        sys.stderr.write(f"\r{width} at once: {ended} of {requests}{end}")
        sys.stderr.flush()


def _show(load: Load, rounds: list[Round], *, whole: bool, json: bool) -> None:
    from sage.llm.bench import table as rows
    from sage.llm.bench.report import HEADER

    if json:
        emit_json(_plain(load, rounds) | {"interrupted": not whole})
    else:
        result("\n".join(table(rows(rounds), HEADER)))
    if not whole:
        last = rounds[-1]
        say(
            f"Interrupted: {len(last.outcomes)} of {load.requests} requests at {last.load.concurrency} at once had "
            "ended; what ran then is not counted."
        )
    for each in rounds:
        for error, count in list(each.errors.items())[:5]:
            say(f"{each.load.concurrency} at once: {count} failed: {error}")


def _plain(load: Load, rounds: list[Round]) -> dict[str, Any]:
    shortest, longest = load.prompt_tokens
    return {
        "url": load.base_url,
        "model": load.model or "default",
        "route": load.route,
        "prompt_tokens": {"from": shortest, "to": longest},
        "output_tokens": load.output_tokens,
        "rate": load.rate,
        "seed": load.seed,
        "rounds": [each.summary() for each in rounds],
    }


def _widths(text: str) -> list[int]:
    """``1,8,32`` as numbers. Raises UsageError."""
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        widths = []
    if not widths or not all(1 <= width <= 10_000 for width in widths):
        raise UsageError(
            f"--concurrency {text} is wrong", cause="numbers from 1 to 10000, with commas between", hint=_HELP
        )
    return widths


def _range(text: str) -> tuple[int, int]:
    """``128`` or ``32-512`` as two numbers. Raises UsageError."""
    first, _, last = text.partition("-")
    try:
        shortest, longest = int(first), int(last or first)
    except ValueError:
        shortest, longest = 0, 0
    if not 1 <= shortest <= longest <= 1_000_000:
        raise UsageError(
            f"--prompt-tokens {text} is wrong", cause="a number, or two with a dash between: 32-512", hint=_HELP
        )
    return shortest, longest
