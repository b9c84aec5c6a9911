"""Every error that SAGE raises on purpose.

    SageError                SAGE-E001   exit 1   the root; never raised itself where a leaf fits
    ├── UsageError           SAGE-X001   exit 2   the command was typed wrongly
    ├── ConfigError          SAGE-C001   exit 1   a setting, a config file or an environment variable is wrong
    │   └── PortInUseError   SAGE-P002   exit 1   a port that was asked for is taken
    ├── StateError           SAGE-P003   exit 1   something under .sage/ cannot be read or written
    ├── NotRunningError      SAGE-R003   exit 3   what the command needs is not running
    ├── DaemonError          SAGE-R001   exit 1   a daemon or the supervisor failed
    ├── UpstreamError        SAGE-G006   exit 1   an engine or a remote service answered wrongly or not at all
    ├── ModelError           SAGE-E007   exit 1   a model cannot be found, read or run
    ├── PipelineError        SAGE-K001   exit 1   a pipeline is wrong or failed
    └── ServiceError         SAGE-K009   exit 1   a pipeline service failed

The code of a class is stable: scripts may match on it. Exit codes: 0 ok, 1 failed, 2 usage, 3 not running, 130
interrupted. Importing this module costs nothing (no other import).
"""

__all__ = [
    "ConfigError",
    "DaemonError",
    "ModelError",
    "NotRunningError",
    "PipelineError",
    "PortInUseError",
    "SageError",
    "ServiceError",
    "StateError",
    "UpstreamError",
    "UsageError",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class _Holder(Protocol):
        @property
        def pid(self) -> int: ...
        @property
        def command(self) -> str: ...


class SageError(Exception):
    """What happened (title), why (cause) and the next command to type (hint).

    `details` is for machines (`--json`, HTTP bodies): plain JSON values only.
    """

    code: str = "SAGE-E001"
    exit_code: int = 1

    def __init__(
        self,
        title: str,
        *,
        cause: str = "",
        hint: str = "",
        code: str | None = None,
        exit_code: int | None = None,
        details: "Mapping[str, object] | None" = None,
    ) -> None:
        super().__init__(title)
        self.title = title
        self.cause = cause
        self.hint = hint
        if hint:
            self.add_note(f"next: {hint}")  # a traceback ends with it
        if code is not None:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code
        self.details: dict[str, object] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.title}: {self.cause}" if self.cause else self.title

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))

    def to_dict(self) -> dict[str, object]:
        """The error as plain JSON values: code, title, cause, hint, details."""
        return {
            "code": self.code,
            "title": self.title,
            "cause": self.cause,
            "hint": self.hint,
            "details": self.details,
        }


def _rebuild(cls: type[SageError], args: tuple[object, ...], state: dict[str, object]) -> SageError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(SageError):
    """The command was typed wrongly (exit 2)."""

    code = "SAGE-X001"
    exit_code = 2


class ConfigError(SageError):
    """A setting, a config file or an environment variable is wrong."""

    code = "SAGE-C001"


class PortInUseError(ConfigError):
    """A port that was asked for explicitly is taken; names the process that holds it where that can be seen."""

    code = "SAGE-P002"

    def __init__(self, port: int, holder: "_Holder | None" = None, *, hint: str = "") -> None:
        known = holder is not None and holder.pid > 0
        cause = "another process listens there"
        if holder is not None:
            cause = f"held by pid {holder.pid}: {holder.command}" if known else f"held by {holder.command}"
        free = f"Stop that process:  kill {holder.pid}" if holder is not None and known else "Stop that process"
        super().__init__(
            f"Port {port} is already in use",
            cause=cause,
            hint=hint or f"{free}  — or choose another port with --port",
            details={"port": port, "holder_pid": holder.pid if holder is not None and known else None},
        )
        self.port = port
        self.holder = holder


class StateError(SageError):
    """Something under .sage/ cannot be read or written."""

    code = "SAGE-P003"


class NotRunningError(SageError):
    """What the command needs is not running (exit 3)."""

    code = "SAGE-R003"
    exit_code = 3


class DaemonError(SageError):
    """A daemon or the supervisor failed."""

    code = "SAGE-R001"


class UpstreamError(SageError):
    """An engine or a remote service answered wrongly or not at all."""

    code = "SAGE-G006"


class ModelError(SageError):
    """A model cannot be found, read or run."""

    code = "SAGE-E007"


class PipelineError(SageError):
    """A pipeline is wrong, or one of its operators failed."""

    code = "SAGE-K001"


class ServiceError(SageError):
    """A service that a pipeline calls failed."""

    code = "SAGE-K009"
