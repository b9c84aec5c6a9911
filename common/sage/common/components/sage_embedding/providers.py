"""The embedding services that SAGE can ask: where each stands, how its requests look, and how its answers are read.

No I/O. Each request format is the one that the provider documents:

    openai        POST /embeddings            platform.openai.com/docs/api-reference/embeddings
    jina          POST /v1/embeddings         api.jina.ai/redoc
    zhipu         POST /paas/v4/embeddings    docs.bigmodel.cn, "文本嵌入"
    cohere        POST /v2/embed              docs.cohere.com/reference/embed
    ollama        POST /api/embed             docs.ollama.com/api/embed
    siliconcloud  POST /v1/embeddings         docs.siliconflow.cn, "create-embeddings"
    nvidia_openai POST /v1/embeddings         docs.nvidia.com/nim/nemo-retriever/text-embedding
    bedrock       POST /model/ID/invoke       docs.aws.amazon.com/bedrock, "InvokeModel", Titan and Cohere embeddings
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
Choices = tuple[object, ...]
"""The values that a parameter may have; empty: any text or number."""

_COHERE_INPUTS: Choices = ("search_document", "search_query", "classification", "clustering")
_CUTS: Choices = ("NONE", "START", "END")
_JINA_TASKS: Choices = ("retrieval.query", "retrieval.passage", "text-matching", "classification", "separation")


@dataclass(frozen=True, slots=True)
class Call:
    """What every request of one embedder says beside its texts."""

    model: str
    dimensions: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provider:
    """One embedding service."""

    method: str
    display_name: str
    description: str
    base_url: str
    path: str
    model: str
    dimensions: Mapping[str, int]
    """The length of the vectors of the models that are known, the default one first."""
    body: Callable[[Call, Sequence[str]], Body]
    vectors: Callable[[Mapping[str, Any]], list[Any]]
    batch: int
    """How many texts a request may hold."""
    key_variables: tuple[str, ...] = ()
    parameters: Mapping[str, Choices] = field(default_factory=dict)
    """What `EmbeddingFactory.create` takes for this method beside the options of every method."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    base_variables: tuple[str, ...] = ()
    local: bool = False
    """Whether it usually runs on this machine: nobody is waited for who does not listen."""


def _openai(call: Call, texts: Sequence[str]) -> Body:
    """Return OpenAI's body, which others follow."""
    body: Body = {"model": call.model, "input": list(texts), "encoding_format": "float", **call.parameters}
    return body if call.dimensions is None else body | {"dimensions": call.dimensions}


def _zhipu(call: Call, texts: Sequence[str]) -> Body:
    """Return Zhipu's body: OpenAI's without `encoding_format`."""
    body: Body = {"model": call.model, "input": list(texts)}
    return body if call.dimensions is None else body | {"dimensions": call.dimensions}


def _jina(call: Call, texts: Sequence[str]) -> Body:
    """Return Jina's body, which names the number format `embedding_type`."""
    body: Body = {"model": call.model, "input": list(texts), "embedding_type": "float", "normalized": True}
    body |= call.parameters
    return body if call.dimensions is None else body | {"dimensions": call.dimensions}


def _cohere(call: Call, texts: Sequence[str]) -> Body:
    """Return Cohere's body (v2)."""
    body: Body = {"model": call.model, "texts": list(texts), "embedding_types": ["float"], **call.parameters}
    return body if call.dimensions is None else body | {"output_dimension": call.dimensions}


def _ollama(call: Call, texts: Sequence[str]) -> Body:
    """Return Ollama's body."""
    body: Body = {"model": call.model, "input": list(texts), **call.parameters}
    return body if call.dimensions is None else body | {"dimensions": call.dimensions}


def _bedrock(call: Call, texts: Sequence[str]) -> Body:
    """Return the model's own body: Titan takes one text, Cohere a list; the model's name stands in the URL."""
    if "cohere." in call.model:
        body: Body = {"texts": list(texts), "input_type": "search_document", **call.parameters}
        return body if call.dimensions is None else body | {"output_dimension": call.dimensions}
    body = {"inputText": texts[0]}
    if "titan-embed-text-v1" in call.model:
        return body
    body["normalize"] = True
    return body if call.dimensions is None else body | {"dimensions": call.dimensions}


def _openai_vectors(answer: Mapping[str, Any]) -> list[Any]:
    """Return the vectors of an answer in OpenAI's shape, in the order of the texts."""
    items = sorted(answer["data"], key=lambda item: item["index"])
    if [item["index"] for item in items] != list(range(len(items))):
        raise ValueError("its indices are not 0, 1, 2 ...")
    return [_numbers(item["embedding"]) for item in items]


def _numbers(value: Any) -> Any:
    """Return a vector as it came, or from base64 (little-endian float32), which some servers send unasked."""
    if not isinstance(value, str):
        return value
    import numpy as np

    return np.frombuffer(b64decode(value, validate=True), dtype="<f4")


def _cohere_vectors(answer: Mapping[str, Any]) -> list[Any]:
    """Return the vectors of a Cohere answer; models on Bedrock may leave out the level of number formats."""
    vectors = answer["embeddings"]
    return list(vectors["float"] if isinstance(vectors, Mapping) else vectors)


def _ollama_vectors(answer: Mapping[str, Any]) -> list[Any]:
    """Return the vectors of an Ollama answer."""
    return list(answer["embeddings"])


def _bedrock_vectors(answer: Mapping[str, Any]) -> list[Any]:
    """Return the one vector of a Titan answer, or the vectors of a Cohere answer."""
    return [answer["embedding"]] if "embedding" in answer else _cohere_vectors(answer)


