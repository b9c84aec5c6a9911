"""The engine's document, snippet by snippet, run as files (SPEC E1, E2, E8).

Where it names a model of a hub, a tiny local GPT-2 lies in the Hugging Face cache under that name, so that the
snippets run unchanged and offline.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.helpers.tiny_models import tiny_model

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

pytestmark = [pytest.mark.spec("E1", "E2"), pytest.mark.slow]
SNIPPETS = Path(__file__).parent / "snippets"
ROOT = Path(__file__).parents[2]
CURL = json.loads((SNIPPETS / "engine_curl.json").read_text())


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An offline machine whose Hugging Face cache holds the seed's model name."""
    repo = tmp_path / "hf" / "hub" / "models--sshleifer--tiny-gpt2"
    shutil.copytree(tiny_model("gpt2"), repo / "snapshots" / "1")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SAGE_"))}
    return kept | {"HF_HOME": str(tmp_path / "hf"), "SAGE_HOME": str(tmp_path / ".sage"), "HF_HUB_OFFLINE": "1"}


def run(name: str, environment: dict[str, str], cwd: Path) -> str:
    argv = [sys.executable, "-W", "error", str(SNIPPETS / name)]
    done = subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_generate_and_stream(environment: dict[str, str], tmp_path: Path) -> None:
    assert len(run("engine_generate.py", environment, tmp_path)) > 20


def test_greedy_and_sampling(environment: dict[str, str], tmp_path: Path) -> None:
    printed = run("engine_sampling.py", environment, tmp_path)
    assert printed.startswith("Greedy: ")
    assert "Sampling: " in printed


def test_the_older_entry_points(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("engine: {model: sage-builtin}\n")
    assert run("engine_legacy.py", environment, tmp_path) == "sage-builtin cpu LLMEngine\n"


@contextmanager
def serving(
    argv: list[str], url: str, environment: dict[str, str], cwd: Path, until: Callable[..., None]
) -> Iterator[None]:
    """A server that is ready; told to end afterwards, which it has to do in good order."""
    process = subprocess.Popen(argv, env=environment, cwd=cwd, stderr=subprocess.DEVNULL)

    def ready() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, within=60)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


@pytest.mark.spec("E8")
def test_the_app_under_uvicorn(
    environment: dict[str, str], tmp_path: Path, free_port: Callable[[], int], until: Callable[..., None]
) -> None:
    """The seed's file as it stands, but for the address, so that tests do not meet on port 8000 of all interfaces."""
    port = free_port()
    source = (SNIPPETS / "engine_app.py").read_text()
    assert 'host="0.0.0.0", port=8000' in source
    script = tmp_path / "engine_app.py"
    script.write_text(source.replace('host="0.0.0.0", port=8000', f'host="127.0.0.1", port={port}'))
    environment["SAGE_ENGINE_MODEL"] = "sshleifer/tiny-gpt2"
    url = f"http://127.0.0.1:{port}"
    with serving([sys.executable, str(script)], url, environment, tmp_path, until):
        whole = httpx.post(f"{url}/v1/completions", json=CURL["completions"]).json()
    assert whole["model"] == "sshleifer/tiny-gpt2"
    assert whole["usage"]["completion_tokens"] == 20


@pytest.mark.spec("E8", "X9")
def test_the_command_and_its_two_requests(
    environment: dict[str, str], tmp_path: Path, free_port: Callable[[], int], until: Callable[..., None]
) -> None:
    """`sage-engine --host … --port …`, and the bodies that the seed sends with curl."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("sage-engine")), "--host", "127.0.0.1", "--port", str(port)]
    with serving(command, url, environment, tmp_path, until):
        whole = httpx.post(f"{url}/v1/completions", json=CURL["completions"]).json()
        stream = httpx.post(f"{url}/v1/completions/stream", json=CURL["completions/stream"]).text
    assert whole["object"] == "text_completion"
    assert stream.endswith("data: [DONE]\n\n")
    blocks = [json.loads(block.removeprefix("data: ")) for block in stream.split("\n\n")[:-2]]
    assert "".join(block["choices"][0]["text"] for block in blocks) == whole["choices"][0]["text"]


@pytest.mark.spec("X9")
def test_the_demo_writes_its_metrics(environment: dict[str, str], tmp_path: Path) -> None:
    """The seed's own line, with its own relative path."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    argv = [sys.executable, "-W", "error", "-m", "sagellm_core.demo", "--config", "examples/config_cpu.yaml"]
    done = subprocess.run(
        [*argv, "--verbose"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| stress |" in done.stdout
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert len(results["requests"]) == results["summary"]["requests"] > 10
    assert done.stderr.count(" tokens in, ") == len(results["requests"]) + 1, "a line each, and for the warm-up"
    for row in (*results["segments"].values(), results["summary"]):
        assert row["error_rate"] == 0
        assert row["throughput_tps"] > 0
        assert row["ttft_ms_p50"] > 0
    assert results["peak_mem_mb"] > 10
    assert results["segments"]["stress"]["prefix_hit_rate"] > 0.1
    row = results["requests"][0]
    assert {"ttft_ms", "tpot_ms", "throughput_tps", "kv_used_tokens", "prefix_hit_rate", "itl_list"} <= set(row)
    assert row["peak_mem_mb"] > 10
    assert row["kv_used_bytes"] > 0


def test_the_documented_signatures() -> None:
    config = {name: field.default for name, field in LLMEngineConfig.model_fields.items()}
    for name, default in {
        "backend_type": "auto",
        "comm_type": "auto",
        "max_batch_size": 32,
        "max_model_len": 4096,
        "max_new_tokens": 128,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "dtype": "auto",
    }.items():
        assert config[name] == default
    params = SamplingParams()
    assert params.strategy is DecodingStrategy.GREEDY
    assert (params.temperature, params.top_p, params.top_k, params.num_beams, params.max_tokens) == (
        0.0,
        1.0,
        0,
        1,
        128,
    )
    assert (params.repetition_penalty, params.length_penalty, params.seed) == (1.0, 1.0, None)
    assert list(inspect.signature(LLMEngine.generate).parameters)[1:] == [
        "prompt",
        "sampling_params",
        "max_tokens",
        "request_id",
    ]
    assert {"prompt_or_request", "max_tokens", "request_id"} <= set(inspect.signature(LLMEngine.stream).parameters)
    assert inspect.iscoroutinefunction(LLMEngine.execute)
