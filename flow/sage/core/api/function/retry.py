"""When a call that failed is made again: the same policy for async operators and for services."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sage.common.errors import ConfigError
from sage.core.api.units import parse_duration

__all__ = ["RetryPolicy"]


@dataclass(slots=True, frozen=True)
class RetryPolicy:
    """At most `max_attempts` calls in all, with growing pauses between them (Flink's AsyncRetryStrategies).

    Pauses begin with `delay`, grow by `multiplier` up to `max_delay`, and each is shortened by a random share of up to
    `jitter` (0 to 1), so that calls that failed together do not come again together. Tried again is what raised one of
    `retry_on`, or gave a result for which `retry_if(result)` is true. Durations: "100ms", "5s", or milliseconds.
    """

    max_attempts: int = 3
    delay: float | str = 100
    multiplier: float = 2.0
    max_delay: float | str = "10s"
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    retry_if: Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        try:
            parse_duration(self.delay), parse_duration(self.max_delay)
        except ValueError as error:
            raise ConfigError("A RetryPolicy has a wrong pause", cause=str(error)) from error
        if self.max_attempts < 1 or self.multiplier < 1 or not 0 <= self.jitter <= 1:
            raise ConfigError(
                "A RetryPolicy does not make sense",
                cause=f"max_attempts={self.max_attempts}, multiplier={self.multiplier}, jitter={self.jitter}",
                hint="max_attempts and multiplier are at least 1, jitter is between 0 and 1",
            )

    @classmethod
    def of(cls, value: RetryPolicy | int | Mapping[str, Any] | None) -> RetryPolicy:
        """A policy as people write it: itself, a number of attempts, or its fields by name; None: never again.

        Raises ConfigError.
        """
        if isinstance(value, RetryPolicy):
            return value
        if value is None:
            return cls(max_attempts=1)
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(max_attempts=value)
        if not isinstance(value, Mapping):
            raise ConfigError("This is no retry policy", cause=f"got {value!r:.80}", hint="RetryPolicy(max_attempts=3)")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ConfigError(
                "A retry policy has unknown fields",
                cause=f"unknown: {', '.join(unknown)}",
                hint=f"known: {', '.join(known)}",
            )
        return cls(**value)

    def after_error(self, attempt: int, error: BaseException) -> float | None:
        """Seconds until the next attempt after the `attempt`th (from 1) raised; None: there is none."""
        if attempt >= self.max_attempts or not isinstance(error, self.retry_on):
            return None
        return self.pause(attempt)

    def after_result(self, attempt: int, result: Any) -> float | None:
        """Seconds until the next attempt after the `attempt`th gave this; None: the result stands."""
        if self.retry_if is None or attempt >= self.max_attempts or not self.retry_if(result):
            return None
        return self.pause(attempt)

    def pause(self, attempt: int) -> float:
        """Seconds between the `attempt`th (from 1) and the next."""
        longest: float = parse_duration(self.max_delay)
        whole = min(longest, parse_duration(self.delay) * self.multiplier ** (attempt - 1))
        return whole * (1 - random.random() * self.jitter)
