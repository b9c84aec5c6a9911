"""The embedding methods that ask a service, each against a local server that checks what the provider documents."""

import os
import pathlib
import pickle
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from tests.integration.llm.embedding_services import (
    BASES,
    CHECKS,
    DIM,
    KEYS,
    Request,
    Served,
    WrongRequestError,
    serving,
    vector,
)

from sage.common.components.sage_embedding import EmbeddingClientAdapter, EmbeddingFactory
from sage.common.components.sage_embedding.providers import PROVIDERS
from sage.common.components.sage_embedding.remote import RemoteEmbedding, find_key
from sage.common.components.sage_embedding.remote_http import LONGEST_PAUSE, Retries
from sage.common.components.sage_embedding.sigv4 import Credentials, sign
from sage.common.errors import ConfigError, ModelError, NotRunningError, SageError, UpstreamError

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MODELS = dict.fromkeys(CHECKS, "of-eight-numbers") | {"zhipu": "embedding-3"}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in [name for provider in PROVIDERS.values() for name in provider.key_variables]:
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(("AWS_", "OLLAMA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture(params=sorted(CHECKS))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(method: str) -> Iterator[Served]:
    with serving(CHECKS[method]) as served:
        yield served


@pytest.fixture
def openai() -> Iterator[Served]:
    with serving(CHECKS["openai"]) as served:
        yield served


def embedder_for(method: str, served: Served, **options: Any) -> RemoteEmbedding:
    """An embedder of a method that asks a local server, without waiting between attempts."""
    given: dict[str, Any] = {"base_url": served.url + BASES.get(method, "/v1"), "model": MODELS.get(method)}
    if method in KEYS:
        given["api_key"] = KEYS[method][1]
    if method == "zhipu":
        given["dimensions"] = 256
    embedder = EmbeddingFactory.create(method, **{"retries": Retries(2, sleep=lambda _: None), **given, **options})
    assert isinstance(embedder, RemoteEmbedding)
    return embedder


def unit(text: str, length: int = DIM) -> list[float]:
    return list(np.asarray(vector(text, length)) / 3)


@pytest.mark.spec("E10")
def test_requests_are_what_the_provider_documents(method: str, service: Served) -> None:
    texts = [f"text {number} 文本" for number in range(300)]
    with embedder_for(method, service) as embedder:
        vectors = embedder.embed_array(texts)
        assert embedder.get_dim() == len(vectors[0])
        assert embedder.embed(texts[7]) == pytest.approx(vectors[7].tolist()), "alone as in a batch"
        assert len(EmbeddingClientAdapter(embedder).embed(texts[:2])) == 2
        assert embedder.method_name == method
    length = 256 if method == "zhipu" else DIM
    assert vectors.shape == (300, length)
    np.testing.assert_allclose(vectors, [unit(text, length) for text in texts], atol=1e-5)
    batches = [len(one.body.get("texts") or one.body["input"]) for one in service.requests[:-2]]
    assert sum(batches) == 300
    assert max(batches) <= PROVIDERS[method].batch


@pytest.mark.spec("E10")
def test_text_without_content_is_never_sent(method: str, service: Served) -> None:
    with embedder_for(method, service) as embedder:
        vectors = embedder.embed_array(["", "word", " \n"])
        assert not vectors[[0, 2]].any()
        assert vectors[1].any()
        assert embedder.embed_batch([]) == []
        assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("method_name", "options", "sent"),
    [
        ("openai", {"dimensions": 16, "user": "me"}, {"dimensions": 16, "user": "me"}),
        ("jina", {"task": "retrieval.query", "dimensions": 16}, {"task": "retrieval.query", "dimensions": 16}),
        ("cohere", {"input_type": "search_query", "dimensions": 16}, {"output_dimension": 16}),
        ("nvidia_openai", {"input_type": "query", "truncate": "END"}, {"input_type": "query", "truncate": "END"}),
        ("ollama", {"truncate": False, "keep_alive": "5m"}, {"truncate": False, "keep_alive": "5m"}),
    ],
)
def test_options_travel(method_name: str, options: dict[str, Any], sent: dict[str, Any]) -> None:
    with serving(CHECKS[method_name]) as served, embedder_for(method_name, served, **options) as embedder:
        assert len(embedder.embed("text")) == options.get("dimensions", DIM)
        assert sent.items() <= served.requests[0].body.items()


def test_a_request_holds_at_most_300000_bytes(openai: Served) -> None:
    with embedder_for("openai", openai) as embedder:
        embedder.embed_array(["x" * 100_000] * 7)
    assert [len(one.body["input"]) for one in openai.requests] == [3, 3, 1]


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.spec("E10")
@pytest.mark.parametrize("method_name", sorted(KEYS))
def test_the_key_is_the_arguments_else_the_variables(method_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, (variable, _) = PROVIDERS[method_name], KEYS[method_name]
    with pytest.raises(ConfigError) as caught:
        EmbeddingFactory.create(method_name)
    assert variable in caught.value.cause
    assert variable in caught.value.hint
    assert EmbeddingFactory.check_availability(method_name)["status"] == "needs_api_key"
    for other, value in KEYS.values():
        if other != variable:
            monkeypatch.setenv(other, value)
    assert EmbeddingFactory.check_availability(method_name)["status"] == "needs_api_key", "another provider's key"
    monkeypatch.setenv(variable, "mine")
    assert EmbeddingFactory.check_availability(method_name)["status"] == "available"
    assert find_key(provider, provider.base_url, None) == "mine"
    assert find_key(provider, provider.base_url, "given") == "given"


@pytest.mark.spec("E10")
def test_a_variables_key_goes_to_the_provider_only(openai: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in KEYS.values():
        monkeypatch.setenv(variable, value)
    for method_name in KEYS:
        with embedder_for(method_name, openai, api_key=None) as embedder, pytest.raises(SageError):
            embedder.embed("text")
    assert len(openai.requests) == len(KEYS)
    assert all("authorization" not in one.headers for one in openai.requests)
    for url in ("https://api.openai.com.evil.example/v1", "http://api.openai.com/v1", "https://api.openai.com:444/v1"):
        assert find_key(PROVIDERS["openai"], url, None) == ""


def test_keys_are_neither_followed_nor_shown_nor_pickled(openai: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    openai.first = [(302, {"Location": openai.url + "/elsewhere"}, "")]
    embedder = embedder_for("openai", openai, retries=0)
    with pytest.raises(UpstreamError, match="redirects") as caught:
        embedder.embed("text")
    assert len(openai.requests) == 1
    assert "sk-openai" not in f"{caught.value!r} {caught.value.to_dict()} {embedder.get_model_info()}"
    assert b"sk-openai" not in pickle.dumps(embedder)
    embedder.close()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-there")
    again = pickle.loads(pickle.dumps(EmbeddingFactory.create("openai", api_key="sk-here")))
    assert again._key == "sk-there"


# -- failures -------------------------------------------------------------------------------------------------------


def waiting(pauses: list[float], count: int = 4) -> Retries:
    return Retries(count, sleep=pauses.append, now=lambda: 1_000_000.0, jitter=lambda: 1.0)


def test_a_busy_service_is_asked_again_after_what_it_says(openai: Served) -> None:
    pauses: list[float] = []
    openai.first = [
        (429, {"Retry-After": "7"}, "{}"),
        (503, {"Retry-After": formatdate(1_000_012, usegmt=True)}, "down"),
        (500, {}, ""),
        (502, {"Retry-After": "soon"}, "<html>"),
    ]
    with embedder_for("openai", openai, retries=waiting(pauses)) as embedder:
        assert embedder.embed("text") == pytest.approx(unit("text"), abs=1e-5)
    assert pauses == [7.0, 12.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("status", "headers", "body", "error", "says"),
    [
        (401, {}, '{"error": {"message": "bad key", "code": "invalid_api_key"}}', ConfigError, "bad key"),
        (403, {}, '{"message": "not yours"}', ConfigError, "not yours"),
        (404, {}, '{"detail": "no such model"}', ModelError, "no such model"),
        (400, {}, '{"code": 20015, "message": "too long"}', UpstreamError, "too long"),
        (422, {}, '{"detail": [{"msg": "wrong"}]}', UpstreamError, "wrong"),
        (429, {}, '{"error": {"message": "pay", "code": "insufficient_quota"}}', UpstreamError, "pay"),
        (429, {"Retry-After": str(LONGEST_PAUSE + 1)}, '{"error": "later"}', UpstreamError, "later"),
        (200, {}, "<html>", UpstreamError, "no JSON"),
        (200, {}, '{"data": []}', UpstreamError, "does not fit"),
        (200, {}, '{"data": [{"index": 1, "embedding": [1.0]}]}', UpstreamError, "does not fit"),
        (200, {}, '{"data": [{"index": 0, "embedding": [NaN]}]}', UpstreamError, "does not fit"),
        (200, {}, '{"data": [{"index": 0}]}', UpstreamError, "does not fit"),
    ],
)
def test_what_repeating_does_not_help_is_said_at_once(
    openai: Served, status: int, headers: dict[str, str], body: str, error: type[SageError], says: str
) -> None:
    openai.first = [(status, headers, body)]
    with embedder_for("openai", openai) as embedder, pytest.raises(error, match=says):
        embedder.embed("text")
    assert len(openai.requests) == 1


def test_retries_end(openai: Served) -> None:
    pauses: list[float] = []
    openai.first = [(503, {}, "")] * 9
    with embedder_for("openai", openai, retries=waiting(pauses, 3)) as embedder, pytest.raises(UpstreamError) as caught:
        embedder.embed("text")
    assert pauses == [0.5, 1.0, 2.0]
    assert caught.value.details["status"] == 503


def test_a_vector_of_another_length_is_refused(openai: Served) -> None:
    with embedder_for("openai", openai, model="text-embedding-3-small") as embedder:
        assert embedder.get_dim() == 1536
        with pytest.raises(UpstreamError, match="1536 were expected"):
            embedder.embed("text")


def test_ollama_that_is_not_there(free_port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"0.0.0.0:{free_port()}")
    assert EmbeddingFactory.check_availability("ollama")["status"] == "unavailable"
    pauses: list[float] = []
    with pytest.raises(NotRunningError) as caught:
        EmbeddingFactory.create("ollama", retries=waiting(pauses)).embed("text")
    assert caught.value.hint == "ollama serve"
    assert pauses == []


def test_ollama_tells_what_it_has() -> None:
    with serving(CHECKS["ollama"]) as served:
        assert EmbeddingFactory.check_availability("ollama", base_url=served.url)["status"] == "available"
        lacking = EmbeddingFactory.check_availability("ollama", base_url=served.url, model="mxbai-embed-large")
        assert lacking["status"] == "needs_download"
        assert "ollama pull mxbai-embed-large" in lacking["message"]


def test_a_service_that_hangs_is_left() -> None:
    def hang(request: Request) -> dict[str, Any]:
        time.sleep(0.5)
        raise WrongRequestError("too late")

    with serving(hang) as served:
        embedder = embedder_for("openai", served, timeout=0.1, retries=0)
        with pytest.raises(UpstreamError, match="does not answer"):
            embedder.embed("text")
        embedder.close()


@pytest.mark.parametrize(
    "options",
    [
        {"input_type": "passage"},
        {"dimensions": 0},
        {"batch_size": 1.5},
        {"base_url": "ftp://host"},
        {"base_url": "https://user:secret@host/v1"},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        EmbeddingFactory.create("openai", **{"api_key": "k", **options})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="not known to Cohere"):
        EmbeddingFactory.create("cohere", api_key="k", input_type="passage")


# -- Bedrock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "signature"),
    [
        (b"", {}, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            b"Param1=value1",
            {"Content-Type": "application/x-www-form-urlencoded"},
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_signatures_are_those_of_aws_test_suite(body: bytes, headers: dict[str, str], signature: str) -> None:
    """post-vanilla and post-x-www-form-urlencoded of the Signature Version 4 test suite."""
    keys = Credentials("AKIDEXAMPLE", SECRET)
    signed = sign(
        "https://example.amazonaws.com/",
        body,
        headers,
        keys,
        region="us-east-1",
        service="service",
        at="20150830T123600Z",
    )
    assert signed["Authorization"].endswith(f"Signature={signature}")
    assert SECRET not in repr(keys)


def test_the_path_of_a_model_is_signed_as_botocore_does() -> None:
    """The colon of the model's name is %3A in the URL and %253A in what is signed; the value is botocore 1.44.5's."""
    signed = sign(
        "https://bedrock-runtime.eu-west-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke",
        b'{"inputText":"h"}',
        {"Content-Type": "application/json", "Accept": "application/json"},
        Credentials("AKIDEXAMPLE", SECRET, "token"),
        region="eu-west-1",
        service="bedrock",
        at="20150830T123600Z",
    )
    assert signed["Authorization"].endswith("ed5cefe29fce1d37290af454d6ab6a1ba085441bcf2b0f893d5dafe0ce287e73")


def bedrock(request: Request) -> dict[str, Any]:
    """InvokeModel for Titan v2, Titan v1 and Cohere; the signature is worked out anew from what arrived."""
    if request.headers["authorization"] != "Bearer bedrock-key":
        names = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        kept = {name: request.headers[name] for name in names if name not in ("host", "x-amz-date")}
        kept.pop("x-amz-security-token", None)
        keys = Credentials("AKIDEXAMPLE", SECRET, request.headers.get("x-amz-security-token", ""))
        url, at = f"http://{request.headers['host']}{request.path}", request.headers["x-amz-date"]
        signed = sign(url, request.raw, kept, keys, region="eu-west-1", service="bedrock", at=at)
        if signed["Authorization"] != request.headers["authorization"]:
            raise WrongRequestError("signature")
    body = request.body
    if "cohere" in request.path:
        if set(body) - {"texts", "input_type", "truncate"} or not 1 <= len(body["texts"]) <= 96:
            raise WrongRequestError("cohere")
        return {"embeddings": [vector(text) for text in body["texts"]], "response_type": "embeddings_floats"}
    known = {"inputText", "dimensions", "normalize"} if "v2%3A0" in request.path else {"inputText"}
    if set(body) - known or not body["inputText"]:
        raise WrongRequestError("titan")
    return {"embedding": vector(body["inputText"], body.get("dimensions", 1024)), "inputTextTokenCount": 3}


@pytest.mark.spec("E10")
@pytest.mark.parametrize(
    "key",
    [
        {"api_key": "bedrock-key"},
        {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET},
        {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET, "aws_session_token": "token"},
    ],
)
def test_bedrock(key: dict[str, str]) -> None:
    options: dict[str, Any] = {"region": "eu-west-1", "retries": 0, **key}
    with serving(bedrock) as served:
        with EmbeddingFactory.create("bedrock", base_url=served.url, dimensions=256, **options) as titan:  # type: ignore[attr-defined]
            assert titan.embed_array(["one", "two"]).shape == (2, 256)
        assert served.requests[0].path == "/model/amazon.titan-embed-text-v2%3A0/invoke"
        assert len(served.requests) == 2
        v1 = {"base_url": served.url, "model": "amazon.titan-embed-text-v1", "dimensions": 1024, **options}
        cohere = {"base_url": served.url, "model": "cohere.embed-english-v3:0", "input_type": "search_query", **options}
        for given, calls in ((v1, 100), (cohere, 2)):
            served.requests.clear()
            with EmbeddingFactory.create("bedrock", **given) as embedder:  # type: ignore[attr-defined]
                assert len(embedder.embed_array([f"text {number}" for number in range(100)])) == 100
            assert len(served.requests) == calls


def test_bedrock_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    assert EmbeddingFactory.check_availability("bedrock")["status"] == "unavailable"
    with pytest.raises(ConfigError, match="region"):
        EmbeddingFactory.create("bedrock")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert EmbeddingFactory.check_availability("bedrock")["status"] == "needs_api_key"
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        EmbeddingFactory.create("bedrock")
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = A\naws_secret_access_key = B\n")
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.delenv("AWS_REGION")
    info = EmbeddingFactory.create("bedrock").get_model_info()
    assert info["base_url"] == "https://bedrock-runtime.eu-west-3.amazonaws.com"
    with pytest.raises(ConfigError, match="may be sent"):
        EmbeddingFactory.create("bedrock", base_url="https://amazonaws.com.evil.example")
    with pytest.raises(ConfigError, match="input_type"):
        EmbeddingFactory.create("bedrock", input_type="search_query")