_COHERE_PARAMETERS: Mapping[str, Choices] = {"input_type": _COHERE_INPUTS, "truncate": _CUTS}

_ALL = (
    Provider(
        method="openai",
        display_name="OpenAI",
        description="OpenAI's embedding models, or any server that speaks their protocol (base_url=...)",
        base_url="https://api.openai.com/v1",
        path="/embeddings",
        model="text-embedding-3-small",
        dimensions={
            "text-embedding-3-small": 1536,
            "text-embedding-3-large": 3072,
            "text-embedding-ada-002": 1536,
        },
        body=_openai,
        vectors=_openai_vectors,
        batch=2048,
        key_variables=("OPENAI_API_KEY",),
        parameters={"user": ()},
    ),
    Provider(
        method="jina",
        display_name="Jina AI",
        description="multilingual embeddings with adapters for tasks (task=...)",
        base_url="https://api.jina.ai/v1",
        path="/embeddings",
        model="jina-embeddings-v3",
        dimensions={"jina-embeddings-v3": 1024, "jina-embeddings-v2-base-en": 768, "jina-embeddings-v2-base-zh": 768},
        body=_jina,
        vectors=_openai_vectors,
        batch=128,
        key_variables=("JINA_API_KEY", "JINAAI_API_KEY"),
        parameters={"task": _JINA_TASKS, "truncate": (True, False)},
    ),
    Provider(
        method="zhipu",
        display_name="Zhipu AI",
        description="the embedding models of bigmodel.cn",
        base_url="https://open.bigmodel.cn/api/paas/v4",
        path="/embeddings",
        model="embedding-3",
        dimensions={"embedding-3": 2048, "embedding-2": 1024},
        body=_zhipu,
        vectors=_openai_vectors,
        batch=64,
        key_variables=("ZHIPUAI_API_KEY", "ZHIPU_API_KEY", "ZAI_API_KEY"),
    ),
    Provider(
        method="cohere",
        display_name="Cohere",
        description="multilingual embeddings that tell documents from queries (input_type=...)",
        base_url="https://api.cohere.com",
        path="/v2/embed",
        model="embed-multilingual-v3.0",
        dimensions={
            "embed-multilingual-v3.0": 1024,
            "embed-english-v3.0": 1024,
            "embed-multilingual-light-v3.0": 384,
            "embed-english-light-v3.0": 384,
            "embed-v4.0": 1536,
        },
        body=_cohere,
        vectors=_cohere_vectors,
        batch=96,
        key_variables=("CO_API_KEY", "COHERE_API_KEY"),
        parameters=_COHERE_PARAMETERS,
        defaults={"input_type": "search_document"},
    ),
    Provider(
        method="ollama",
        display_name="Ollama",
        description="models that an Ollama server on this machine or elsewhere has pulled",
        base_url="http://localhost:11434",
        path="/api/embed",
        model="nomic-embed-text",
        dimensions={"nomic-embed-text": 768, "mxbai-embed-large": 1024, "all-minilm": 384},
        body=_ollama,
        vectors=_ollama_vectors,
        batch=64,
        parameters={"truncate": (True, False), "keep_alive": ()},
        base_variables=("OLLAMA_HOST",),
        local=True,
    ),
    Provider(
        method="siliconcloud",
        display_name="SiliconCloud",
        description="open embedding models hosted by SiliconFlow",
        base_url="https://api.siliconflow.cn/v1",
        path="/embeddings",
        model="BAAI/bge-m3",
        dimensions={
            "BAAI/bge-m3": 1024,
            "BAAI/bge-large-zh-v1.5": 1024,
            "BAAI/bge-large-en-v1.5": 1024,
            "netease-youdao/bce-embedding-base_v1": 768,
        },
        body=_openai,
        vectors=_openai_vectors,
        batch=32,
        key_variables=("SILICONFLOW_API_KEY", "SILICONCLOUD_API_KEY"),
    ),
    Provider(
        method="bedrock",
        display_name="Amazon Bedrock",
        description="Titan and Cohere embeddings on AWS; requests are signed with the AWS keys (region=...)",
        base_url="https://bedrock-runtime.{region}.amazonaws.com",
        path="/model/{model}/invoke",
        model="amazon.titan-embed-text-v2:0",
        dimensions={
            "amazon.titan-embed-text-v2:0": 1024,
            "amazon.titan-embed-text-v1": 1536,
            "cohere.embed-multilingual-v3": 1024,
            "cohere.embed-english-v3": 1024,
        },
        body=_bedrock,
        vectors=_bedrock_vectors,
        batch=96,
        key_variables=("AWS_BEARER_TOKEN_BEDROCK",),
        parameters=_COHERE_PARAMETERS,
    ),
    Provider(
        method="nvidia_openai",
        display_name="NVIDIA NIM",
        description="NVIDIA's retrieval models, hosted or in a container of your own (base_url=..., input_type=...)",
        base_url="https://integrate.api.nvidia.com/v1",
        path="/embeddings",
        model="nvidia/nv-embedqa-e5-v5",
        dimensions={"nvidia/nv-embedqa-e5-v5": 1024, "nvidia/llama-nemotron-embed-1b-v2": 2048},
        body=_openai,
        vectors=_openai_vectors,
        batch=50,
        key_variables=("NVIDIA_API_KEY",),
        parameters={"input_type": ("query", "passage"), "truncate": _CUTS},
        defaults={"input_type": "passage"},
    ),
)

PROVIDERS: Mapping[str, Provider] = {provider.method: provider for provider in _ALL}
