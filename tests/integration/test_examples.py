"""The examples that need no server run as they stand and print what they promise."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.tiny_models import tiny_model

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, tmp_path: Path, *options: str) -> list[str]:
    """What ``sage run local`` prints for an example, line by line."""
    done = subprocess.run(
        [Path(sys.executable).with_name("sage"), "run", "local", *options, EXAMPLES / name],
        env=os.environ | {"SAGE_HOME": str(tmp_path / ".sage")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.spec("K1", "X4")
def test_simple_pipeline(tmp_path: Path) -> None:
    assert run("simple_pipeline.py", tmp_path) == ["Processed: Hello", "Processed: World", "Processed: SAGE"]


@pytest.mark.spec("K2", "X4")
@pytest.mark.parametrize("tasks", ["1", "2"])
def test_word_count_is_the_same_with_any_number_of_tasks(tmp_path: Path, tasks: str) -> None:
    lines = run("word_count.py", tmp_path, "--parallelism", tasks)

    assert lines[:2] == ["4 to", "2 be"]
    assert sorted(lines[2:]) == ["1 dream", "1 is", "1 not", "1 or", "1 question", "1 sleep", "1 that", "1 the"]


@pytest.mark.spec("K9", "S2", "E10")
def test_nearest_text(tmp_path: Path) -> None:
    assert run("nearest_text.py", tmp_path) == [
        "When does the library open? -> The library opens at nine in the morning.",
        "At which pressure does the pump run? -> The pump runs at forty bar.",
    ]


def script(name: str, tmp_path: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """An example that is run with Python itself, without a network."""
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *words],
        env=os.environ
        | {"SAGE_HOME": str(tmp_path / ".sage"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
        | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.spec("E3")
def test_six_ways_to_choose_the_next_token(tmp_path: Path) -> None:
    done = script("decoding_strategies_demo.py", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    scenes = [line for line in lines if line[:2] in {f"{number}." for number in range(1, 7)}]
    assert len(scenes) == 6
    assert lines.count("again the same: True") == 4
    assert "the same as greedy: True" in lines
    scores = [float(line.split()[1].rstrip(":")) for line in lines if line.startswith("score ")]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
@pytest.mark.spec("E6")
def test_prefill_and_decode_apart(tmp_path: Path) -> None:
    done = script("pd_separation_demo.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "48 tokens; the same as before: True" in done.stdout


@pytest.mark.slow
@pytest.mark.spec("E7")
def test_a_model_with_older_files_becomes_one_that_the_engine_reads(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "old"
    shutil.copytree(tiny_model("gpt2"), folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    done = script("model_download_helper.py", tmp_path, str(folder))
    assert done.returncode == 0, done.stderr
    assert "converted: model.safetensors" in done.stdout
    again = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert "converted" not in script("model_download_helper.py", tmp_path, str(folder)).stdout


def test_a_model_that_cannot_be_fetched_is_one_clear_message(tmp_path: Path) -> None:
    done = script("model_download_helper.py", tmp_path, "nobody/nothing")
    assert done.returncode == 1
    assert "Cannot fetch nobody/nothing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["decoding_strategies_demo.py", "pd_separation_demo.py"])
def test_a_model_that_is_not_there_is_one_clear_message(name: str, tmp_path: Path) -> None:
    done = script(name, tmp_path, "--model", "/nope")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: No model '/nope' on this machine",
        "why: no such folder",
        "next: Use the built-in model:  --model sage-builtin",
    ]


def test_a_gateway_that_does_not_run_is_one_clear_message(tmp_path: Path) -> None:
    with socket.socket() as probe:  # bound and not listening: nobody answers there
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        done = script("openai_client.py", tmp_path, SAGE_UNIFIED_BASE_URL=url)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [f"error: Nobody answers at {url}", "next: sage llm serve"]


def test_every_example_is_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text()

    assert all(f"`{path.name}`" in table for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml"))
