"""The graph: ids, fusing, partitioning, explain (SPEC K2, K11)."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import os
import pathlib
import subprocess
import sys
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.common.errors import PipelineError
from sage.core.api import LocalEnvironment
from sage.core.runtime.events import Batch
from sage.core.runtime.partition import KEY_GROUPS, KeyPartitioner, key_group


def plan(env: LocalEnvironment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(env.explain("json"))
    return found


def build(config: dict[str, Any]) -> LocalEnvironment:
    env = LocalEnvironment("graph", config)
    words = env.from_collection(["a b"]).flat_map(str.split)
    words.key_by(len).reduce(lambda a, b: a + b).print()
    words.map(str.upper, name="upper").sink(print)
    return env


class TestPlan:
    def test_all_in_one_task(self) -> None:
        found = plan(build({}))
        assert len(found["tasks"]) == 1
        names = [operator["name"] for operator in found["tasks"][0]["operators"]]
        assert names == ["from_collection", "flat_map", "reduce", "print", "upper", "sink"]
        assert found["bounded"] is True

    def test_parallel_tasks_and_the_edges_between_them(self) -> None:
        found = plan(build({"parallelism": 2}))
        assert [task["name"] for task in found["tasks"]] == [
            "from_collection",
            "flat_map → upper → sink",
            "reduce → print",
        ]
        assert [edge["partitioning"] for edge in found["edges"]] == ["rebalance", "hash"]
        assert [task["parallelism"] for task in found["tasks"]] == [1, 2, 2]

    def test_without_chaining_every_operator_is_a_task(self) -> None:
        found = plan(build({"chaining": False}))
        assert [len(task["operators"]) for task in found["tasks"]] == [1] * 6
        assert {edge["partitioning"] for edge in found["edges"]} == {"forward"}

    def test_ids_are_stable_and_differ(self) -> None:
        one, two = plan(build({})), plan(build({"parallelism": 3}))

        def ids(found: dict[str, Any]) -> dict[str, str]:
            return {operator["name"]: operator["id"] for task in found["tasks"] for operator in task["operators"]}

        assert ids(one) == ids(two)
        assert len(set(ids(one).values())) == 6

    def test_names_are_made_unique(self) -> None:
        env = LocalEnvironment("graph")
        env.from_collection([1]).map(str).map(int).map(str, name="map").print()
        assert [operator["name"] for operator in plan(env)["tasks"][0]["operators"]][1:4] == ["map", "map-2", "map-3"]

    def test_text_names_the_users_functions_and_lines(self) -> None:
        text = build({"parallelism": 2}).explain()
        assert text.startswith("graph: 6 operators in 3 tasks")
        assert "keyed by len" in text
        assert "lambda (" in text
        assert "test_graph.py:" in text
        assert "← task 2 (hash)" in text

    def test_a_long_pipeline_is_cut_where_python_needs_it(self) -> None:
        env = LocalEnvironment("long")
        stream = env.from_collection([1])
        for _ in range(30):
            stream = stream.flat_map(lambda x: [x])
        for _ in range(200):
            stream = stream.map(lambda x: x + 1)
        out: list[int] = []
        stream.sink(out.append)
        env.submit()
        assert out == [201]
        assert len(plan(env)["tasks"]) > 3


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    label: str


KEYS: list[Any] = [
    "user-1",
    "",
    "ключ",
    b"raw",
    7,
    2.5,
    None,
    ("a", 1),
    frozenset({"a", "b", "c"}),
    dt.date(2026, 1, 2),
    dt.datetime(2026, 1, 2, 3, 4),  # noqa: DTZ001 - naive times may be keys too
    dt.timedelta(seconds=5),
    uuid.UUID(int=5),
    pathlib.PurePosixPath("/a/b"),
    Color.RED,
    Point(1, "x"),
    Decimal("1.5"),
]


class TestPartitioning:
    def test_the_same_in_every_process(self) -> None:
        """Whatever PYTHONHASHSEED is."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from test_graph import KEYS, key_group;"
            "print([key_group(k) for k in KEYS])"
        )
        here = str(pathlib.Path(__file__).parent)
        outputs = set()
        for seed in ("0", "1", "77"):
            done = subprocess.run(
                [sys.executable, "-c", code, here],
                env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            )
            outputs.add(done.stdout.strip())
        assert outputs == {str([key_group(key) for key in KEYS])}

    @pytest.mark.parametrize(
        "equal",
        [
            (1, 1.0, True, Decimal(1), Fraction(1), np.int64(1), np.float32(1)),
            ((1, "a"), (1.0, "a")),
            (
                dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
                dt.datetime(2026, 1, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            ),
        ],
    )
    def test_equal_keys_are_one_key(self, equal: tuple[Any, ...]) -> None:
        assert len(set(equal)) == 1
        assert len({key_group(key) for key in equal}) == 1

    @settings(deadline=None)
    @given(st.lists(st.text(max_size=5) | st.integers() | st.none(), max_size=200), st.integers(1, 8))
    def test_a_key_goes_to_one_subtask_and_keeps_its_order(self, keys: list[Any], targets: int) -> None:
        records = list(enumerate(keys))
        batch = Batch(list(records), [order for order, _ in records])
        split = KeyPartitioner(lambda record: record[1], targets).split(batch)
        parts = [part.records for part in split]
        assert all(part.timestamps == [order for order, _ in part.records] for part in split)
        assert len(parts) == targets
        assert sorted(record for part in parts for record in part) == sorted(records, key=lambda r: r[0]) or keys
        for part in parts:
            assert part == sorted(part, key=lambda record: record[0])
        owners: dict[Any, set[int]] = {}
        for target, part in enumerate(parts):
            for _, key in part:
                owners.setdefault(key, set()).add(target)
        assert all(len(found) == 1 for found in owners.values())

    def test_keys_spread_evenly(self) -> None:
        counts = [0] * KEY_GROUPS
        for number in range(20_000):
            counts[key_group(f"user-{number}")] += 1
        assert max(counts) < 2 * 20_000 / KEY_GROUPS
        assert min(counts) > 0

    def test_a_key_without_a_stable_value_is_refused(self) -> None:
        with pytest.raises(PipelineError, match="object cannot be a key"):
            key_group(object())

    def test_many_keys_do_not_fill_memory(self) -> None:
        partitioner = KeyPartitioner(lambda x: x, 3)
        for start in range(0, 200_000, 10_000):
            partitioner.split(Batch(list(range(start, start + 10_000))))
        assert len(partitioner._known) <= 65_536
