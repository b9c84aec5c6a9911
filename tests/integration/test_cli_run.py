"""``sage run`` as a real process: what is printed where, exit codes, Ctrl-C, wrong input, a damaged home."""

import json
import pathlib
import resource
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pexpect
import pytest

SAGE = str(pathlib.Path(sys.executable).with_name("sage"))

HELLO = """
    from sage.core.api import LocalEnvironment
    env = LocalEnvironment("hello-sage")
    env.from_collection(["Hello", "World", "SAGE"]).map(lambda x: f"Processed: {x}").print()
    env.submit()
"""
ENDLESS = """
    import itertools, time
    from sage.core.api import LocalEnvironment

    def numbers():
        for number in itertools.count():
            time.sleep(0.005)
            yield number

    env = LocalEnvironment("endless")
    env.from_source(numbers).map(lambda x: f"number {x}", name="say").print()
    env.submit()
"""
RAISES = """
    from sage.core.api import LocalEnvironment

    def divide(x):
        return 1 / x

    env = LocalEnvironment("raises")
    env.from_collection([1, 0]).map(divide, name="divide").print()
    env.submit()
"""
ASKS = """
    from sage.core.api import LocalEnvironment
    from sage.llm import UnifiedInferenceClient

    client = UnifiedInferenceClient.create()
    env = LocalEnvironment("asks")
    env.from_collection(["Hello"]).map(lambda text: client.embed([text])).print()
    env.submit()
"""
ARGUMENTS = """
    import sys
    print(sys.argv[1:])
"""


def write(folder: pathlib.Path, text: str, name: str = "pipeline.py") -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return name


@pytest.mark.spec("X4", "X11")
@pytest.mark.parametrize("words", [["run", "local"], ["run"]], ids=" ".join)
def test_results_on_stdout_messages_on_stderr(words: list[str], sage: Any) -> None:
    done = sage(*words, write(sage.cwd, HELLO))
    assert done.stdout == "Processed: Hello\nProcessed: World\nProcessed: SAGE\n"
    assert done.stderr.startswith("hello-sage finished: 3 in, 3 out, ")


@pytest.mark.spec("X4")
def test_parallelism_changes_the_order_but_not_the_result(sage: Any) -> None:
    done = sage("run", "local", "--parallelism=4", write(sage.cwd, HELLO))
    assert sorted(done.stdout.splitlines()) == ["Processed: Hello", "Processed: SAGE", "Processed: World"]
    done = sage("run", "--json", "-p", "4", "pipeline.py")
    operators = {row["operator"]: row["parallelism"] for row in json.loads(done.stdout)["jobs"][0]["operators"]}
    assert operators["map"] == 4


@pytest.mark.spec("X11")
def test_json_leaves_stdout_to_the_summary(sage: Any) -> None:
    done = sage("run", "--json", write(sage.cwd, HELLO))
    told = json.loads(done.stdout)
    assert (told["ok"], told["exit_code"], told["error"]) == (True, 0, None)
    assert [(job["name"], job["records_in"], job["state"]) for job in told["jobs"]] == [("hello-sage", 3, "finished")]
    assert "Processed: Hello" in done.stderr


def test_arguments_of_the_file(sage: Any) -> None:
    name = write(sage.cwd, ARGUMENTS)
    assert sage("run", "local", name, "--", "--deep", "x").stdout == "['--deep', 'x']\n"
    assert sage("run", name, "a", "b").stdout == "['a', 'b']\n"
    refused = sage("run", name, "--deep", check=False)
    assert refused.returncode == 2
    assert "sage run FILE -- --deep" in refused.stderr


@pytest.mark.spec("X4")
def test_the_exit_code_is_the_scripts_own(sage: Any) -> None:
    assert sage("run", write(sage.cwd, "import sys; sys.exit(7)"), check=False).returncode == 7


