"""sage monitor metrics: a line a service; live until Ctrl-C."""

import json
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from sage.cli.metrics_view import lines
from sage.tui.data import EmbeddingView, EngineView, GatewayView, JobView, Quantiles, Snapshot

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))


@pytest.mark.spec("X8")
def test_a_line_a_service() -> None:
    quantiles = Quantiles(p50=0.01, p95=0.2, p99=1.5, count=9)
    taken = Snapshot(
        taken_at=0.0,
        home="/nowhere",
        gateway=GatewayView(rate=2.0, total=12345.0, inflight=1.0, queue=0.0, latency=quantiles),
        engines=(EngineView("engine", running=1.0, waiting=2.0, kv_usage=0.25, token_rate=99.5, ttft=quantiles),),
        embeddings=(EmbeddingView("embedding", texts=7.0),),
        jobs=(
            JobView("1", "now", "a.py", "running", 1, 0.0, 1.0, 10, 20),
            JobView("2", "then", "a.py", "finished", 1, 0.0, 1.0, 10, 20),
        ),
    )
    gateway, engine, embedding, job = (line.partition("  ")[2] for line in lines(taken))
    assert gateway.startswith("gateway    requests/s=2.00 total=12.3k inflight=1 queue=0 rejected=–")
    assert gateway.endswith("latency p50=10.0 ms p95=200 ms p99=1.50 s")
    assert "running=1 waiting=2 kv=25% tokens/s=99.5" in engine
    assert embedding.startswith("embedding  texts/s=– texts=7")
    assert job.startswith("job now in=10 out=20")


def test_nothing_runs() -> None:
    assert lines(Snapshot(taken_at=0.0, home="/nowhere"))[0].endswith("nothing runs")


@pytest.mark.spec("X8", "X11")
def test_where_nothing_has_run_it_says_how_to_begin(cli: Any) -> None:
    shown = cli("monitor", "metrics")
    assert shown.code == 3
    assert "sage llm serve" in shown.err


@pytest.mark.spec("X8")
def test_live_goes_on_until_ctrl_c(home: pathlib.Path) -> None:
    """An object a line, so that a pipe can read it as it comes."""
    words = [SAGE, "monitor", "metrics", "--live", "--json", "--interval", "0.2"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(2):
            assert json.loads(child.stdout.readline())["home"] == str(home)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in err
