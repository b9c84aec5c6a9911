"""The snippets of the document on sage-common, run as files, unchanged (only their lost indentation is put back)."""

import json
import pathlib
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sage.common.config.ports import SagePorts

SNIPPETS = pathlib.Path(__file__).with_name("snippets")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """No stack, no settings of the person who runs the tests."""
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / ".sage"))
    monkeypatch.delenv("SAGE_UNIFIED_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


def run(name: str) -> dict[str, Any]:
    """Run a snippet as a program; its variables."""
    return runpy.run_path(str(SNIPPETS / name), run_name="__main__")


class _Gateway(BaseHTTPRequestHandler):
    """As much of a gateway as one chat needs."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = f"{self.path}: {body['messages'][0]['content']}"
        answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def gateway_on_its_port() -> Iterator[None]:
    """A server on the gateway's default port, which the snippet names."""
    if not SagePorts.is_available(SagePorts.GATEWAY_DEFAULT):
        pytest.skip(f"port {SagePorts.GATEWAY_DEFAULT} is taken on this machine")
    server = ThreadingHTTPServer(("127.0.0.1", SagePorts.GATEWAY_DEFAULT), _Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.spec("G1")
@pytest.mark.usefixtures("gateway_on_its_port")
def test_client_by_default_by_address_and_by_model() -> None:
    found = run("common_client.py")
    assert found["resp"] == "/v1/chat/completions: 写一份日报"
    assert found["model_bound"].default_llm_model == "Qwen/Qwen2.5-7B-Instruct"
    assert found["model_bound"].base_url == f"http://localhost:{SagePorts.GATEWAY_DEFAULT}/v1"
    found["client"].close()


@pytest.mark.spec("G1")
def test_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free_port: Any) -> None:
    monkeypatch.setenv("SAGE_UNIFIED_BASE_URL", f"http://127.0.0.1:{free_port()}/v1")
    found = run("common_status.py")
    assert capsys.readouterr().out == "LLM available: False\nEmbedding available: False\n"
    found["client"].close()


@pytest.mark.spec("E10")
def test_hash_embedding(capsys: pytest.CaptureFixture[str]) -> None:
    found = run("common_embedding_hash.py")
    lines = capsys.readouterr().out.splitlines()
    methods = [line.split(": ")[0] for line in lines]
    assert " ".join(methods) == "hash hf openai jina zhipu cohere ollama siliconcloud bedrock nvidia_openai"
    assert [len(vector) for vector in found["vectors"]] == [384, 384]
    assert len(found["single_vector"]) == 384


@pytest.mark.slow
@pytest.mark.spec("E10")
def test_hf_embedding_by_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name stands for a folder in the Hugging Face cache; here a random model of the same kind stands there."""
    transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
    folder = tmp_path / "models--BAAI--bge-small-zh-v1.5" / "snapshots" / "main"
    config = transformers.BertConfig(
        vocab_size=5, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = run("common_embedding_hf.py")
    assert [len(vector) for vector in found["vectors"]] == [32, 32]
    assert len(found["raw_embedder"].embed("only-one-text")) == 32


@pytest.mark.spec("P1")
def test_ports(capsys: pytest.CaptureFixture[str]) -> None:
    found = run("common_ports.py")
    assert {name: port for name, (port, _) in found["PORT_MAP"].items()} == {
        "Gateway": 8889,
        "LLM": 8001,
        "Embedding": 8090,
        "Benchmark": 8901,
    }
    assert capsys.readouterr().out == f"LLM 在此机器使用端口: {found['recommended']}\n"


@pytest.mark.spec("P1")
def test_ports_on_wsl_and_elsewhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for wsl, port in ((False, 8001), (True, 8901)):
        monkeypatch.setattr(SagePorts, "is_wsl", staticmethod(lambda wsl=wsl: wsl))
        run("common_ports_wsl.py")
        assert capsys.readouterr().out == f"启动命令: sage llm serve --port {port} --embedding-port 8090\n"
