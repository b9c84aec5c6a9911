"""One instance of a service: made on first use, called in turns where it must be, watched for failures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from sage.common.errors import SageError, ServiceError
from sage.core.runtime.services.batches import Batcher
from sage.core.runtime.services.methods import failed, method_of

__all__ = ["Instance", "is_thread_safe"]

Run = Callable[..., Future[Any]]  # run(function, *args) in a service thread


class Instance:
    """`make` is called once, by whoever needs the instance first; others wait. Thread-safe."""

    def __init__(self, name: str, make: Callable[[], Any], *, shard: int = 0, replica: int = 0) -> None:
        self.name = name
        self.shard = shard
        self.replica = replica
        self.in_flight = 0
        self.failures = 0  # in a row
        self.down_until: float | None = None  # None: healthy
        self.calling = threading.RLock()
        self._make = make
        self._making = threading.RLock()
        self._made = False
        self._value: Any = None
        self._batchers: dict[str, Batcher] = {}

    @property
    def is_made(self) -> bool:
        """Whether it exists."""
        return self._made

    def value(self) -> Any:
        """The instance. Raises ServiceError when its factory does not give one."""
        if not self._made:
            with self._making:
                if not self._made:
                    self._value = self._made_value()
                    self._made = True
        return self._value

    def call(self, method: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method in this thread."""
        value = self.value()
        function = method_of(self.name, value, method)
        if is_thread_safe(value):
            return function(*args, **kwargs)
        with self.calling:
            return function(*args, **kwargs)

    def batcher(self, method: str | None, limit: int, run: Run) -> Batcher | None:
        """What collects the calls of this method; None where the service takes them one by one."""
        value = self.value()
        whole = dict(getattr(value, "batch_methods", None) or {}).get(method)
        if method is None or whole is None:
            return None
        with self._making:
            if method not in self._batchers:
                method_of(self.name, value, whole)  # raises when there is none
                self._batchers[method] = Batcher(partial(self._batch, whole), limit, run, f"{self.name}.{whole}")
            return self._batchers[method]

    def take(self) -> Any:
        """The instance, which this forgets; None when there is none."""
        with self._making:
            value, self._value = self._value, None
            self._made = False
            self._batchers.clear()
            self.failures, self.down_until = 0, None
        return value

    def close(self) -> None:
        """Forget the instance and call its `close`. Raises ServiceError."""
        close = getattr(self.take(), "close", None)
        if callable(close):
            try:
                close()
            except Exception as error:
                raise failed(f"Service {self.name!r} did not close", error) from error

    def _batch(self, method: str, items: list[Any]) -> Any:
        return self.call(method, (items,), {})

    def _made_value(self) -> Any:
        try:
            value = self._make()
        except SageError:
            raise
        except Exception as error:
            raise failed(f"Service {self.name!r} could not be made", error) from error
        if value is None:
            raise ServiceError(f"Service {self.name!r} could not be made", cause="its factory returned None")
        return value


def is_thread_safe(value: Any) -> bool:
    """Whether its methods may be called by several threads at once."""
    return bool(getattr(value, "thread_safe", True))
