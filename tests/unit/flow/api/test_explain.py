"""Ids, partitioning hints, side outputs and inputs in the graph; the plan for people and programs (SPEC K2, K11)."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

from sage.common.errors import PipelineError
from sage.core.api import DataStream, LocalEnvironment, OutputTag
from sage.core.graph import build_plan
from sage.core.graph.serialize import dump_graph, load_graph

ODD: OutputTag[int] = OutputTag("odd")


def part(value: int, context: Any, out: Any) -> None:
    if value % 2:
        context.output(ODD, value)
    else:
        out.collect(value)


def plan(env: LocalEnvironment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(env.explain("json"))
    return found


def collected(stream: DataStream[Any]) -> list[Any]:
    out: list[Any] = []
    stream.sink(out.append, parallelism=1)
    stream.env.submit()
    return out


@pytest.mark.spec("K6")
class TestIds:
    def test_a_uid_stays_whatever_changes_around_it(self) -> None:
        def ids(prefix: str) -> dict[str, str]:
            env = LocalEnvironment("ids")
            stream = env.from_collection([1])
            if prefix:
                stream = stream.map(lambda x: x, name=prefix)
            stream.map(lambda x: x, name="given", uid="my-map").map(lambda x: x, name="derived").print()
            return {op["name"]: op["id"] for task in plan(env)["tasks"] for op in task["operators"]}

        first, second = ids(""), ids("another")
        assert first["given"] == second["given"]
        assert first["derived"] == second["derived"], "what stands upstream has a uid"
        assert first["print"] == second["print"]
        assert first["from_collection"] == second["from_collection"]

    def test_a_uid_stays_though_the_operator_is_called_otherwise(self) -> None:
        def given(name: str) -> str:
            env = LocalEnvironment("ids")
            env.from_collection([1]).map(lambda x: x, name=name, uid="mine").print()
            return str(plan(env)["tasks"][0]["operators"][1]["id"])

        assert given("before") == given("after")

    def test_without_a_uid_the_id_follows_the_structure(self) -> None:
        def last(name: str) -> str:
            env = LocalEnvironment("ids")
            env.from_collection([1]).map(lambda x: x, name=name).print()
            return str(plan(env)["tasks"][0]["operators"][-1]["id"])

        assert last("a") == last("a")
        assert last("a") != last("b")

    def test_two_operators_cannot_have_the_same(self) -> None:
        stream = LocalEnvironment("ids").from_collection([1]).map(lambda x: x, uid="mine")
        with pytest.raises(PipelineError, match=r"Two operators have the uid 'mine'.*test_explain.py:"):
            stream.map(lambda x: x, uid="mine")

    @pytest.mark.parametrize("uid", ["", "  ", 7])
    def test_a_uid_is_a_text(self, uid: Any) -> None:
        with pytest.raises(PipelineError, match=r"uid must be a text .*test_explain.py:"):
            LocalEnvironment("ids").from_collection([1]).map(lambda x: x, uid=uid)


@pytest.mark.spec("K2")
class TestPartitioning:
    @pytest.mark.parametrize("name", ["rebalance", "rescale", "broadcast", "global_"])
    def test_what_the_user_asked_for_is_in_the_plan(self, name: str) -> None:
        env = LocalEnvironment("hints", {"parallelism": 2})
        getattr(env.from_collection([1]).map(lambda x: x), name)().map(lambda x: x).print()
        assert name.strip("_") in [edge["partitioning"] for edge in plan(env)["edges"]]

    def test_forward_needs_the_same_parallelism(self) -> None:
        env = LocalEnvironment("hints")
        env.from_collection([1]).forward().map(lambda x: x, parallelism=2).print()
        with pytest.raises(PipelineError, match=r"forward\(\) needs the same parallelism.*test_explain.py:"):
            env.explain()

    def test_records_of_rebalance_reach_every_subtask(self) -> None:
        seen: set[int] = set()
        lock = threading.Lock()

        def note(value: int, context: Any, out: Any) -> None:
            with lock:
                seen.add(context.function.subtask_index)
            out.collect(value)

        stream = LocalEnvironment("hints").from_collection(range(30)).rebalance().process(note, parallelism=3)
        assert sorted(collected(stream)) == list(range(30))
        assert seen == {0, 1, 2}

    def test_global_sends_all_to_the_first(self) -> None:
        def where(value: int, context: Any, out: Any) -> None:
            out.collect(context.function.subtask_index)

        stream = LocalEnvironment("hints").from_collection(range(9)).global_().process(where, parallelism=3)
        assert collected(stream) == [0] * 9

    def test_broadcast_sends_each_to_all(self) -> None:
        stream = LocalEnvironment("hints").from_collection([1, 2]).broadcast().map(lambda x: x, parallelism=3)
        assert sorted(collected(stream)) == [1, 1, 1, 2, 2, 2]


class TestShown:
    def branching(self) -> LocalEnvironment:
        env = LocalEnvironment("shown", {"parallelism": 2})
        parted = env.from_collection([1, 2, 3]).process(part, name="part")
        parted.print()
        odd = parted.get_side_output(ODD).map(str, name="odd")
        odd.key_by(len).connect(parted.key_by(lambda x: 1)).map(str, name="both").print()
        return env

    def test_inputs_and_side_outputs_in_json(self) -> None:
        found = plan(self.branching())
        ports = sorted(edge["port"] for edge in found["edges"])
        assert ports[-1] == 1
        operators = [operator for task in found["tasks"] for operator in task["operators"]]
        assert [op["tag"] for op in operators if op["name"] == "odd"] == ["odd"]
        both = next(op for op in operators if op["name"] == "both")
        assert both["keys"][0] == "len"
        assert "lambda" in both["keys"][1]

    def test_inputs_and_side_outputs_in_text(self) -> None:
        text = self.branching().explain()
        assert "reads side output 'odd'" in text
        assert "(hash, input 2)" in text
        assert "part (" in text, "the function of a process operator"
        assert "keyed by len and lambda (" in text

    def test_a_mermaid_flowchart(self) -> None:
        chart = self.branching().explain("mermaid")
        lines = chart.splitlines()
        assert lines[:4] == ["---", "title: shown", "---", "flowchart LR"]
        assert '    n1["part"]' in lines
        assert '    n1 -- "side output odd" --> n3' in lines
        assert any('-- "hash, by len, input 1" -->' in line for line in lines)
        assert lines.count("  end") == sum(line.startswith("  subgraph") for line in lines)

    def test_names_cannot_break_a_flowchart(self) -> None:
        env = LocalEnvironment('a "name"\nof two lines')
        env.from_collection([1]).map(lambda x: x, name='x"]; click evil\n#').print()
        chart = env.explain("mermaid")
        assert 'title: a "name" of two lines' in chart
        assert 'n1["x#quot;]; click evil #35;"]' in chart

    def test_another_format_is_refused(self) -> None:
        with pytest.raises(PipelineError, match="no format 'xml'"):
            self.branching().explain("xml")  # type: ignore[arg-type]


PROGRAM = """
import sys
from sage.core.api import LocalEnvironment
from sage.core.graph.serialize import dump_graph
factor = 10
env = LocalEnvironment("moved")
env.from_collection([1, 2]).map(lambda x: x * factor).key_by(lambda x: x).reduce(max).print()
open(sys.argv[1], "wb").write(dump_graph(env._graph))
"""
LOADER = """
import sys
from sage.core.api import LocalEnvironment
from sage.core.graph.serialize import load_graph
env = LocalEnvironment("moved")
env._graph = load_graph(open(sys.argv[1], "rb").read())
print(env.explain("json"))
env.submit()
"""


class TestAsBytes:
    def test_another_process_runs_it_without_the_script(self, tmp_path: pathlib.Path) -> None:
        file = tmp_path / "graph"
        for name, text in (("writer.py", PROGRAM), ("reader.py", LOADER)):
            (tmp_path / name).write_text(text)
            done = subprocess.run(
                [sys.executable, tmp_path / name, file],
                capture_output=True,
                text=True,
                check=True,
                env=dict(os.environ),
            )
            if name == "writer.py":
                (tmp_path / name).unlink()
        assert done.stdout.splitlines()[-2:] == ["10", "20"]
        assert "writer.py" in done.stdout, "origins are kept"

    def test_the_same_plan_comes_back(self) -> None:
        env = LocalEnvironment("same")
        env.from_collection([1]).process(part).get_side_output(ODD).map(str).print()
        copy = load_graph(dump_graph(env._graph))
        assert [node.uid for node in copy.nodes] == [node.uid for node in env._graph.nodes]
        assert len(build_plan(copy, range(len(copy.nodes)), 1).tasks) == 1

    def test_what_cannot_leave_says_which_operator(self) -> None:
        env, lock = LocalEnvironment("stays"), threading.Lock()
        env.from_collection([1]).map(lambda x: x, name="fine").map(lambda x: (lock, x), name="locked").print()
        with pytest.raises(PipelineError, match=r"'locked' cannot leave this process \(.*test_explain.py:"):
            dump_graph(env._graph)

    def test_other_bytes_are_refused(self) -> None:
        with pytest.raises(PipelineError, match="no graph"):
            load_graph(b"cos\nsystem\n")
