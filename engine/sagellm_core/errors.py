"""Errors of the engine, each with the protocol's code, so that Python, HTTP and the CLI say the same thing.

EngineError(ModelError)          SAGE-E007   a request or the engine failed; `error_code` says how
└── ModelLoadError               SAGE-E008   a model folder cannot be found, read or run
"""

from __future__ import annotations

from errno import ENOMEM

from sage.common.errors import ModelError
from sagellm_protocol.errors import Error, ErrorCode

__all__ = ["EngineError", "ModelLoadError", "invalid", "lacks_memory", "not_implemented"]

_RETRYABLE = frozenset({ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE})
_SIGNS = ("out of memory", "outofmemory", "allocate memory", "unable to allocate", "not enough memory")


class EngineError(ModelError):
    """A request or the engine failed.

    `error_code` is the protocol's code, `param` the request field at fault (if one is), `retryable` whether the same
    request may succeed later.
    """

    def __init__(
        self, error_code: ErrorCode, message: str, *, param: str | None = None, cause: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, cause=cause, hint=hint)
        self.error_code = error_code
        self.param = param
        self.retryable = error_code in _RETRYABLE

    def to_protocol(self) -> Error:
        return Error(code=self.error_code, message=str(self), retryable=self.retryable)

    @classmethod
    def from_protocol(cls, error: Error) -> EngineError:
        return cls(error.code, error.message)


class ModelLoadError(EngineError):
    """A model folder cannot be found, read or run."""

    code = "SAGE-E008"

    def __init__(self, message: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(ErrorCode.INVALID_ARGUMENT, message, cause=cause, hint=hint)


def invalid(message: str, param: str | None = None) -> EngineError:
    """The caller's fault: a value that can never work."""
    return EngineError(ErrorCode.INVALID_ARGUMENT, message, param=param)


def not_implemented(message: str, param: str | None = None) -> EngineError:
    """Something that exists elsewhere but not here; the message names what is supported."""
    return EngineError(ErrorCode.NOT_IMPLEMENTED, message, param=param)


def lacks_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out, the system's or a device's: libraries have many words for it."""
    if isinstance(error, OSError):
        return error.errno == ENOMEM
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)
