"""`python -m sagellm_core.demo --config FILE [--verbose]`: a workload on one engine, its measurements as JSON.

The file says which model runs where, which segments of load it gets, and where the results go; `load_config` reads it.
Segments: `short` (a question, a short answer), `long` (prompts as long as the file allows), `stress` (many at once,
twice the concurrency, with a common beginning that the prefix cache knows).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError, SageError
from sage.common.listening import report

if TYPE_CHECKING:
    from sagellm_core.config import EngineFileConfig
    from sagellm_core.llm_engine import LLMEngine
    from sagellm_protocol.messages import Request, Response

_LOG = logging.getLogger("sagellm_core.demo")
_TEXT = (
    "SAGE runs pipelines, engines and gateways on one machine or on many. A pipeline reads records, asks a model, and "
    "keeps what it learned; an engine turns prompts into tokens, a step at a time, for all who ask at once. "
)
_SHORT_PROMPT, _SHORT_OUTPUT = 32, 32
_REQUESTS = {"short": 8, "long": 4, "stress": 24}


@dataclass(slots=True, frozen=True)
class Plan:
    """One request to come: of which segment, how many tokens in and out, how many of them a common beginning."""

    segment: str
    number: int
    prompt_tokens: int
    output_tokens: int
    shared_tokens: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the workload. Returns 0, or 1 with one clear message, or where a request failed; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sagellm_core.demo", description="A workload on one engine.")
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="YAML or JSON, such as examples/config_cpu.yaml"
    )
    parser.add_argument("--verbose", action="store_true", help="a line for each request, on stderr")
    arguments = parser.parse_args(argv)
    try:
        from sagellm_core.config import load_config

        config = load_config(arguments.config)
        _log_to(config.output.log_path, config.output.log_level, arguments.verbose)
        results = asyncio.run(run(config))
        _write(config, results)
    except SageError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130
    print(_table(results), end="")
    print(f"\nwrote {config.output.metrics_path}")
    return 1 if results["summary"]["error_rate"] else 0


async def run(config: EngineFileConfig) -> dict[str, Any]:
    """Start the engine, put the load on it, stop it; what was measured. Raises ModelLoadError or EngineError."""
    from sagellm_core.llm_engine import LLMEngine

    engine = LLMEngine(config.engine_config())
    begun = monotonic()
    await engine.start()
    try:
        loaded = monotonic() - begun
        _LOG.info("%s is ready after %.2f s", config.engine.model_path or config.engine.model, loaded)
        for number in range(config.workload.warmup_requests):
            await _ask(engine, config, Plan("warmup", number, 16, 4))
        rows, seconds = await _load(engine, config)
        info, counters = engine.get_info(), engine.get_metrics()
    finally:
        await engine.stop()
    return {
        "model": info["model"],
        "backend": info["backend"],
        "dtype": info["dtype"],
        "load_s": loaded,
        "peak_mem_mb": _peak_megabytes(),
        "summary": _summary(rows, sum(seconds.values())),
        "segments": {
            name: _summary([row for row in rows if row["segment"] == name], seconds[name]) for name in seconds
        },
        "engine": counters,
        "requests": rows,
    }


# -- load --------------------------------------------------------------------------------------------------------------


def plans(config: EngineFileConfig, max_model_len: int) -> Iterator[Plan]:
    """The requests of a file, segment by segment, within the file's limits and the model's context."""
    most_out = min(config.engine.max_output_tokens, max_model_len // 2)
    most_in = min(config.engine.max_input_tokens, max_model_len - most_out)
    left = config.workload.max_requests or sum(_REQUESTS.values()) * len(config.workload.segments)
    for segment in config.workload.segments:
        for number in range(min(_REQUESTS[segment], left)):
            if segment == "short":
                yield Plan(segment, number, min(_SHORT_PROMPT, most_in), min(_SHORT_OUTPUT, most_out))
            elif segment == "long":
                yield Plan(segment, number, most_in, most_out)
            else:
                size = max(1, most_in * (1 + number % 4) // 8)
                yield Plan(segment, number, size, most_out, shared_tokens=size // 2)
            left -= 1


async def _load(engine: LLMEngine, config: EngineFileConfig) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """All requests, one segment after the other; their rows, and the seconds that each segment took."""
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    todo = list(plans(config, int(engine.get_info()["max_model_len"])))
    for segment in dict.fromkeys(plan.segment for plan in todo):
        width = config.workload.concurrency * (2 if segment == "stress" else 1)
        places = asyncio.Semaphore(width)

        async def one(plan: Plan, places: asyncio.Semaphore = places) -> dict[str, Any]:
            async with places:
                return await _ask(engine, config, plan)

        begun = monotonic()
        rows += await asyncio.gather(*(one(plan) for plan in todo if plan.segment == segment))
        seconds[segment] = monotonic() - begun
    return rows, seconds


async def _ask(engine: LLMEngine, config: EngineFileConfig, plan: Plan) -> dict[str, Any]:
    """Carry one request out; its row."""
    response = await engine.execute(await _request(engine, config, plan))
    row = _row(plan, response)
    if response.error is not None:
        _LOG.error("%s %d: %s", plan.segment, plan.number, response.error.message)
    _LOG.info(
        "%s %d: %d tokens in, %d out, first after %.1f ms, then %.2f ms each",
        plan.segment,
        plan.number,
        response.prompt_tokens,
        len(response.output_tokens),
        row["ttft_ms"],
        row["tpot_ms"],
    )
    return row


async def _request(engine: LLMEngine, config: EngineFileConfig, plan: Plan) -> Request:
    """A prompt of exactly the planned length: a running text, its own part begun at a place of its own."""
    from sagellm_protocol.messages import Request
    from sagellm_protocol.sampling import SamplingParams

    text = await engine.tokenize(Request(prompt=_TEXT))
    own = plan.prompt_tokens - plan.shared_tokens
    start = 1 + 7 * plan.number
    prompt = [text[at % len(text)] for at in range(plan.shared_tokens)]
    prompt += [text[(start + at) % len(text)] for at in range(own)]
    workload = config.workload
    return Request(
        prompt=prompt,
        sampling_params=SamplingParams(ignore_eos=True),
        max_tokens=plan.output_tokens,
        kv_budget_tokens=workload.kv_budget_tokens,
        deadline_ms=max(1, round(1000 * workload.request_timeout_s)),
        metadata={"segment": plan.segment},
    )


# -- results -----------------------------------------------------------------------------------------------------------


def _row(plan: Plan, response: Response) -> dict[str, Any]:
    """A request's measurements; one that failed has an error_rate of 1."""
    row: dict[str, Any] = {
        **{name: value for name, value in asdict(plan).items() if name in ("segment", "number")},
        "request_id": response.request_id,
        "prompt_tokens": response.prompt_tokens or plan.prompt_tokens,
        "output_tokens": len(response.output_tokens),
        "finish_reason": response.finish_reason,
        "error": None if response.error is None else response.error.model_dump(mode="json"),
        **response.metrics.model_dump(mode="json"),
    }
    row["error_rate"] = 0.0 if response.finish_reason in ("stop", "length") else 1.0
    row["peak_mem_mb"] = row["peak_mem_mb"] or _peak_megabytes()
    return row


