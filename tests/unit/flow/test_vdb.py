"""The vector store (SPEC S2)."""

from __future__ import annotations

import json
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sage.common.errors import ServiceError
from sage.middleware.services.vdb import Hit, VDBService
from sage.middleware.services.vdb.flat_index import Metric

pytestmark = pytest.mark.spec("S2")
METRICS: list[Metric] = ["cosine", "ip", "l2"]


def model(rows: np.ndarray[Any, Any], query: np.ndarray[Any, Any], metric: str) -> np.ndarray[Any, Any]:
    """The scores in double precision, straight from their definitions."""
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    scores: np.ndarray[Any, Any] = rows @ query
    if metric == "ip":
        return scores
    if metric == "l2":
        return np.asarray(-np.linalg.norm(rows - query, axis=1))
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
    return np.asarray(np.divide(scores, norms, out=np.zeros(len(rows)), where=norms > 0))


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=80)
@given(
    rows=hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(4)), elements=st.floats(-8, 8, width=16)),
    top_k=st.integers(1, 50),
    data=st.data(),
)
def test_search_is_exact(metric: Metric, rows: Any, top_k: int, data: st.DataObject) -> None:
    query = data.draw(hnp.arrays(np.float32, 4, elements=st.floats(-8, 8, width=16)))
    store = VDBService(metric=metric)
    store.add(rows)
    hits = store.search(query, top_k)
    scores = model(rows, query, metric)
    assert len(hits) == min(top_k, len(rows))
    assert len({hit.id for hit in hits}) == len(hits)
    wanted = sorted(scores, reverse=True)[: len(hits)]
    assert [hit.score for hit in hits] == pytest.approx(wanted, abs=2e-3)
    for hit in hits:
        assert hit.score == pytest.approx(scores[int(hit.id)], abs=2e-3)


def test_hits_are_plain_and_have_attributes() -> None:
    store = VDBService()
    store.add([[1.0, 0.0], [0.0, 1.0]], metadata=[{"name": "east"}, {"name": "north"}])
    [hit] = store.search([0.9, 0.1], top_k=1)
    assert isinstance(hit, Hit)
    assert (hit.id, hit.metadata) == (0, {"name": "east"})
    assert json.loads(json.dumps(hit))["metadata"] == {"name": "east"}
    assert hit["score"] == hit.score == pytest.approx(0.99388, abs=1e-4)


def test_a_batch_of_queries_gives_a_list_each() -> None:
    rng = np.random.default_rng(1)
    store = VDBService()
    rows = rng.standard_normal((300, 8), dtype=np.float32)
    store.add(rows)
    batch = store.search(rows[:20], top_k=3)
    assert [[hit.id for hit in hits] for hits in batch] == [
        [hit.id for hit in store.search(row, top_k=3)] for row in rows[:20]
    ]
    assert [hits[0].id for hits in batch] == list(range(20))


def test_equal_scores_come_in_the_order_of_adding() -> None:
    store = VDBService()
    store.add([[1.0, 0.0]] * 10)
    assert [hit.id for hit in store.search([1.0, 0.0], top_k=4)] == [0, 1, 2, 3]


def test_filters() -> None:
    store = VDBService()
    rng = np.random.default_rng(2)
    store.add(rng.standard_normal((500, 4)), metadata=[{"n": i, "odd": i % 2 == 1} for i in range(500)])
    query = rng.standard_normal(4)
    everything = [hit.id for hit in store.search(query, 500)]
    assert [hit.id for hit in store.search(query, 7, filter={"odd": True})] == [i for i in everything if int(i) % 2][:7]
    assert [hit.id for hit in store.search(query, 9, filter={"n": [3, 4, 999]})] == [
        i for i in everything if i in (3, 4)
    ]
    assert [hit.id for hit in store.search(query, 2, filter=lambda m: m["n"] > 490)] == [
        i for i in everything if int(i) > 490
    ][:2]
    assert store.search(query, 3, filter={"missing": 1}) == []


def test_ids_replace_delete_and_list() -> None:
    store = VDBService()
    assert store.add([[1, 0], [0, 1], [1, 1]], ids=["a", "b", "c"], metadata=[{"v": 1}, None, {"v": 3}]) == [
        "a",
        "b",
        "c",
    ]
    store.add([0, 2], ids=["a"], metadata=[{"v": 10}])
    assert store.get_vector("a") == {"id": "a", "vector": [0.0, 2.0], "metadata": {"v": 10}}
    assert store.count() == len(store) == 3
    assert store.list_vectors(limit=2, offset=1) == [{"id": "b", "metadata": {}}, {"id": "c", "metadata": {"v": 3}}]
    assert store.delete_vectors(["a", "nothing"]) == 1
    assert store.get_vector("a") is None
    assert {hit.id for hit in store.search([1, 1], 10)} == {"b", "c"}
    assert store.delete_vectors("c") == 1
    assert store.add([[5, 5], [6, 6]]) == [0, 1]
    store.clear()
    assert store.count() == 0
    assert store.search([1, 1]) == []
    assert store.stats()["dim"] == 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["add", "delete", "clear"]), st.integers(0, 8)), max_size=40))
