"""Rates and quantiles from counters and histograms."""

import pytest

from sage.tui.data.meter import Meter, Rates, group


def histogram(name: str, counts: dict[str, float], labels: str = "") -> str:
    """Cumulative buckets as Prometheus text."""
    comma = "," if labels else ""
    lines = [f'{name}_bucket{{{labels}{comma}le="{bound}"}} {count}' for bound, count in counts.items()]
    return "\n".join([*lines, f"{name}_count{{{labels}}} {counts['+Inf']}", f"{name}_sum{{{labels}}} 1"])


def test_a_rate_is_growth_over_the_last_seconds() -> None:
    meter = Meter()
    for second in range(20):
        tokens = 100 * min(second, 10)  # 100 a second at first, then none
        meter.add(float(second), group(f"sage_tokens_total {tokens}"))
        if second == 8:
            assert meter.rate("sage_tokens_total") == pytest.approx(100)
    assert meter.rate("sage_tokens_total") == 0


def test_one_scrape_gives_no_rate() -> None:
    meter = Meter()
    assert meter.rate("sage_tokens_total") is None
    meter.add(0, group("sage_tokens_total 5"))
    assert meter.rate("sage_tokens_total") is None
    assert meter.value("sage_tokens_total") == 5


def test_a_restarted_daemon_never_shows_a_negative_rate() -> None:
    meter = Meter()
    meter.add(0, group("sage_tokens_total 1000"))
    meter.add(1, group("sage_tokens_total 1100"))
    meter.add(2, group("sage_tokens_total 3"))
    assert meter.rate("sage_tokens_total") is None
    meter.add(3, group("sage_tokens_total 8"))
    assert meter.rate("sage_tokens_total") == pytest.approx(5)


def test_series_are_summed_and_selected_by_label() -> None:
    meter = Meter()
    meter.add(0, group('sage_r_total{route="/a",code="200"} 0\nsage_r_total{route="/b",code="500"} 0'))
    meter.add(2, group('sage_r_total{route="/a",code="200"} 6\nsage_r_total{route="/b",code="500"} 2'))
    assert meter.rate("sage_r_total") == pytest.approx(4)
    assert meter.rate("sage_r_total", lambda labels: labels["code"] == "500") == pytest.approx(1)
    assert meter.labels("sage_r_total", "route") == ["/a", "/b"]


def test_quantiles_cover_the_window_not_all_time() -> None:
    meter = Meter(quantile_window_s=60)
    meter.add(0, group(histogram("sage_t", {"0.1": 0, "1.0": 1000, "+Inf": 1000})))
    before = meter.quantiles("sage_t")
    assert before.window_s == 0
    assert before.count == 1000
    meter.add(10, group(histogram("sage_t", {"0.1": 10, "1.0": 1010, "+Inf": 1010})))
    now = meter.quantiles("sage_t")
    assert (now.window_s, now.count) == (60, 10)
    assert now.p50 == pytest.approx(0.05)
    assert now.p99 == pytest.approx(0.099)


def test_quantiles_fall_back_to_all_time_when_the_window_saw_nothing() -> None:
    meter = Meter()
    text = histogram("sage_t", {"0.1": 0, "1.0": 10, "+Inf": 10})
    meter.add(0, group(text))
    meter.add(1, group(text))
    assert meter.quantiles("sage_t").window_s == 0
    assert meter.quantiles("sage_t").p50 == pytest.approx(0.55)


def test_no_observation_is_not_a_latency_of_zero() -> None:
    meter = Meter()
    assert meter.quantiles("sage_t").p50 is None
    meter.add(0, group(histogram("sage_t", {"0.1": 0, "+Inf": 0})))
    assert meter.quantiles("sage_t").p50 is None


def test_the_window_forgets() -> None:
    meter = Meter(quantile_window_s=10)
    for second in range(100):
        meter.add(float(second), group(f"sage_x_total {second}"))
    assert meter.growth("sage_x_total", window_s=1000) == pytest.approx(10, abs=1)


def test_not_a_number_and_foreign_families_are_left_out() -> None:
    assert group("sage_a NaN\npython_info 1\nsage_b 2") == {"sage_b": [({}, 2.0)]}


def test_rates_of_a_record_that_is_read_twice_do_not_drop_to_zero() -> None:
    """A job's row changes twice a second; reading it more often must not look like a pause."""
    rates = Rates()
    rates.add(0, (0, 0))
    rates.add(1, (100, 50))
    rates.add(1, (100, 50))
    assert rates.per_second(0) == pytest.approx(100)
    assert rates.per_second(1) == pytest.approx(50)
    rates.add(2, (10, 5))
    assert rates.per_second(0) is None