def _summary(rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Means and percentiles over requests; throughput is all tokens out over the time that passed."""
    good = [row for row in rows if not row["error_rate"]]
    prompt_tokens = sum(row["prompt_tokens"] for row in good)
    found = sum(row["prefix_hit_rate"] * row["prompt_tokens"] for row in good)
    times = {name: [row[name] for row in good] or [0.0] for name in ("ttft_ms", "tpot_ms")}
    return {
        "requests": len(rows),
        "error_rate": 1 - len(good) / len(rows) if rows else 0.0,
        "seconds": seconds,
        "prompt_tokens": prompt_tokens,
        "output_tokens": sum(row["output_tokens"] for row in good),
        "throughput_tps": sum(row["output_tokens"] for row in good) / max(seconds, 1e-9),
        **{f"{name}_{kind}": pick(values) for name, values in times.items() for kind, pick in _PICKS.items()},
        "prefix_hit_rate": found / max(prompt_tokens, 1),
        "kv_used_tokens": max((row["kv_used_tokens"] for row in good), default=0),
        "kv_used_bytes": max((row["kv_used_bytes"] for row in good), default=0),
    }


_PICKS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "p50": lambda values: percentile(values, 50),
    "p95": lambda values: percentile(values, 95),
}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def _peak_megabytes() -> float:
    """The most memory that this process has had: of its GPU where it computes on one, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


def _table(results: dict[str, Any]) -> str:
    """The results for people, as a Markdown table."""
    lines = [
        (
            f"{results['model']} in {results['dtype']}: ready after {results['load_s']:.2f} s, "
            f"{results['peak_mem_mb']:.0f} MB at most"
        ),
        "",
        "| segment | requests | tokens/s | TTFT p50 / p95 ms | TPOT p50 / p95 ms | prefix hits | errors |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in [*results["segments"].items(), ("all", results["summary"])]:
        lines.append(
            f"| {name} | {row['requests']} | {row['throughput_tps']:,.0f} "
            f"| {row['ttft_ms_p50']:.1f} / {row['ttft_ms_p95']:.1f} | {row['tpot_ms_p50']:.2f} / "
            f"{row['tpot_ms_p95']:.2f} | {100 * row['prefix_hit_rate']:.0f} % | {100 * row['error_rate']:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def _write(config: EngineFileConfig, results: dict[str, Any]) -> None:
    """Write metrics.json, and the table where the file asks for one. Raises ConfigError."""
    texts = {config.output.metrics_path: json.dumps(results, indent=2) + "\n"}
    if config.output.report_path is not None:
        texts[config.output.report_path] = "# Demo\n\n" + _table(results)
    for name, text in texts.items():
        try:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"Cannot write {name}", cause=error.strerror or str(error)) from error


def _log_to(path: str | None, level: str, verbose: bool) -> None:
    """Send the log to a file, to stderr with `verbose`, or nowhere but for errors. Raises ConfigError."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"output.log_level: {level!r} is no level", hint="DEBUG, INFO, WARNING or ERROR")
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setLevel(number if verbose else logging.ERROR)
    if path is not None:
        try:
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"Cannot write {path}", cause=error.strerror or str(error)) from error
    logger = logging.getLogger("sagellm_core")
    logger.handlers, logger.propagate = handlers, False
    logger.setLevel(number)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))


if __name__ == "__main__":
    sys.exit(main())
