"""A served engine with an adapter: chosen by the model's name, listed, and still there after a sleep (SPEC E8)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.engine_process import Server, serving
from tests.helpers.lora import merged, write_adapter
from tests.helpers.tiny_models import expected_tokens, tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.spec("E8")]
PROMPT = [(13 * at * at + 5 * at) % 300 + 5 for at in range(20)]


def answered(server: Server, model: str) -> str:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def test_an_adapter_is_a_model_by_its_name(tmp_path: Path) -> None:
    base = tiny_model("llama")
    adapter = write_adapter(tmp_path / "adapter", base)
    folders = {"base": base, "mine": merged(tmp_path / "merged", base, adapter)}
    options = ("--model", str(base), "--served-model-name", "base", "--dtype", "float32", "--max-model-len", "128")
    with serving(tmp_path, *options, "--lora", f"mine={adapter}") as server:
        listed = [each["id"] for each in server.http.get("/v1/models").json()["data"]]
        assert listed == ["base", "mine"]
        for turn in range(2):
            for name, folder in folders.items():
                ids = expected_tokens(folder, PROMPT, 8)
                text = server.http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
                assert answered(server, name) == text, (turn, name)
            assert server.http.post("/sleep").json() == {"is_sleeping": True}
            refused = server.http.post("/v1/completions", json={"model": "base", "prompt": PROMPT})
            assert refused.status_code == 503
            assert server.http.post("/wake_up").json() == {"is_sleeping": False}
