"""Reading /metrics."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sage.common.prometheus import histogram, parse, quantile, quantile_from_histogram, total


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
    assert total(samples, "sage_gateway_requests_total") == 4
    assert total(samples, "sage_gateway_requests_total", {"code": "500"}) == 1
    assert total(samples, "nothing") == 0


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
    parse(text)


def observed(values: list[float], registry: CollectorRegistry, **labels: str) -> str:
    metric = Histogram("t_seconds", "t", list(labels), registry=registry, buckets=(0.1, 0.2, 0.4, 0.8))
    child = metric.labels(**labels) if labels else metric
    for value in values:
        child.observe(value)
    return generate_latest(registry).decode()


@pytest.mark.spec("G3")
def test_quantiles_are_linear_within_a_bucket() -> None:
    samples = parse(observed([0.15] * 10 + [0.3] * 10, CollectorRegistry()))
    assert histogram(samples, "t_seconds")[-1] == (math.inf, 20)
    assert quantile_from_histogram(samples, "t_seconds", 0.5) == pytest.approx(0.2)
    assert quantile_from_histogram(samples, "t_seconds", 0.25) == pytest.approx(0.15)
    assert quantile_from_histogram(samples, "t_seconds", 0.75) == pytest.approx(0.3)
    assert quantile_from_histogram(samples, "t_seconds", 1.0) == pytest.approx(0.4)


def test_beyond_the_last_bound_and_nothing_at_all() -> None:
    assert quantile_from_histogram(parse(observed([5.0], CollectorRegistry())), "t_seconds", 0.5) == 0.8
    assert quantile_from_histogram(parse(observed([], CollectorRegistry())), "t_seconds", 0.5) is None
    assert quantile_from_histogram({}, "t_seconds", 0.5) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([], 1.5)


def test_series_with_other_labels_are_summed_or_left_out() -> None:
    registry = CollectorRegistry()
    metric = Histogram("t_seconds", "t", ["route"], registry=registry, buckets=(0.1, 0.2))
    metric.labels("a").observe(0.05)
    metric.labels("b").observe(0.15)
    samples = parse(generate_latest(registry).decode())
    assert histogram(samples, "t_seconds") == [(0.1, 1), (0.2, 2), (math.inf, 2)]
    assert histogram(samples, "t_seconds", {"route": "b"}) == [(0.1, 0), (0.2, 1), (math.inf, 1)]


def test_only_what_was_observed_since_an_earlier_reading() -> None:
    registry = CollectorRegistry()
    metric = Histogram("t_seconds", "t", registry=registry, buckets=(0.1, 0.2, 0.4))
    metric.observe(0.05)
    before = parse(generate_latest(registry).decode())
    for _ in range(3):
        metric.observe(0.3)
    after = parse(generate_latest(registry).decode())
    assert quantile_from_histogram(after, "t_seconds", 0.01, since=before) == pytest.approx(0.202)
    restarted = quantile_from_histogram(before, "t_seconds", 0.5, since=after)
    assert restarted == pytest.approx(0.05), "counters that went back: the daemon was restarted"


@given(st.lists(st.floats(0.0, 0.8), min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    bounds = (0.1, 0.2, 0.4, 0.8)
    samples = parse(observed(values, CollectorRegistry()))
    estimate = quantile_from_histogram(samples, "t_seconds", q)
    exact = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    assert estimate is not None
    assert lower - 1e-9 <= estimate <= upper + 1e-9
