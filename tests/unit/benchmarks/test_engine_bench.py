"""The engine's benchmark: processes that speak lines, targets that cannot be met by accident, models that load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from benchmarks.engine.measure import Cell, Entrant, Table
from benchmarks.engine.models import MEDIUM, SMALL, Shape, folder_of
from benchmarks.engine.peer import PeerFailedError, PeerProcess, Run
from benchmarks.engine.report import render
from benchmarks.engine.scenarios import PREFILL, SIXTEEN, one_stream
from benchmarks.engine.sides import SIDES, Side
from benchmarks.engine.targets import PACKED_BITS, judge, limit
from benchmarks.findings import Finding
from tests.helpers.tiny_daemon import until
from tests.helpers.tiny_models import tiny_model

ONE = one_stream(64)
PROMPTS = [[40, 7, 112], [55, 201, 9, 33, 18]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_BENCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def peer(cache: Path) -> Iterator[PeerProcess]:
    process = PeerProcess("ours", "ours", "ours")
    yield process
    process.close()


def state_of(process: PeerProcess) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_peer_runs_what_it_is_asked_and_is_frozen_otherwise(peer: PeerProcess) -> None:
    seconds, note = peer.load(model=str(tiny_model("llama")), precision="fp32", threads=1)
    assert seconds > 0
    assert note == "float32"
    run = peer.run(PROMPTS, 6)
    assert run.tokens == 12
    assert run.wall > 0
    until(lambda: state_of(peer) == "T", "the peer is stopped")
    with pytest.raises(PeerFailedError, match="vocabulary") as refused:
        peer.run([[10**6]], 1)
    assert refused.value.alive
    assert peer.run(PROMPTS[:1], 2).tokens == 2
    os.kill(peer.pid, signal.SIGKILL)
    with pytest.raises(PeerFailedError, match="ended") as ended:
        peer.run(PROMPTS, 1)
    assert not ended.value.alive


@pytest.mark.slow
def test_the_random_model_is_one_that_transformers_and_the_engine_load(cache: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tiny: Shape = replace(
        MEDIUM, name="tiny", layers=1, hidden=32, heads=4, kv_heads=2, inner=48, vocabulary=20_000, positions=128
    )
    folder = folder_of(tiny, cache)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(tiny.parameters, rel=0.001)
    assert not list(folder.parent.glob("*.part"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == tiny.vocabulary
    ids = tokenizer.encode("def f(x): return x").ids
    assert tokenizer.decode(ids) == "def f(x): return x"
    assert len(ids) < 12
    assert folder_of(tiny, cache) == folder


def table(rates: dict[str, float], scenarios: tuple[str, ...] = ("one stream",)) -> Table:
    """Every side has the same rate in these scenarios; the others have none."""
    entrants = []
    for side in SIDES:
        cells = {
            each.name: Cell(each, [Run(each.counted, each.counted / rates[side.name], 1.0)])
            for each in (ONE, PREFILL, SIXTEEN)
            if side.name in rates and each.name in scenarios
        }
        entrants.append(Entrant(side, cells=cells, failure="" if cells else "cannot be installed: no wheel"))
    return Table(MEDIUM, [ONE, PREFILL, SIXTEEN], entrants)


def verdict(found: list[Finding], what: str) -> Finding:
    return next(each for each in found if each.what.startswith(what))


def test_a_target_compares_with_the_best_peer() -> None:
    rates = {"ours": 41.0, "llama.cpp bf16": 30.0, "OpenVINO bf16": 40.0, "ours int8": 54.0, "OpenVINO int8": 50.0}
    found = judge(table(rates), bandwidth=1e12, packed=True)
    wide = verdict(found, "0.5B, one stream: ours /")
    assert wide.ratio == pytest.approx(41 / 40)
    assert wide.met is True
    narrow = verdict(found, "0.5B, one stream: ours int8 /")
    assert narrow.ratio == pytest.approx(54 / 50)
    assert narrow.met is False


@pytest.mark.parametrize(("packed", "bytes_a_weight"), [(True, 1.5), (False, 2.0)])
def test_slower_than_a_peer_is_enough_where_memory_sets_the_limit(packed: bool, bytes_a_weight: float) -> None:
    measured = table({"ours": 36.0, "OpenVINO bf16": 40.0})
    read = MEDIUM.parameters * bytes_a_weight + (16 + 32) * MEDIUM.kv_bytes(2)
    assert limit(measured, 36.0 * read, round(8 * bytes_a_weight)) == pytest.approx(36)
    near = verdict(judge(measured, 36.0 / 0.95 * read, packed=packed), "0.5B, one stream: ours / limit of memory")
    assert near.ratio == pytest.approx(0.95)
    assert near.met is True
    far = verdict(judge(measured, 36.0 / 0.8 * read, packed=packed), "0.5B, one stream: ours / OpenVINO bf16 (or")
    assert far.ratio == pytest.approx(0.9)
    assert "80 % of the limit, 45.0" in far.measured
    assert far.met is False


def test_as_fast_as_the_best_peer_is_enough_however_far_the_limit_is() -> None:
    found = judge(table({"ours": 40.0, "OpenVINO bf16": 40.0}), 1e12, packed=True)
    row = verdict(found, "0.5B, one stream: ours / OpenVINO bf16")
    assert (row.ratio, row.met) == (1.0, True)


def test_what_was_not_measured_is_not_reached() -> None:
    assert not any(finding.met for finding in judge(table({}), 1e12, packed=True))


def test_the_report_says_which_limit_of_memory_counts() -> None:
    measured = table({"ours": 41.0, "OpenVINO bf16": 40.0})
    text = render([measured], [], [], [], 35e9, packed=True)
    plain, less = (limit(measured, 35e9, bits) for bits in (16, 12))
    assert less > 1.3 * plain
    assert f"| *limit of memory, 16 bits* | | | *{plain:,.1f}* |" in text
    assert f"| *limit of memory, 12 bits: ours* | | | *{less:,.1f}* |" in text
    assert "988 MB in bfloat16. Ours packs them into 12 bits without loss and reads 741 MB" in text
    assert "12 bits" not in render([measured], [], [], [], 35e9, packed=False)


def test_the_limit_counts_the_bytes_that_the_engine_keeps() -> None:
    """Normal weights, as in the benchmark's models: 12 bits and next to nothing beside them."""
    import torch
    from benchmarks.engine.limits import packs_weights

    from sagellm_core.backends import BackendConfig, create_backend

    if not packs_weights():
        pytest.skip("this processor multiplies no bfloat16")
    weight = (torch.randn(2048, 896) * 0.02).bfloat16()
    count = weight.numel()
    packed = create_backend(BackendConfig("cpu")).linear(weight)
    assert packed.memory.nbytes == pytest.approx(count * PACKED_BITS / 8, rel=0.01)  # type: ignore[attr-defined]


