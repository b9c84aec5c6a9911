"""The job as bytes: what a worker process needs to run its subtasks.

Functions and classes of the script itself go along by value (cloudpickle), others by name, so the worker does not run
the script. Collections that sources read go only to the workers that read them.
"""

from __future__ import annotations

import io
import logging
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sage.common.errors import PipelineError
from sage.core.graph.plan import PhysicalPlan
from sage.core.graph.spec import FunctionSpec
from sage.core.runtime.checkpointing import CheckpointAccess
from sage.core.runtime.failure import OnError
from sage.core.runtime.local.context import JobContext
from sage.core.runtime.processes.placement import Subtask
from sage.core.runtime.settings import RuntimeSettings
from sage.core.runtime.states import StateProvider
from sage.core.runtime.tracing import Spans

__all__ = ["JobPayload", "WorkerJob", "load_job"]

_HINT = "pass a class instead of an instance, open files, locks and connections in open(), or run the job with "
_THREADS = "execution.runtime: threads"


@dataclass(slots=True, frozen=True)
class WorkerJob:
    """A job as its workers get it. `where` has the worker of every subtask; `types` are the script's own classes;
    `log_level` is what `configure_debug` set (0: nothing)."""

    plan: PhysicalPlan
    where: Mapping[Subtask, int]
    job_id: str
    name: str
    settings: RuntimeSettings
    services: Any
    on_error: OnError | None
    states: StateProvider
    identity: str
    attempt: int
    spans: Spans | None
    shared: Path
    periodic: bool
    types: dict[str, type]
    log_level: int


class JobPayload:
    """A job, pickled. Raises PipelineError, naming operator and line, for what cannot leave this process."""

    def __init__(
        self, plan: PhysicalPlan, where: Mapping[Subtask, int], context: JobContext, access: CheckpointAccess
    ) -> None:
        self._plan = plan
        self._where = where
        self._data = {
            task.index: _data_of(task.head.node)
            for task in plan.tasks
            if task.head.node.source is not None and type(task.head.node.source.data) is list
        }
        job = WorkerJob(
            plan=plan,
            where=dict(where),
            job_id=context.job_id,
            name=context.name,
            settings=context.settings,
            services=context.services,
            on_error=context.on_error,
            states=context.states,
            identity=context.identity,
            attempt=context.attempt,
            spans=context.spans,
            shared=access.shared,
            periodic=access.periodic,
            types=_script_types(),
            log_level=logging.getLogger("sage").level,
        )
        self._job = self._dumped(job)

    def of(self, worker: int) -> bytes:
        """What one worker is sent."""
        data = {
            task: data
            for task, data in self._data.items()
            if any(self._where[task, number] == worker for number in range(self._plan.tasks[task].parallelism))
        }
        return pickle.dumps((list(sys.path), sys.argv, _script_file(), self._job, data), 5)

    def _dumped(self, job: WorkerJob) -> bytes:
        import cloudpickle

        elsewhere = {
            id(task.head.node.source.data): task.index
            for task in self._plan.tasks
            if task.index in self._data and task.head.node.source is not None
        }

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
            """Leaves out what sources read."""

            def persistent_id(self, value: Any) -> int | None:
                return elsewhere.get(id(value))

        target = io.BytesIO()
        try:
            Pickler(target, 5).dump(job)
        except PipelineError:
            raise
        except Exception as error:
            raise _unpicklable(self._plan, error) from error
        return target.getvalue()


def load_job(payload: bytes) -> WorkerJob:
    """The job, in the worker; its `sys.path` and `sys.argv` are the master's from here on."""
    path, argv, file, job, data = pickle.loads(payload)  # noqa: S301 - from the master of this job
    sys.path[:], sys.argv = path, argv
    main = sys.modules["__main__"]
    if file is not None:
        main.__file__ = file

    class Unpickler(pickle.Unpickler):
        """Puts in what the sources of this worker read."""

        def persistent_load(self, task: Any) -> Any:
            return pickle.loads(data[task]) if task in data else ()  # noqa: S301 - see above

    loaded = Unpickler(io.BytesIO(job)).load()
    assert isinstance(loaded, WorkerJob), "written by JobPayload"
    for name, kind in loaded.types.items():  # records of these classes are pickled by name
        setattr(main, name, kind)
    return loaded


def _data_of(node: Any) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(node.source.data, 5))
    except Exception as error:
        raise _refused(node, error) from error


def _script_file() -> str | None:
    return getattr(sys.modules.get("__main__"), "__file__", None)


def _script_types() -> dict[str, type]:
    """The classes that the script defines, as far as they can go along."""
    main = sys.modules.get("__main__")
    return {
        name: value
        for name, value in ({} if main is None else dict(vars(main))).items()
        if isinstance(value, type) and value.__module__ == "__main__" and _error_of(value) is None
    }


def _error_of(value: Any) -> Exception | None:
    """Why it cannot be pickled."""
    import cloudpickle

    try:
        cloudpickle.dumps(value, 5)
    except Exception as error:
        return error
    return None


def _unpicklable(plan: PhysicalPlan, error: Exception) -> PipelineError:
    """The operator that is to blame, and the line that is."""
    for operator in plan.operators():
        node, keys = operator.node, [key for key in operator.keys if key is not None]
        own = _error_of(replace(node, inputs=()))
        if own is not None:
            return _refused(node, own)
        for key in keys:
            by_key = _error_of(key)
            if by_key is not None:
                return _refused(node, by_key, key)
    return PipelineError(
        "This job cannot go to worker processes",
        cause=f"{type(error).__name__}: {error}",
        hint=f"run it with {_THREADS}",
    )


def _refused(node: Any, error: Exception, key: FunctionSpec | None = None) -> PipelineError:
    name, origin = ("key_by", key.origin) if key is not None else (node.name, node.origin)
    source = node.source is not None and node.source.function is None
    hint = (
        f"pass a list, or a function that makes the records, or run the job with {_THREADS}"
        if source
        else _HINT + _THREADS
    )
    refused = PipelineError(
        f"Operator {name!r} cannot go to a worker process ({origin})",
        cause=f"{type(error).__name__}: {error}",
        hint=hint,
        details={"operator": name, "file": origin.file, "line": origin.line},
    )
    refused.__cause__ = error
    return refused
