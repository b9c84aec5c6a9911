"""Values come back as they were, types included, and plain ones without pickle."""

import dataclasses
import datetime
import decimal
import enum
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import StateError
from sage.core.state.serialization import dump, dump_many, load, load_many

pytestmark = pytest.mark.spec("K5")


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: tuple[int, ...]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
odd_text = st.text(st.characters(categories=("Cs", "L")), max_size=5)
odd = st.sampled_from([Colour.RED, Point(1, (2,)), decimal.Decimal("1.5"), {1, 2}, frozenset({3}), 2**70, b"x" * 300])
odd |= st.datetimes() | odd_text
keys = st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars | odd,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.tuples(inner)
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """The value with every type beside it: == alone takes 1 for True."""
    if isinstance(value, dict):
        return dict, [(shape(k), shape(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(v) for v in value]
    return type(value), value


@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert shape(load(dump(value))) == shape(value)


@given(st.lists(values, max_size=8) | st.lists(scalars, max_size=20))
def test_many_values_come_back_as_they_were(many: list[Any]) -> None:
    assert shape(load_many(dump_many(many))) == shape(many)


def test_not_a_number_comes_back() -> None:
    assert math.isnan(load(dump(math.nan)))


keys_of_plain = st.integers(-(2**63), 2**63) | st.text("abc", max_size=3)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text("aé语", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys_of_plain, inner)
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_data_is_no_pickle(value: Any) -> None:
    assert dump(value)[:1] != dump(datetime.date(2024, 1, 1))[:1]


def test_what_pickle_cannot_write_is_refused_with_its_type() -> None:
    with pytest.raises(StateError, match="A generator cannot be kept in state"):
        dump(iter_of())
    with pytest.raises(StateError, match="A list cannot be kept in state"):
        dump([lambda: 1])


def iter_of() -> Any:
    yield 1


@given(st.binary(max_size=40).filter(lambda data: data[:1] != b"\x03"))
def test_damaged_bytes_are_a_state_error_or_another_value(data: bytes) -> None:
    try:
        load(data)
    except StateError:
        pass


def test_a_class_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dump(Point(1, ()))
    monkeypatch.delitem(globals(), "Point")
    with pytest.raises(StateError) as caught:
        load(data)
    assert "Point" in caught.value.cause
