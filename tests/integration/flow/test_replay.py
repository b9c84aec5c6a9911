"""`sage run --replay` as real processes: the same records again, nothing written, no service called (SPEC K14)."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))
PIPELINE = """
    import random, time
    from sage.core.api import LocalEnvironment
    from sage.core.api.function import MapFunction

    class Dice:
        def __init__(self):
            print("dice are made", flush=True)

        async def roll(self, value):
            return random.random()

    class Roll(MapFunction):
        async def execute(self, value):
            return value, await self.call_service_async["dice"].roll(value)

    def write(record):
        with open("out.txt", "a") as file:
            file.write(f"{record!r}\\n")

    env = LocalEnvironment("dicing", {"checkpoint.interval": "20ms", "checkpoint.retained": 5, "services.record": True})
    env.register_service("dice", Dice)
    numbers = env.from_collection(range(300)).map(lambda n: time.sleep(0.001) or n)
    rolled = numbers.map(Roll, name="roll")
    rolled.key_by(lambda pair: pair[0] % 3).reduce(lambda a, b: (b[0], a[1] + b[1]), name="sum").sink(write)
    env.submit()
"""


@pytest.mark.spec("K14", "K9")
def test_a_job_is_looked_at_again_from_a_checkpoint(tmp_path: pathlib.Path) -> None:
    (tmp_path / "pipeline.py").write_text(textwrap.dedent(PIPELINE))
    environment = {**os.environ, "SAGE_HOME": str(tmp_path / ".sage")}

    def sage(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [SAGE, "run", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    assert "dice are made" in sage("pipeline.py").stdout
    written = (tmp_path / "out.txt").read_text().splitlines()
    assert len(written) == 300

    again = [line.split("  ", 2)[2] for line in sage("--replay", "dicing", "--from", "start").stdout.splitlines()]
    assert again == written

    (checkpoints,) = (tmp_path / ".sage" / "checkpoints").iterdir()
    first = min(int(path.name.removeprefix("chk-")) for path in checkpoints.glob("chk-*"))
    replayed = sage("--replay", "dicing", "--from", str(first))
    rest = [line.split("  ", 2)[2] for line in replayed.stdout.splitlines()]
    assert rest == written[len(written) - len(rest) :]
    assert f"continues from checkpoint {first}" in replayed.stderr

    few = sage("--replay", "dicing", "--from", "start", "--until", "2", "--operator", "roll").stdout.splitlines()
    assert [line.split("  ")[:2] for line in few] == [["1", "roll"], ["2", "roll"]]
    assert (tmp_path / "out.txt").read_text().splitlines() == written

    assert "There is no job 'nobody'" in sage("--replay", "nobody", "--from", "latest", code=2).stderr
    assert "--from is missing" in sage("--replay", "dicing", code=2).stderr
    assert "belong to --replay" in sage("--until", "3", "pipeline.py", code=2).stderr
    assert "FILE is missing" in sage(code=2).stderr
