"""Reading /metrics."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sage.common.prometheus import parse, quantile


@pytest.mark.spec("G7", "T1")
def test_what_the_official_client_writes_is_read() -> None:
    registry = CollectorRegistry()
    requests = Counter("sage_gateway_requests", "n", ["route", "code"], registry=registry)
    requests.labels("/v1/chat", "200").inc(3)
    requests.labels('od"d\\\n', "500").inc()
    Gauge("sage_engine_requests_running", "n", registry=registry).set(1e-7)
    samples = parse(generate_latest(registry).decode())
    assert samples["sage_gateway_requests_total", (("code", "200"), ("route", "/v1/chat"))] == 3
    assert samples["sage_gateway_requests_total", (("code", "500"), ("route", 'od"d\\\n'))] == 1
    assert samples["sage_engine_requests_running", ()] == 1e-7


def test_odd_values_and_odd_lines() -> None:
    text = '# HELP a b\na +Inf\nb NaN\nc 1 1700000000000\nnonsense\nd{\ne x\n\nf{a="1",} 2\n'
    samples = parse(text)
    assert samples["a", ()] == math.inf
    assert math.isnan(samples["b", ()])
    assert samples["c", ()] == 1
    assert samples["f", (("a", "1"),)] == 2
    assert len(samples) == 4


@given(st.text())
def test_nonsense_never_raises(text: str) -> None:
    assert all(name and isinstance(value, float) for (name, _), value in parse(text).items())


def observed(values: list[float]) -> list[tuple[float, float]]:
    """The buckets of these values as the official client writes them."""
    registry = CollectorRegistry()
    metric = Histogram("t_seconds", "t", registry=registry, buckets=(0.1, 0.2, 0.4, 0.8))
    for value in values:
        metric.observe(value)
    samples = parse(generate_latest(registry).decode())
    return sorted((float(dict(labels)["le"]), n) for (name, labels), n in samples.items() if name == "t_seconds_bucket")


@pytest.mark.spec("G3")
def test_quantiles_are_linear_within_a_bucket() -> None:
    buckets = observed([0.15] * 10 + [0.3] * 10)
    assert buckets[-1] == (math.inf, 20.0)
    assert quantile(buckets, 0.5) == pytest.approx(0.2)
    assert quantile(buckets, 0.25) == pytest.approx(0.15)
    assert quantile(buckets, 0.75) == pytest.approx(0.3)
    assert quantile(buckets, 1.0) == pytest.approx(0.4)


def test_beyond_the_last_bound_and_nothing_at_all() -> None:
    assert quantile(observed([5.0]), 0.5) == 0.8
    assert quantile(observed([]), 0.5) is None
    assert quantile([], 0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([], 1.5)


@given(st.lists(st.floats(0.0, 0.8), min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    bounds = (0.1, 0.2, 0.4, 0.8)
    estimate = quantile(observed(values), q)
    exact = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    assert estimate is not None
    assert lower - 1e-9 <= estimate <= upper + 1e-9