def test_the_report_has_every_side_and_says_what_is_missing() -> None:
    measured = table({"ours": 41.0, "OpenVINO bf16": 40.0}, ("one stream", "16 at once"))
    text = render(
        [measured],
        judge(measured, 1e12, packed=True),
        [Finding("waste", "15 of 16", 0.9, 1.0)],
        ["http: broke"],
        35e9,
        packed=True,
    )
    for side in SIDES:
        assert f"| {side.name} |" in text
    assert "llama.cpp bf16: cannot be installed: no wheel" in text
    assert "40.0 (1.02x, " in text
    assert "| waste | 15 of 16 | 0.9 | ≤ 1 | yes |" in text
    assert "http: broke" in text
    assert "35.0 GB/s" in text


def test_prompts_are_the_same_for_everybody_and_no_two_alike() -> None:
    for scenario in (ONE, PREFILL, SIXTEEN):
        prompts = scenario.prompts(SMALL)
        assert prompts == scenario.prompts(SMALL)
        assert [len(prompt) for prompt in prompts] == list(scenario.lengths)
        assert len({tuple(prompt[:16]) for prompt in prompts}) == len(prompts)
        assert all(300 <= token < SMALL.vocabulary for prompt in prompts for token in prompt)
    assert (min(SIXTEEN.lengths), max(SIXTEEN.lengths), len(SIXTEEN.lengths)) == (32, 512, 16)
    assert [side for side in SIDES if side == Side("ours", "ours", "ours", "auto")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's doing, on Linux")
def test_no_frozen_peer_outlives_a_harness_that_is_killed(cache: Path) -> None:
    script = (
        "from benchmarks.engine.peer import PeerProcess\n"
        "process = PeerProcess('ours', 'ours', 'ours')\n"
        "try: process.load(model='/nowhere', precision='fp32', threads=1)\n"
        "except Exception: print(process.pid, flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as harness:
        assert harness.stdout is not None
        peer = psutil.Process(int(harness.stdout.readline()))
        assert peer.is_running()
        harness.kill()
    until(lambda: not peer.is_running() or peer.status() == psutil.STATUS_ZOMBIE, "the peer has ended")