@pytest.mark.spec("X12", "R3")
def test_a_pipeline_that_raises_names_operator_place_and_cause(sage: Any) -> None:
    done = sage("run", "local", write(sage.cwd, RAISES), check=False)
    assert done.returncode == 1
    assert done.stdout == "1.0\n"
    for said in ("'divide'", "pipeline.py:5", "ZeroDivisionError: division by zero", "next:"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
    debugged = sage("run", "local", "pipeline.py", "--debug", check=False)
    assert "Traceback" in debugged.stderr


@pytest.mark.spec("X12")
def test_a_pipeline_that_needs_the_gateway_says_how_to_start_it(sage: Any, free_port: Any) -> None:
    (sage.cwd / "sage.toml").write_text(f'base_url = "http://127.0.0.1:{free_port()}/v1"\n')
    done = sage("run", "local", write(sage.cwd, ASKS), check=False)
    assert done.returncode == 3
    assert "sage llm serve" in done.stderr
    assert "'map'" in done.stderr


@pytest.mark.spec("X12")
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("pipelin.py", "sage run local pipeline.py"),
        ("nowhere/pipeline.py", "The folder nowhere does not exist"),
        (".", "is a folder"),
        ("empty/x.py", "sage init"),
    ],
)
def test_a_wrong_path_names_what_is_near(typed: str, said: str, sage: Any) -> None:
    write(sage.cwd, HELLO)
    (sage.cwd / "empty").mkdir()
    done = sage("run", "local", typed, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_syntax_error_is_placed(sage: Any) -> None:
    done = sage("run", write(sage.cwd, "x = (\n"), check=False)
    assert done.returncode == 1
    assert "pipeline.py:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.spec("X4")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_with_130(sage: Any, signum: signal.Signals) -> None:
    """What was read still runs out; the job is recorded as cancelled; nothing is left."""
    name = write(sage.cwd, ENDLESS)
    with subprocess.Popen(
        [SAGE, "run", "local", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=sage.env,
        cwd=sage.cwd,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "number 0\n"
        child.send_signal(signum)
        out, err = child.stdout.read(), child.stderr.read()  # not communicate(): it skips what readline() read ahead
    assert child.returncode == 130
    assert "endless cancelled" in err
    assert "Traceback" not in err
    numbers = [int(line.split()[1]) for line in out.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sage.processes() == []


@pytest.mark.spec("X4", "X11")
def test_progress_is_live_on_a_terminal(sage: Any) -> None:
    """The table shows operators and rates below the pipeline's own lines, and is gone at the end."""
    env = {k: v for k, v in sage.env.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    child = pexpect.spawn(
        SAGE,
        ["run", write(sage.cwd, ENDLESS)],
        env=env,
        cwd=str(sage.cwd),
        encoding="utf-8",
        timeout=30,
        dimensions=(24, 80),
    )
    child.expect("number 0")
    child.expect(r"\d+ in")
    child.expect(r"\d+ out")
    child.expect("say")
    child.sendintr()
    child.expect("endless cancelled: ")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


@pytest.mark.spec("X11")
def test_no_color_on_a_terminal_means_no_escape_at_all(sage: Any) -> None:
    child = pexpect.spawn(
        SAGE, ["run", write(sage.cwd, HELLO)], env=sage.env, cwd=str(sage.cwd), encoding="utf-8", timeout=30
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "\x1b" not in (child.before or "")
    assert "Processed: SAGE" in (child.before or "")


@pytest.mark.spec("R3")
def test_a_damaged_state_store_is_set_aside(sage: Any) -> None:
    sage.home.mkdir()
    (sage.home / "state.db").write_bytes(b"this is no database, and it is long enough to be read as one" * 100)
    done = sage("run", write(sage.cwd, HELLO))
    assert done.stdout.count("Processed") == 3
    assert list(sage.home.glob("state.db.corrupt-*"))


@pytest.mark.spec("R3")
def test_a_full_disk_does_not_stop_a_pipeline(sage: Any) -> None:
    """No file may grow: what cannot be recorded is said once, the results come all the same."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [SAGE, "run", write(sage.cwd, HELLO)],
        capture_output=True,
        text=True,
        env=sage.env | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=sage.cwd,
        preexec_fn=no_room,
        timeout=60,
        check=False,
    )
    assert done.stdout.count("Processed") == 3
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.spec("R3", "P3")
def test_an_unwritable_home(sage: Any) -> None:
    """A pipeline runs without a record of it; serve cannot do without and says what to do."""
    env = sage.env | {"SAGE_HOME": "/proc/nowhere/.sage"}
    ran = subprocess.run(
        [SAGE, "run", write(sage.cwd, HELLO)], capture_output=True, text=True, env=env, cwd=sage.cwd, check=False
    )
    assert ran.stdout.count("Processed") == 3
    assert "Traceback" not in ran.stderr
    served = subprocess.run([SAGE, "llm", "serve"], capture_output=True, text=True, env=env, cwd=sage.cwd, check=False)
    assert served.returncode == 1
    assert "/proc/nowhere" in served.stderr
    assert "export SAGE_HOME=" in served.stderr
