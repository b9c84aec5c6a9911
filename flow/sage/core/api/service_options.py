"""How a service is run: how many instances, which of them a call goes to, what happens when one does not answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sage.common.errors import ConfigError
from sage.core.api.function.retry import RetryPolicy
from sage.core.api.units import parse_duration

__all__ = ["ServiceOptions"]


@dataclass(slots=True, frozen=True)
class ServiceOptions:
    """Options of `register_service`. Durations: "5s", or milliseconds.

    `replicas` instances share the calls: each goes to the healthy one that has the fewest. `shards` split them: a call
    goes to the shard of its key, `shard_by` being the name or position of an argument, or a function of all arguments
    (default: the first argument); each shard has `replicas` instances. A factory with a parameter `shard` or `replica`
    is told the number.

    `timeout` and `retry` (a RetryPolicy or a number of attempts) are for each call. After `failures` failed calls in a
    row an instance is out until `recovery` has passed and its `health_check()`, if it has one, is true again; that is
    also asked every `health_interval` (None: never). When a service fails or none of its instances is healthy, those
    named by `fallback` answer, in order: register the one on the GPU with `fallback="…-cpu"`.

    A service that declares `batch_methods = {"embed": "embed_batch"}` gets calls of `embed(x)` together, as
    `embed_batch([x, …])`: while one batch runs the next one collects, up to `max_batch`.
    """

    replicas: int = 1
    shards: int = 1
    shard_by: str | int | Callable[..., Hashable] | None = None
    max_batch: int = 256
    timeout: float | str | None = None
    retry: RetryPolicy | int | Mapping[str, Any] | None = None
    fallback: str | Sequence[str] = ()
    failures: int = 3
    recovery: float | str = "5s"
    health_interval: float | str | None = "10s"

    def __post_init__(self) -> None:
        for name in ("replicas", "shards", "max_batch", "failures"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} of a service must be a whole number of at least 1", cause=f"got {value!r}")
        for name in ("timeout", "recovery", "health_interval"):
            try:
                value = getattr(self, name)
                if value is not None and parse_duration(value) <= 0:
                    raise ValueError(f"{value!r} is no time: it must be longer than 0")
            except ValueError as error:
                raise ConfigError(f"{name} of a service is wrong", cause=str(error)) from error
        RetryPolicy.of(self.retry)

    @classmethod
    def split(
        cls, factory: Any, given: Mapping[str, Any], options: ServiceOptions | None
    ) -> tuple[ServiceOptions, dict[str, Any]]:
        """The options among the keyword arguments of `register_service`, and those for the factory.

        What the factory has a parameter for is the factory's; with `options` given, all are.
        """
        if options is not None:
            return options, dict(given)
        own = _parameters(factory)
        mine = {field.name for field in fields(cls)} - own
        chosen = {name: value for name, value in given.items() if name in mine}
        return cls(**chosen), {name: value for name, value in given.items() if name not in mine}

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The names, in order."""
        return (self.fallback,) if isinstance(self.fallback, str) else tuple(self.fallback)

    @property
    def is_plain(self) -> bool:
        """Whether calls can go to the one instance directly."""
        alone = self.replicas == self.shards == 1
        return alone and self.timeout is None and RetryPolicy.of(self.retry).max_attempts == 1 and not self.fallbacks


def _parameters(factory: Any) -> set[str]:
    try:
        return set(inspect.signature(factory).parameters)
    except (TypeError, ValueError):  # built-ins without a signature, ready objects
        return set()
