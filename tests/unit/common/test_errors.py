"""The error tree: stable codes, exit codes, what a person and a machine get to see."""

import pickle
import traceback

import pytest

from sage.common import errors
from sage.common.errors import ConfigError, NotRunningError, PortInUseError, SageError, UsageError

ALL = [getattr(errors, name) for name in errors.__all__]
STABLE = {
    "SageError": ("SAGE-E001", 1),
    "UsageError": ("SAGE-X001", 2),
    "ConfigError": ("SAGE-C001", 1),
    "PortInUseError": ("SAGE-P002", 1),
    "StateError": ("SAGE-P003", 1),
    "NotRunningError": ("SAGE-R003", 3),
    "DaemonError": ("SAGE-R001", 1),
    "UpstreamError": ("SAGE-G006", 1),
    "ModelError": ("SAGE-E007", 1),
    "PipelineError": ("SAGE-K001", 1),
    "ServiceError": ("SAGE-K009", 1),
}


@pytest.mark.spec("P6", "X11")
def test_codes_and_exit_codes_are_the_published_ones() -> None:
    assert {kind.__name__: (kind.code, kind.exit_code) for kind in ALL} == STABLE


@pytest.mark.spec("P6")
def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = {
        line.split("──")[-1].split()[0]: line.split() for line in (errors.__doc__ or "").splitlines() if "SAGE-" in line
    }
    assert set(drawn) == set(STABLE)
    for name, words in drawn.items():
        code, exit_code = STABLE[name]
        assert words[words.index("exit") - 1] == code
        assert words[words.index("exit") + 1] == str(exit_code)
    assert issubclass(PortInUseError, ConfigError)


@pytest.mark.spec("X12")
def test_an_error_says_what_why_and_what_next() -> None:
    error = NotRunningError("The gateway is not running", cause="nothing listens", hint="sage llm serve")
    assert str(error) == "The gateway is not running: nothing listens"
    assert error.hint == "sage llm serve"
    assert error.to_dict() == {
        "code": "SAGE-R003",
        "title": "The gateway is not running",
        "cause": "nothing listens",
        "hint": "sage llm serve",
        "details": {},
    }


@pytest.mark.spec("X12")
def test_a_traceback_ends_with_what_to_do() -> None:
    """A plain `python pipeline.py` shows no more than that."""
    error = NotRunningError("The gateway is not running", cause="nothing listens", hint="sage llm serve")
    lines = traceback.format_exception(error)
    assert lines[-1] == "next: sage llm serve\n"


def test_code_and_exit_code_can_be_set_for_one_error() -> None:
    error = UsageError("no", code="SAGE-X009", exit_code=7)
    assert (error.code, error.exit_code) == ("SAGE-X009", 7)
    assert (UsageError.code, UsageError.exit_code) == ("SAGE-X001", 2)


class Holder:
    def __init__(self, pid: int, command: str) -> None:
        self.pid = pid
        self.command = command


@pytest.mark.spec("P2")
@pytest.mark.parametrize(
    ("holder", "cause", "hint"),
    [
        (Holder(42, "python -m http.server"), "held by pid 42: python -m http.server", "kill 42"),
        (Holder(0, "a process of user root"), "held by a process of user root", "--port"),
        (None, "another process listens there", "--port"),
    ],
)
def test_a_taken_port_names_its_holder(holder: Holder | None, cause: str, hint: str) -> None:
    error = PortInUseError(8001, holder)
    assert error.title == "Port 8001 is already in use"
    assert error.cause == cause
    assert hint in error.hint
    assert error.details["holder_pid"] == (42 if holder and holder.pid else None)


@pytest.mark.parametrize("error", [SageError("a", cause="b", hint="c", details={"d": 1}), PortInUseError(1, None)])
def test_errors_cross_process_boundaries(error: SageError) -> None:
    """multiprocessing pickles exceptions; nothing may be lost on the way."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.to_dict() == error.to_dict()
    assert str(again) == str(error)
