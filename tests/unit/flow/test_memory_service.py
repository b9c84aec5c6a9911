"""`MemoryService`: stored, found by likeness, session and kind, kept over a restart (SPEC S1)."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from sage.common.errors import ServiceError
from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction
from sage.middleware.services import MemoryService

pytestmark = pytest.mark.spec("S1")


def filled(**options: Any) -> MemoryService:
    service = MemoryService(**options)
    service.store_memory("about tea", [1.0, 0.0], "ada")
    service.store_memory("about ink", [0.0, 1.0], "ada", memory_type="fact", metadata={"source": "book"})
    service.store_memory("tea again", [0.9, 0.1], "bob")
    return service


def test_the_most_alike_come_first() -> None:
    found = filled().search_memories([1.0, 0.0], top_k=2)
    assert [memory["content"] for memory in found] == ["about tea", "tea again"]
    assert found[0]["score"] > found[1]["score"]


def test_of_one_session_or_kind() -> None:
    service = filled()
    assert [m["content"] for m in service.search_memories([1.0, 0.0], session_id="bob")] == ["tea again"]
    assert [m["content"] for m in service.search_memories([1.0, 0.0], memory_type="fact")] == ["about ink"]
    assert [m["content"] for m in service.get_session_memories("ada")] == ["about tea", "about ink"]
    assert [m["content"] for m in service.get_session_memories("ada", "fact")] == ["about ink"]


def test_by_id() -> None:
    service = filled()
    memory_id = service.store_memory("new", [0.5, 0.5], "cy", metadata={"n": 1})
    found = service.get_memory(memory_id)
    assert found is not None
    assert (found["content"], found["session_id"], found["memory_type"]) == ("new", "cy", "conversation")
    assert found["metadata"] == {"n": 1}
    assert service.delete_memory(memory_id)
    assert service.get_memory(memory_id) is None
    assert not service.delete_memory(memory_id)


def test_stats() -> None:
    stats = filled().stats()
    assert (stats["count"], stats["sessions"], stats["by_type"]) == (3, 2, {"conversation": 2, "fact": 1})


def test_it_survives_a_restart(tmp_path: pathlib.Path) -> None:
    filled(path=tmp_path / "memory").close()
    again = MemoryService(path=tmp_path / "memory")
    assert [m["content"] for m in again.search_memories([0.0, 1.0], top_k=1)] == ["about ink"]


def test_what_does_not_fit_is_refused() -> None:
    service = filled()
    with pytest.raises(ServiceError):
        service.store_memory("three", [1.0, 2.0, 3.0], "ada")
    with pytest.raises(ServiceError, match="session_id must be a text"):
        service.store_memory("x", [1.0, 0.0], 7)  # type: ignore[arg-type]
    assert service.stats()["count"] == 3


def test_in_a_pipeline() -> None:
    class Remember(MapFunction[str, str]):
        def execute(self, value: str) -> str:
            stored: str = self.call_service["memory"].store_memory(value, [len(value), 1.0], "s")
            return stored

    out: list[str] = []
    with LocalEnvironment("memory") as env:
        env.register_service("memory", MemoryService)
        env.from_collection(["a", "bb"]).map(Remember).sink(out.append)
        env.submit()
        assert env.call_service["memory"].stats()["count"] == 2
    assert len(set(out)) == 2
