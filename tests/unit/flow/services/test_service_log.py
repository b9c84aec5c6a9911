"""Recorded answers and replays (SPEC K14); keys by which a call is known again (SPEC K9)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from sage.common.errors import PipelineError, ServiceError, UsageError
from sage.common.home import SageHome
from sage.core.api import LocalEnvironment
from sage.core.api.function import MapFunction
from sage.core.api.function.call_origin import CallOrigin, idempotency_key, origin_variable
from sage.core.runtime import session
from sage.core.runtime.local.replay import Replay
from sage.core.runtime.services.log import AnswerFile, read_answers

pytestmark = pytest.mark.spec("K9", "K14")


class Dice:
    """Never answers the same twice; fails for negative numbers."""

    rolled = itertools.count()

    def roll(self, value: int) -> int:
        if value < 0:
            raise ConnectionError("no dice")
        return next(Dice.rolled)

    async def ask(self, value: int) -> int:
        return 1000 + next(Dice.rolled)


class Roll(MapFunction[int, Any]):
    def execute(self, value: int) -> Any:
        try:
            return value, self.call_service["dice"].roll(value)
        except ConnectionError as error:
            return value, str(error)


class Ask(MapFunction[Any, Any]):
    async def execute(self, value: Any) -> Any:
        first = await self.call_service_async["dice"].ask(1)
        return (*value, first, await self.call_service_async["dice"].ask(1))


def job(
    tmp_path: Path, out: list[Any], *, replay: Replay | None = None, records: Any = range(20), config: Any = ()
) -> Any:
    with session.use(session.Session(home=SageHome(tmp_path / ".sage"), replay=replay)):
        env = LocalEnvironment("dicing", {"services.record": True, "checkpointing": "exactly_once", **dict(config)})
        env.register_service("dice", Dice)
        stream = env.from_collection(records).map(Roll, name="roll").map(Ask, name="ask")
        stream.sink(out.append, name="out")
        return env.submit()


def shown(tmp_path: Path, job_id: str, **wanted: Any) -> list[str]:
    lines: list[str] = []
    untouched: list[Any] = []
    records = wanted.pop("records", range(20))
    checkpoint = wanted.pop("checkpoint", None)
    job(tmp_path, untouched, replay=Replay(job_id, checkpoint, show=lines.append, **wanted), records=records)
    assert untouched == []
    return [line.split("  ", 2)[2] for line in lines]


def test_a_replay_gives_the_recorded_answers_and_writes_nothing(tmp_path: Path) -> None:
    out: list[Any] = []
    handle = job(tmp_path, out, records=[3, -1, 3, 3])
    before = next(Dice.rolled)
    assert shown(tmp_path, handle._job.id, records=[3, -1, 3, 3]) == [repr(record) for record in out]
    assert next(Dice.rolled) == before + 1
    assert len({record[1] for record in out}) == 4


def test_until_and_operator(tmp_path: Path) -> None:
    out: list[Any] = []
    handle = job(tmp_path, out)
    assert shown(tmp_path, handle._job.id, until=3) == [repr(record) for record in out[:3]]
    assert shown(tmp_path, handle._job.id, operator="roll", until=2) == [repr(record[:2]) for record in out[:2]]
    with pytest.raises(UsageError, match="no operator 'rol'"):
        shown(tmp_path, handle._job.id, operator="rol")


def test_a_replay_begins_at_a_checkpoint_and_leaves_the_jobs_folder_alone(tmp_path: Path) -> None:
    out: list[Any] = []
    slow = list(range(400))
    handle = job(tmp_path, out, records=slow, config={"checkpoint.interval": "5ms", "checkpoint.retained": 50})
    made = [stats.checkpoint_id for stats in handle.checkpoints() if stats.state == "completed"]
    (folder,) = (tmp_path / ".sage" / "checkpoints").iterdir()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    lines = shown(tmp_path, handle._job.id, records=slow, checkpoint=str(made[0]))
    assert lines == [repr(record) for record in out[len(out) - len(lines) :]]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_changed_program_is_told_what_is_missing(tmp_path: Path) -> None:
    handle = job(tmp_path, [])
    with pytest.raises(PipelineError) as caught:
        shown(tmp_path, handle._job.id, records=range(100, 120))
    assert "There is no recorded answer of 'dice.roll'" in str(caught.value.__cause__)


def test_without_services_record_nothing_is_kept(tmp_path: Path) -> None:
    job(tmp_path, [], config={"services.record": False})
    assert not (tmp_path / ".sage" / "service-log").exists()


def test_a_frame_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path)
    for number in range(3):
        file.append(bytes([number]) * 20, b"a" * 20, {"n": number}, None)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    assert len(list(read_answers(tmp_path))) == 3
    for length in range(len(whole) // 3 * 2, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert [key[0] for key, *_ in read_answers(tmp_path)] == [0, 1]
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert len(list(read_answers(tmp_path))) == 2


def test_an_answer_that_cannot_be_kept_fails_the_call(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be recorded"):
        AnswerFile(tmp_path).append(b"k", b"a", lambda: None, None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="cannot be recorded in"):
        AnswerFile(tmp_path / "file").append(b"k", b"a", 1, None)


class TestKeys:
    def test_a_key_stands_for_job_operator_record_number_and_content(self) -> None:
        def keys(origin: CallOrigin, *requests: bytes) -> list[str | None]:
            token = origin_variable.set(origin)
            try:
                return [idempotency_key(request) for request in requests]
            finally:
                origin_variable.reset(token)

        origin = CallOrigin("job/1", "op", 0, 7)
        made = keys(origin, b"a", b"b", b"a")
        assert len(set(made)) == 3
        assert keys(CallOrigin("job/1", "op", 0, 7), b"b", b"a", b"a") == [made[1], made[0], made[2]]
        others = [CallOrigin("job/2", "op", 0, 7), CallOrigin("job/1", "other", 0, 7), CallOrigin("job/1", "op", 1, 7)]
        others.append(CallOrigin("job/1", "op", 0, 8))
        assert not set(made) & {key for other in others for key in keys(other, b"a", b"b", b"a")}
        assert idempotency_key(b"a") is None

    def test_a_call_that_runs_later_keeps_its_record(self) -> None:
        origin = CallOrigin("job", "op", 0)
        origin.advance()
        first = origin.fixed()
        origin.advance()
        assert (first.position, origin.position) == (0, 1)
        assert first.key(b"a") != origin.key(b"a")

    def test_a_restart_repeats_its_keys_and_a_new_run_has_others(self, tmp_path: Path) -> None:
        def run(restart: bool) -> list[tuple[int, str | None]]:
            sent: list[tuple[int, str | None]] = []
            failing = {5} if restart else set[int]()

            class Sends(MapFunction[int, int]):
                def execute(self, value: int) -> int:
                    sent.append((value, idempotency_key(str(value).encode())))
                    if value in failing:
                        failing.discard(value)
                        raise RuntimeError("once")
                    return value

            env = LocalEnvironment("keys", {"restart.strategy": "fixed-delay", "restart.delay": 1})
            env.register_service("any", lambda: str.upper)
            env.from_collection(range(8)).map(Sends).sink(lambda value: None)
            env.submit()
            return sent

        sent = run(restart=True)
        assert len(sent) == 6 + 8
        assert len(set(sent)) == 8
        assert not set(sent) & set(run(restart=False))
