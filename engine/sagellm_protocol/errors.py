"""Error codes that an engine answers with, the same over Python calls and over HTTP."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ErrorCode(StrEnum):
    """Why a request failed (sageLLM Protocol v0.1)."""

    INVALID_ARGUMENT = "invalid_argument"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_IMPLEMENTED = "not_implemented"
    KV_TRANSFER_FAILED = "kv_transfer_failed"
    COMM_TIMEOUT = "comm_timeout"
    COMM_GROUP_INVALID = "comm_group_invalid"
    DISTRIBUTED_RUNTIME_ERROR = "distributed_runtime_error"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Error(BaseModel):
    """What went wrong, for a program (`code`), for a person (`message`), and whether trying again may help."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: ErrorCode
    message: str
    retryable: bool = False
