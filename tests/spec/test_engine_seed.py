"""The engine's document, snippet by snippet, run as files (SPEC E1, E2, E8).

Where it names a model of a hub, a tiny local Llama lies in the Hugging Face cache under that name, so that the
snippets run unchanged and offline.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sagellm_core import LLMEngine, LLMEngineConfig
from sagellm_protocol.sampling import DecodingStrategy, SamplingParams

pytestmark = [pytest.mark.spec("E1", "E2"), pytest.mark.slow]
SNIPPETS = Path(__file__).parent / "snippets"
SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "vocab_size": 256,
}


def write_model(folder: Path) -> None:
    """A random one-layer Llama that speaks bytes."""
    import numpy
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(SHAPE))
    draw = numpy.random.default_rng(5)
    layer = "model.layers.0"
    sizes = {
        "model.embed_tokens": (256, 16),
        f"{layer}.self_attn.q_proj": (16, 16),
        f"{layer}.self_attn.k_proj": (8, 16),
        f"{layer}.self_attn.v_proj": (8, 16),
        f"{layer}.self_attn.o_proj": (16, 16),
        f"{layer}.mlp.gate_proj": (32, 16),
        f"{layer}.mlp.up_proj": (32, 16),
        f"{layer}.mlp.down_proj": (16, 32),
        f"{layer}.input_layernorm": (16,),
        f"{layer}.post_attention_layernorm": (16,),
        "model.norm": (16,),
    }
    tensors = {f"{name}.weight": draw.normal(0, 0.5, size).astype(numpy.float32) for name, size in sizes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An offline machine whose Hugging Face cache holds the seed's model name."""
    repo = tmp_path / "hf" / "hub" / "models--sshleifer--tiny-gpt2"
    write_model(repo / "snapshots" / "1")
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
    process = subprocess.Popen([sys.executable, str(script)], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, within=60)
        body = {"model": "gpt2", "prompt": "Hello", "max_tokens": 20}
        whole = httpx.post(f"{url}/v1/completions", json=body).json()
        stream = httpx.post(f"{url}/v1/completions/stream", json={**body, "stream": True}).text
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert whole["model"] == "sshleifer/tiny-gpt2"
    assert whole["usage"]["completion_tokens"] == 20
    assert stream.endswith("data: [DONE]\n\n")


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
