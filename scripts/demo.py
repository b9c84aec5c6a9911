"""The main job, typed as a person would type it: check, init, serve, run a pipeline, look at the answers, stop.

Works in a temporary folder with a state folder of its own, so that a stack that already runs is not touched. Ends with
0 when at least eight of the ten answers are right and cite the right document, and nothing is left running.

    make demo                     the same, after set-up
    python scripts/demo.py --keep leave the stack and the project there, to play with
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import FrameType
from typing import TextIO

import psutil

from sage.common.home import SageHome
from sage.common.store import StateStore

SAGE = Path(sys.executable).with_name("sage")
PROJECT = "my-project"
NEEDED = 8
STOP_SECONDS = 15.0


class StepFailedError(Exception):
    """A command ended with an exit code other than 0."""


class Demo:
    """A temporary folder, a state folder in it, and the commands that are typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".sage"
        self.project = folder / PROJECT
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SAGE_")}
        self.env = kept | {"SAGE_HOME": str(self.home)}

    def type(self, *words: str, cwd: Path | None = None) -> float:
        """Show a command, run it in the open, and give the seconds that it took."""
        print(bold(f"\n$ {shlex.join(words)}"), flush=True)
        started = time.monotonic()
        code = self._run(words, cwd or self.folder).wait()
        if code:
            raise StepFailedError(f"`{shlex.join(words)}` ended with exit code {code}")
        return time.monotonic() - started

    def ask(self, *words: str) -> str:
        """Run a command quietly and give what it wrote to stdout."""
        out, _ = self._run(words, self.folder, stdout=subprocess.PIPE).communicate(timeout=30)
        return str(out)

    def _run(self, words: tuple[str, ...], cwd: Path, stdout: int | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen([SAGE, *words[1:]], cwd=cwd, env=self.env, stdout=stdout, text=True)

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this demo's state folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SAGE_HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def stop(self) -> list[str]:
        """Stop the stack; give the commands of processes that would not go (they are killed)."""
        if not self.processes():
            return []
        tell(bold("\n$ sage llm stop"))
        subprocess.run([SAGE, "llm", "stop"], cwd=self.folder, env=self.env, start_new_session=True, check=False)
        deadline = time.monotonic() + STOP_SECONDS
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        names = [f"{process.pid} {shlex.join(process.cmdline()[:6])}" for process in left]
        for process in left:
            process.kill()
        return names


def main() -> int:
    """Run the demo and give its exit code."""
    parser = argparse.ArgumentParser(description="SAGE's main job in a temporary folder, in less than a minute.")
    parser.add_argument("--keep", action="store_true", help="leave the stack running and the project in place")
    keep = parser.parse_args().keep
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    demo = Demo(Path(tempfile.mkdtemp(prefix="sage-demo-")).resolve())
    code = 1
    try:
        code = play(demo)
    except KeyboardInterrupt:
        tell("\nInterrupted; stopping what was started.", sys.stderr)
        code = 130
    except BrokenPipeError:
        print_nowhere()
    except StepFailedError as error:
        print(f"\nThe demo stopped: {error}. Its message above says what to do.", file=sys.stderr)
        show_logs(demo)
    finally:
        code = clean_up(demo, keep and code == 0) or code
    return code


def play(demo: Demo) -> int:
    """The steps; 0 when enough answers are right."""
    started = time.monotonic()
    demo.type("sage", "check-env")
    demo.type("sage", "init", PROJECT, "--template=llm-pipeline")
    serving = demo.type("sage", "llm", "serve", cwd=demo.project)
    running = demo.type("sage", "run", "local", "pipeline.py", cwd=demo.project)
    right = score(demo.project)
    print(bold("\nWhat happened"))
    everything = time.monotonic() - started
    print(f"  time        stack ready after {serving:.1f} s, pipeline {running:.1f} s, everything {everything:.1f} s")
    for line in [*records(demo), *tokens(demo), latencies(demo.project)]:
        print(f"  {line}")
    print(f"  logs        {demo.home / 'logs'}")
    print(f"  state       {demo.home / 'state.db'}")
    print(bold("\nWhat to try next"))
    print("  sage init my-project && cd my-project && sage llm serve")
    print("  sage run local pipeline.py -- --docs ~/notes     your own documents")
    print('  sage chat "What is SAGE?"                        talk to the model')
    print("  sage monitor                                     watch everything live")
    return 0 if right >= NEEDED else 1


def score(project: Path) -> int:
    """Compare the answers with the key, print the verdict, and give how many are right with the right source."""
    key = [json.loads(line) for line in (project / "tests" / "expected.jsonl").read_text().splitlines()]
    given = {row["question"]: row for row in map(json.loads, (project / "answers.jsonl").read_text().splitlines())}
    right = 0
    for row in key:
        answer = given.get(row["question"], {"answer": "(no answer)", "source": ""})
        good = re.search(row["answer"], answer["answer"]) is not None
        cited = answer["source"] in row["sources"]
        right += good and cited
        if not (good and cited):
            fault = "the source is another" if good else "the answer is not the expected one"
            print(f"  not right: {row['question']}")
            print(f"             {answer['answer']!r} ({answer['source'] or 'no source'}): {fault}")
    print(bold(f"\n{right} of {len(key)} answered rightly, with the right source") + f" (needed: {NEEDED})")
    return right


def tokens(demo: Demo) -> list[str]:
    """What each engine counted, read from its /metrics."""
    status = json.loads(demo.ask("sage", "llm", "status", "--json"))
    lines = []
    for engine in (daemon for daemon in status["daemons"] if daemon["kind"] == "llm"):
        with urllib.request.urlopen(f"{engine['url']}/metrics", timeout=5) as response:
            metrics = response.read().decode()
        read, written = (total(metrics, f"sage_engine_{name}_tokens_total") for name in ("prompt", "generation"))
        lines.append(f"engine      {engine['model']}: {read:.0f} tokens read, {written:.0f} written")
    return lines


def records(demo: Demo) -> list[str]:
    """What the state store knows about the jobs."""
    with StateStore(SageHome(demo.home)) as store:
        jobs = sorted(store.jobs(), key=lambda job: job.started_at)
    return [f"job         {job.name} {job.state}: {job.records_in} records in, {job.records_out} out" for job in jobs]


def latencies(project: Path) -> str:
    """How long the answers took, retrieval and model together."""
    seconds = sorted(json.loads(line)["seconds"] for line in (project / "answers.jsonl").read_text().splitlines())
    middle, slow = (seconds[math.ceil(share * len(seconds)) - 1] for share in (0.5, 0.95))
    return f"latency     {middle * 1000:.0f} ms an answer at the median, {slow * 1000:.0f} ms at the 95th percentile"


def total(metrics: str, name: str) -> float:
    """The sum of a counter over its labels, in Prometheus' text format."""
    rows = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", metrics, re.MULTILINE)
    return sum(float(value) for value in rows)


def clean_up(demo: Demo, keep: bool) -> int:
    """Stop everything, remove the folder; 1 when a process had to be killed."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    if keep:
        tell(
            bold("\nThe stack still runs.") + f"\n  cd {demo.project} && export SAGE_HOME={demo.home}\n  sage llm stop"
        )
        return 0
    left = demo.stop()
    for name in left:
        tell(f"This process did not stop and was killed: {name}", sys.stderr)
    shutil.rmtree(demo.folder, ignore_errors=True)
    if not left:
        tell("Nothing is left running.")
    return 1 if left else 0


def show_logs(demo: Demo) -> None:
    """The last lines of each log, because the folder is about to go."""
    for log in sorted(demo.home.glob("logs/*.log")):
        lines = log.read_text(errors="replace").splitlines()[-15:]
        print(bold(f"\n{log.name}"), *lines, sep="\n  ", file=sys.stderr)


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print a line; where nobody reads any more, go on all the same."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        print_nowhere()


def print_nowhere() -> None:
    """Nobody reads stdout any more (`| head`, a closed terminal): what follows goes nowhere and raises nothing."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """End like Ctrl-C does, so that the stack is stopped."""
    raise KeyboardInterrupt


def bold(text: str) -> str:
    """The text in bold where a person looks at it."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


if __name__ == "__main__":
    sys.exit(main())