def test_any_order_of_changes(steps: list[tuple[str, int]]) -> None:
    """Against a dictionary."""
    store, wanted = VDBService(dim=2, metric="l2"), {}
    for number, (what, key) in enumerate(steps):
        if what == "add":
            store.add([key, number], ids=[key], metadata=[{"number": number}])
            wanted[key] = number
        elif what == "delete":
            assert store.delete_vectors(key) == (wanted.pop(key, None) is not None)
        elif key == 0:
            store.clear()
            wanted.clear()
    assert {entry["id"]: entry["metadata"]["number"] for entry in store.list_vectors()} == wanted
    for key, number in wanted.items():
        assert store.search([key, number], 1)[0].id == key
        assert store.get_vector(key) == {"id": key, "vector": [key, number], "metadata": {"number": number}}


def test_a_single_vector_needs_no_lists() -> None:
    store = VDBService()
    assert store.add([1.0, 2.0], ids="one", metadata={"name": "east"}) == ["one"]
    assert store.list_vectors() == [{"id": "one", "metadata": {"name": "east"}}]


class TestErrors:
    def test_dimensions_must_fit(self) -> None:
        store = VDBService()
        store.add([[1, 2, 3]])
        for call in (lambda: store.add([1, 2]), lambda: store.search([1, 2])):
            with pytest.raises(ServiceError, match="it has 2, this store holds 3"):
                call()
        assert store.count() == 1

    @pytest.mark.parametrize("wrong", [[float("nan"), 1.0], [float("inf"), 1.0], "text", [[1, 2], [3]], [[[1.0]]]])
    def test_what_is_no_vector(self, wrong: Any) -> None:
        with pytest.raises(ServiceError):
            VDBService().add(wrong)

    def test_lengths_must_fit_and_nothing_is_added_then(self) -> None:
        store = VDBService()
        with pytest.raises(ServiceError, match="differ in number"):
            store.add([[1, 2], [3, 4]], metadata=[{}])
        with pytest.raises(ServiceError, match="differ in number"):
            store.add([[1, 2]], ids=["a", "b"])
        assert store.count() == 0

    @pytest.mark.parametrize("wrong", [[["list"]], [("tuple", 1)], [1.5], [None], [True], [b"bytes"]])
    def test_an_id_is_what_a_file_can_hold(self, wrong: Any) -> None:
        """Anything else could be added and saved, and then never be loaded again."""
        store = VDBService()
        with pytest.raises(ServiceError, match="no id of a vector"):
            store.add([[1, 2]], ids=wrong)
        assert store.count() == 0

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.add([1.0, 2.0], metadata=["text"]),
            lambda store: store.search([1.0, 2.0], top_k="3"),
            lambda store: store.search([1.0, 2.0], top_k=2.5),
            lambda store: store.search([1.0, 2.0], filter=["name"]),
            lambda store: store.search([]),
            lambda store: store.add([1e300, 1.0]),
            lambda store: store.add([3e38, 3e38]),
            lambda _: VDBService(dim="3"),  # type: ignore[arg-type]
            lambda _: VDBService(dim=2.5),  # type: ignore[arg-type]
        ],
    )
    def test_wrong_arguments_are_errors_of_the_service(self, call: Callable[[VDBService], object]) -> None:
        for store in (VDBService(), VDBService(dim=2)):
            with pytest.raises(ServiceError):
                call(store)
            assert store.count() == 0

    def test_nothing_to_add_adds_nothing(self) -> None:
        """A document without a single passage is no fault."""
        store = VDBService(dim=2)
        assert store.add([], metadata=[]) == []
        assert store.search(np.empty((0, 2))) == []

    def test_arguments(self) -> None:
        with pytest.raises(ServiceError, match="metric"):
            VDBService(metric="manhattan")  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match="dimension"):
            VDBService(dim=0)
        with pytest.raises(ServiceError, match="top_k"):
            VDBService().search([1.0], top_k=0)
        with pytest.raises(ServiceError, match="No folder"):
            VDBService().save_index()

    def test_a_zero_vector_is_near_to_nothing(self) -> None:
        store = VDBService()
        store.add([[0.0, 0.0], [1.0, 0.0]])
        assert [(hit.id, hit.score) for hit in store.search([1.0, 0.0])] == [(1, 1.0), (0, 0.0)]


