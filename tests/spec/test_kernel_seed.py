"""The programs of the kernel's and the dataflow's documents, as files, unchanged, with what they leave out given.

Where they read and write Kafka, the topics are lists behind the same interface.
"""

from __future__ import annotations

import pathlib
import runpy
from collections.abc import Sequence
from typing import Any

import pytest

from sage.core.api import DataStream, DataStreamSink, FunctionContext, LocalEnvironment
from sage.core.api.function import BaseFunction, FilterFunction, MapFunction
from sage.core.connectors.base import ReaderContext, Sink, SinkContext, SinkWriter, Source, SourceReader, Split
from sage.core.runtime.events import Batch

SNIPPETS = pathlib.Path(__file__).parent / "snippets"


def run(name: str, *, main: bool = False, **names: Any) -> dict[str, Any]:
    """Run a program with `names` that its document does not define; its own names."""
    return runpy.run_path(str(SNIPPETS / name), names, "__main__" if main else "snippet")


class Model:
    released = False

    def predict(self, value: str) -> int:
        return len(value)

    def release(self) -> None:
        self.released = True


@pytest.mark.spec("K3")
def test_a_function_with_open_process_and_close() -> None:
    models: dict[str, Model] = {}

    def load_model(path: str) -> Model:
        return models.setdefault(path, Model())

    names: dict[str, Any] = {"BaseFunction": BaseFunction, "FunctionContext": FunctionContext, "load_model": load_model}
    function = run("custom_function.py", Dict=dict, Any=Any, **names)["CustomProcessingFunction"]
    out: list[Any] = []
    env = LocalEnvironment("custom")
    env.from_collection(["a", "bcd"]).map(function({"model_path": "tiny"})).sink(out.append)
    env.submit()
    assert out == [{"input": "a", "output": 1}, {"input": "bcd", "output": 3}]
    assert models["tiny"].released


class Topics:
    """Topics in memory, with a source and a sink that are called like Kafka's."""

    def __init__(self, **topics: list[Any]) -> None:
        self.records = topics

    def source(self, topic: str) -> Source[Any]:
        return TopicSource(self.records, topic)

    def sink(self, topic: str) -> Sink[Any]:
        return TopicSink(self.records.setdefault(topic, []))


class TopicSource(Source[Any]):
    def __init__(self, topics: dict[str, list[Any]], topic: str) -> None:
        self.topics = topics
        self.topic = topic

    def splits(self) -> list[Split]:
        return [Split(self.topic)]

    def reader(self, context: ReaderContext) -> SourceReader[Any]:
        return TopicReader(self.topics)


class TopicReader(SourceReader[Any]):
    def __init__(self, topics: dict[str, list[Any]]) -> None:
        self.topics = topics
        self.positions: dict[str, int] = {}

    def add_splits(self, splits: Sequence[Split]) -> None:
        self.positions |= {split.id: split.position or 0 for split in splits}

    def poll(self, limit: int, timeout: float) -> list[Any] | None:
        for topic, position in self.positions.items():
            records = self.topics[topic][position : position + limit]
            if records:
                self.positions[topic] += len(records)
                return records
        return None

    def snapshot(self) -> list[Split]:
        return [Split(topic, position) for topic, position in self.positions.items()]


class TopicSink(Sink[Any]):
    def __init__(self, topic: list[Any]) -> None:
        self.topic = topic

    def writer(self, context: SinkContext) -> SinkWriter[Any]:
        return TopicWriter(self.topic)


class TopicWriter(SinkWriter[Any]):
    def __init__(self, topic: list[Any]) -> None:
        self.topic = topic

    def write(self, batch: Batch) -> None:
        self.topic.extend(batch.records)


class InputParser(MapFunction[str, dict[str, Any]]):
    def execute(self, value: str) -> dict[str, Any]:
        session, _, text = value.partition(":")
        return {"session_id": session, "text": text}


class QualityFilter(FilterFunction[dict[str, Any]]):
    def execute(self, value: dict[str, Any]) -> bool:
        return bool(value["text"])


class _Adds(MapFunction[dict[str, Any], dict[str, Any]]):
    def execute(self, value: dict[str, Any]) -> dict[str, Any]:
        return {**value, type(self).__name__: self.context.operator}


class EmbeddingGenerator(_Adds): ...


class ContextRetriever(_Adds): ...


class LLMInference(_Adds): ...


class OutputFormatter(MapFunction[dict[str, Any], str]):
    def execute(self, value: dict[str, Any]) -> str:
        return f"{value['session_id']} {value['text']} {value['LLMInference']}"


class Submits:
    """The document's main block submits through a name that its function kept to itself."""

    def submit(self, pipeline: DataStreamSink | DataStream[Any]) -> None:
        pipeline.env.submit(pipeline)


@pytest.mark.spec("K1", "K2", "K8")
def test_the_pipeline_of_the_documents() -> None:
    lines = [f"user-{number % 5}:{'' if number % 7 == 0 else number}" for number in range(100)]
    topics = Topics(**{"input-topic": list(lines)})
    operators = [InputParser, QualityFilter, EmbeddingGenerator, ContextRetriever, LLMInference, OutputFormatter]
    names: dict[str, Any] = {operator.__name__: operator for operator in operators}
    run("optimized_pipeline.py", main=True, env=Submits(), KafkaSource=topics.source, KafkaSink=topics.sink, **names)
    kept = [line.split(":") for line in lines if not line.endswith(":")]
    assert sorted(topics.records["output-topic"]) == sorted(f"{user} {text} llm-inference" for user, text in kept)


@pytest.mark.spec("S3")
def test_services_of_the_middleware_as_operators() -> None:
    """Both services are clients that connect at the first record: here the pipeline is built and explained."""
    env, out = LocalEnvironment("middleware"), []  # type: LocalEnvironment, list[Any]
    names = run("middleware_services.py", env=env, input_source=["a text"], output_sink=out.append)
    assert isinstance(names["pipeline"], DataStreamSink)
    assert "ModelService.embedding" in env.explain()
    assert "VectorDBService.retrieve" in env.explain()


@pytest.mark.spec("K9", "S1", "S2")
def test_a_step_that_calls_services() -> None:
    names = run("gpu_flow.py")
    env, out = names["env"], []  # type: LocalEnvironment, list[Any]
    env.call_service["vdb_service"].add([[1.0, 0.0], [0.0, 1.0]])
    data = {"query_vector": [1.0, 0.1], "content": "hello", "vector": [1.0, 0.0]}
    env.from_collection([data, {**data, "sid": "ada"}]).map(names["RAGStep"]).sink(out.append)
    env.submit()
    assert [[hit["id"] for hit in result["hits"]] for result in out] == [[0, 1], [0, 1]]
    memory = env.call_service["memory_service"]
    assert [found["content"] for found in memory.get_session_memories("ada")] == ["hello"]
    assert len(memory.get_session_memories("default")) == 1
    env.close()


@pytest.mark.spec("K11")
def test_debugging_and_the_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sage.utils.profiler", reason="comes with the dataflow engine's observability")
    env = LocalEnvironment("debugging")
    pipeline = env.from_collection(range(2000)).map(lambda x: sum(range(x)), name="heavy").sink(lambda x: None)
    run("debugging.py", env=env, pipeline=pipeline)
    assert "瓶颈算子: heavy" in capsys.readouterr().out
