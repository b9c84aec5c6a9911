"""Documents, vectors, metadata: values that survive JSON."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.common.types import BaseDocument, DenseVector, Metadata, Serializable, SparseVector, dumps, loads

numbers = st.floats(-1e6, 1e6)
dense = st.lists(numbers, min_size=1, max_size=20).map(DenseVector)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.spec("P6")
@given(st.text(), st.text(), st.dictionaries(st.text(), json_values))
def test_a_document_survives_json(text: str, source: str, metadata: dict[str, Any]) -> None:
    document = BaseDocument(text=text, source=source, metadata=Metadata(metadata))
    assert isinstance(document, Serializable)
    assert loads(dumps(document), BaseDocument) == document


def test_the_same_document_has_the_same_id() -> None:
    one = BaseDocument(text="a", source="s")
    assert one.id == BaseDocument(text="a", source="s", metadata=Metadata(x=1)).id
    assert one.id != BaseDocument(text="a", source="t").id
    assert BaseDocument(text="a", id="mine").id == "mine"
    assert BaseDocument(text="\ud800").id


def test_metadata_may_be_a_plain_mapping_and_is_never_changed() -> None:
    document = BaseDocument(text="a", metadata={"x": 1})  # type: ignore[arg-type]
    changed = document.with_metadata(y=2)
    assert document.metadata == {"x": 1}
    assert changed.metadata == {"x": 1, "y": 2}
    assert changed.id == document.id
    assert hash(Metadata(a=[1])) == hash(Metadata(a=[1]))


@pytest.mark.parametrize("value", [object(), math.nan, math.inf, {1: 2}, (1, 2), b"x", [{"a": {1}}]])
def test_metadata_that_json_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        Metadata(x=value)


@pytest.mark.spec("P6")
@given(dense)
def test_dense_vectors_survive_json_and_sparsity(vector: DenseVector) -> None:
    assert loads(dumps(vector), DenseVector) == vector
    assert loads(dumps(vector.to_sparse()), SparseVector).to_dense().values == pytest.approx(vector.values)


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(*[st.lists(numbers, min_size=n, max_size=n)] * 2)))
def test_all_inner_products_agree_with_numpy(pair: tuple[list[float], list[float]]) -> None:
    a, b = map(DenseVector, pair)
    expected = pytest.approx(float(np.dot(pair[0], pair[1])), rel=1e-6, abs=1e-3)
    assert a.dot(b) == expected
    assert a.to_sparse().dot(b) == expected
    assert a.dot(b.to_sparse()) == expected
    assert a.to_sparse().dot(b.to_sparse()) == expected
    assert -1.0 <= a.cosine(b) <= 1.0


def test_lengths_and_directions() -> None:
    vector = DenseVector([3, 4])
    assert (vector.dim, vector.norm) == (2, 5.0)
    assert vector.normalized().values == pytest.approx((0.6, 0.8))
    assert vector.cosine(DenseVector([6, 8])) == pytest.approx(1.0)
    zero = DenseVector([0, 0])
    assert zero.normalized() == zero
    assert zero.cosine(vector) == 0.0
    assert vector.to_numpy().dtype == np.float32
    assert SparseVector([5, 1], [1, 2], 8).indices == (1, 5)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1]])
def test_a_dense_vector_needs_finite_numbers(values: list[float]) -> None:
    with pytest.raises(ConfigError):
        DenseVector(values)


@pytest.mark.parametrize(
    ("indices", "values", "dim"),
    [([1], [], 3), ([1, 1], [1, 2], 3), ([3], [1], 3), ([-1], [1], 3), ([0], [math.nan], 3)],
)
def test_a_sparse_vector_must_fit_together(indices: list[int], values: list[float], dim: int) -> None:
    with pytest.raises(ConfigError):
        SparseVector(indices, values, dim)


def test_different_dimensions_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="2 and 3 dimensions"):
        DenseVector([1, 2]).dot(DenseVector([1, 2, 3]))


@pytest.mark.spec("R3")
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"values": "x"}', '{"values": [1e999]}', b"\xff", json.dumps(None)])
def test_nonsense_is_a_clear_error(text: str | bytes) -> None:
    with pytest.raises(ConfigError):
        loads(text, DenseVector)