class TestKeeping:
    def test_saved_and_loaded(self, tmp_path: pathlib.Path) -> None:
        with_path = VDBService(path=tmp_path / "store")
        with_path.add([[1, 2], [3, 4]], ids=["a", 7], metadata=[{"text": "é", "n": [1, 2]}, {}])
        with_path.close()
        again = VDBService(path=tmp_path / "store")
        assert again.list_vectors() == with_path.list_vectors()
        assert again.get_vector(7) == with_path.get_vector(7)
        other = VDBService()
        assert other.load_index(tmp_path / "store") == 2
        assert other.search([1, 2], 1)[0].id == "a"

    def test_numbers_of_numpy_are_ids(self, tmp_path: pathlib.Path) -> None:
        store = VDBService(path=tmp_path)
        store.add([[1, 2]], ids=[np.int64(7)])  # type: ignore[list-item]
        store.close()
        assert VDBService(path=tmp_path).list_vectors() == [{"id": 7, "metadata": {}}]

    def test_saving_again_replaces_and_leaves_no_litter(self, tmp_path: pathlib.Path) -> None:
        store = VDBService()
        for number in range(3):
            store.add([number, 1])
            store.save_index(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        assert VDBService(path=tmp_path).count() == 3

    def test_an_empty_store(self, tmp_path: pathlib.Path) -> None:
        VDBService().save_index(tmp_path)
        store = VDBService(path=tmp_path)
        assert store.count() == 0
        store.add([1, 2, 3])

    def test_metadata_that_cannot_be_saved_keeps_the_old_one(self, tmp_path: pathlib.Path) -> None:
        store = VDBService()
        store.add([1, 2], ids=["a"])
        store.save_index(tmp_path)
        store.add([3, 4], ids=["b"], metadata=[{"bad": object()}])
        with pytest.raises(ServiceError, match="metadata of vector 'b'"):
            store.save_index(tmp_path)
        assert VDBService(path=tmp_path).count() == 1

    @pytest.mark.parametrize(
        "damage", ["cut", "text", "missing", "pickle", "version", "lengths", "ids", "twice", "metadata"]
    )
    def test_a_damaged_store_says_so(self, tmp_path: pathlib.Path, damage: str) -> None:
        store = VDBService()
        store.add([[1, 2], [3, 4]])
        store.save_index(tmp_path)
        [vectors] = tmp_path.glob("*.npz")
        manifest = tmp_path / "index.json"
        known = json.loads(manifest.read_text())
        if damage == "cut":
            vectors.write_bytes(vectors.read_bytes()[:100])
        elif damage == "text":
            manifest.write_text("{")
        elif damage == "missing":
            vectors.unlink()
        elif damage == "pickle":
            np.savez(vectors, vectors=np.array([object()], dtype=object))
        elif damage == "version":
            manifest.write_text(json.dumps(known | {"version": 99}))
        elif damage == "metadata":
            manifest.write_text(json.dumps(known | {"metadata": ["a", "b"]}))
        else:
            ids = {"lengths": [1], "ids": [["a"], "b"], "twice": [1, 1]}[damage]
            manifest.write_text(json.dumps(known | {"ids": ids}))
        with pytest.raises(ServiceError):
            VDBService(path=tmp_path)

    def test_another_metric_is_refused(self, tmp_path: pathlib.Path) -> None:
        VDBService(metric="l2").save_index(tmp_path)
        with pytest.raises(ServiceError, match="saved: l2"):
            VDBService(path=tmp_path)

    def test_a_folder_that_cannot_be_made(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ServiceError, match="cannot be saved"):
            VDBService().save_index(tmp_path / "file" / "store")


def test_from_many_threads() -> None:
    store = VDBService(dim=8)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((8, 50, 8))
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for position, row in enumerate(rows[number]):
                key = f"{number}-{position}"
                store.add(row, ids=[key])
                assert store.search(row, 1)[0].id == key
                if position % 5 == 0:
                    store.delete_vectors(key)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert store.count() == 8 * 40


@pytest.mark.slow
def test_a_hundred_thousand_vectors_are_searched_quickly() -> None:
    """As a ratio: at most four times the bare matrix product, whatever else this machine does."""
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((100_000, 384), dtype=np.float32)
    store = VDBService()
    store.add(rows)

    def best(call: Any) -> float:
        times = []
        for number in range(15):
            started = time.perf_counter()
            call(rows[number])
            times.append(time.perf_counter() - started)
        return min(times)

    assert best(store.search) < 4 * best(lambda query: rows @ query) + 0.005
