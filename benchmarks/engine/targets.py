"""What has to be reached on the CPU, as ratios of medians from one run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.engine.measure import Table
from benchmarks.engine.models import MEDIUM, SMALL, Shape
from benchmarks.engine.sides import EIGHT_BITS, SIDES, SIXTEEN_BITS
from benchmarks.findings import Finding

PACKED_BITS, PLAIN_BITS = 12, 16
_ONE, _PREFILL, _SIXTEEN = "one stream", "prefill 512", "16 at once"
_TRANSFORMERS = tuple(side.name for side in SIDES if side.name.startswith("transformers"))
_OPENVINO = tuple(side.name for side in SIDES if side.name.startswith("OpenVINO"))
_WIDE = tuple(side.name for side in SIDES if side.bits == SIXTEEN_BITS and not side.ours)
_NARROW = tuple(side.name for side in SIDES if side.bits == EIGHT_BITS and not side.ours)


@dataclass(frozen=True, slots=True)
class Target:
    """Ours has to reach `factor` times the best of `peers` in a scenario; or `of_limit` of the limit of memory.

    That limit, where there is one (above 0), is of the bytes that ours reads: weights in 12 bits where they are packed.
    """

    shape: Shape
    scenario: str
    ours: str
    peers: tuple[str, ...]
    factor: float
    of_limit: float = 0.0


TARGETS = (
    Target(MEDIUM, _ONE, "ours", _WIDE, 1.0, of_limit=0.9),
    Target(MEDIUM, _ONE, "ours int8", _NARROW, 1.1),
    Target(MEDIUM, _PREFILL, "ours", _WIDE, 0.9),
    Target(MEDIUM, _PREFILL, "ours int8", _NARROW, 1.0),
    Target(MEDIUM, _SIXTEEN, "ours", _WIDE, 1.0),
    Target(MEDIUM, _SIXTEEN, "ours int8", _NARROW, 1.0),
    Target(MEDIUM, _SIXTEEN, "ours", _TRANSFORMERS, 2.5),
    Target(SMALL, _ONE, "ours", _OPENVINO, 0.9),
    Target(SMALL, _ONE, "ours", _TRANSFORMERS, 5.0),
    Target(SMALL, _PREFILL, "ours", _OPENVINO, 0.7),
    Target(SMALL, _SIXTEEN, "ours", _OPENVINO, 0.9),
    Target(SMALL, _SIXTEEN, "ours", _TRANSFORMERS, 3.0),
)


def limit(table: Table, bandwidth: float, bits: int) -> float:
    """Tokens a second of one stream at which weights of so many bits, and the cache, are read at full bandwidth."""
    shape = table.shape
    scenario = next(each for each in table.scenarios if each.name == _ONE)
    context = scenario.lengths[0] + scenario.max_tokens / 2
    return bandwidth / (shape.parameters * bits / 8 + context * shape.kv_bytes(2))


def judge(table: Table, bandwidth: float, *, packed: bool) -> list[Finding]:
    """The targets of a model beside what came out; a side that gave nothing is at 0.

    `packed`: ours reads its bfloat16 weights in 12 bits.
    """
    bits = PACKED_BITS if packed else PLAIN_BITS
    return [_judge(table, target, limit(table, bandwidth, bits)) for target in TARGETS if target.shape is table.shape]


def _judge(table: Table, target: Target, most: float) -> Finding:
    """`most`: tokens a second of one stream that memory allows ours."""
    ours = table.rate(target.ours, target.scenario)
    best = max(target.peers, key=lambda name: table.rate(name, target.scenario))
    theirs = table.rate(best, target.scenario)
    what = f"{table.shape.title}, {target.scenario}: {target.ours} / {best}"
    measured = f"{ours:,.1f} / {theirs:,.1f} tok/s"
    ratio = ours / theirs if theirs else 0.0
    if target.of_limit:
        either = f"(or at least {100 * target.of_limit:.0f} % of the limit of memory)"
        if ratio < target.factor and ours / most >= target.of_limit:
            what = f"{table.shape.title}, {target.scenario}: {target.ours} / limit of memory (or at least {best})"
            return Finding(what, f"{ours:,.1f} / {most:,.1f} tok/s", ours / most, target.of_limit, at_least=True)
        what, measured = f"{what} {either}", f"{measured}; {100 * ours / most:.0f} % of the limit, {most:,.1f}"
    return Finding(what, measured, ratio, target.factor, at_least=True)
