"""The dataflow snippets of the source documents, as files, unchanged: they print what the documents say."""

import os
import pathlib
import subprocess
import sys

import pytest

SNIPPETS = pathlib.Path(__file__).parent / "snippets"
SAGE = pathlib.Path(sys.executable).with_name("sage")
PRINTED = {
    "simple_pipeline.py": "Processed: Hello\nProcessed: World\nProcessed: SAGE\n",
    "my_app.py": "2\n4\n6\n8\n10\n",
}


def output(argv: list[str | pathlib.Path], home: pathlib.Path) -> str:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        env=os.environ | {"SAGE_HOME": str(home), "NO_COLOR": "1"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.spec("K1", "K2")
@pytest.mark.parametrize("name", sorted(PRINTED))
def test_as_a_python_script(name: str, tmp_path: pathlib.Path) -> None:
    assert output([sys.executable, SNIPPETS / name], tmp_path / ".sage") == PRINTED[name]


@pytest.mark.spec("X4", "K1")
@pytest.mark.parametrize("name", sorted(PRINTED))
@pytest.mark.parametrize("words", [("run", "local"), ("run",)])
def test_through_sage_run(name: str, words: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    assert output([SAGE, *words, SNIPPETS / name], tmp_path / ".sage") == PRINTED[name]


@pytest.mark.spec("X4", "K8")
def test_with_the_parallelism_of_the_documents(tmp_path: pathlib.Path) -> None:
    """`sage run local --parallelism=4`: the same lines; their order is not defined then."""
    printed = output([SAGE, "run", "local", "--parallelism=4", SNIPPETS / "simple_pipeline.py"], tmp_path / ".sage")
    assert sorted(printed.splitlines()) == sorted(PRINTED["simple_pipeline.py"].splitlines())


@pytest.mark.spec("K8")
@pytest.mark.parametrize("name", ["high_perf_config.py", "fault_tolerance_config.py"])
def test_the_configuration_blocks(name: str, tmp_path: pathlib.Path) -> None:
    """The documents' best-practice blocks configure an environment that runs."""
    block = (SNIPPETS / name).read_text(encoding="utf-8")
    variable = name.removesuffix(".py")
    script = tmp_path / "pipeline.py"
    script.write_text(
        f"from sage.core.api import LocalEnvironment\n{block}\n"
        f"env = LocalEnvironment('configured', config={variable})\n"
        "env.from_collection([1, 2, 3]).map(lambda x: x + 1).print()\nenv.submit()\n",
        encoding="utf-8",
    )
    assert sorted(output([sys.executable, script], tmp_path / ".sage").split()) == ["2", "3", "4"]
