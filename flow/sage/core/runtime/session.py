"""Under whose direction pipelines run: a plain Python script's, or `sage run`'s, which adds to it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sage.core.runtime.clock import Clock
from sage.core.runtime.reporter import JobReporter, ProgressSnapshot
from sage.core.runtime.settings import ObservabilitySettings

if TYPE_CHECKING:
    from sage.common.home import SageHome
    from sage.core.api.local_environment import LocalEnvironment
    from sage.core.runtime.local.job import LocalJob
    from sage.core.runtime.local.replay import Replay

__all__ = ["Session", "current", "say", "say_stopping", "use", "warn"]

log = logging.getLogger("sage.core")


@dataclass(slots=True)
class Session:
    """What applies to every environment and job made while it is in use.

    `home` is where jobs are recorded; None: the `.sage/` that exists already, if there is one. Checkpoints lie there
    too, or with `beside_file` in the `.sage/` that belongs to the pipeline's file, wherever that is run. `restore`: the
    checkpoint that the first job continues from (latest, an id or a path); `drop_state`: without the state of operators
    that are gone. `clock`: what jobs go by, None: the system's. `replay`: jobs are only looked at: see there.
    """

    parallelism: int | None = None
    restore: str | None = None
    drop_state: bool = False
    home: SageHome | None = None
    beside_file: bool = False
    on_progress: Callable[[ProgressSnapshot], None] | None = None
    clock: Clock | None = None
    replay: Replay | None = None
    keeps: bool = False
    environments: list[LocalEnvironment] = field(default_factory=list)
    jobs: list[LocalJob] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    on_warning: Callable[[str], None] | None = None  # takes warnings in place of stderr

    def built(self, environment: LocalEnvironment) -> None:
        """An environment was made."""
        if self.keeps:
            self.environments.append(environment)

    def submitted(self, job: LocalJob) -> None:
        """A job is about to start."""
        if self.keeps:
            self.jobs.append(job)

    def reporter(self, *, path: str, parallelism: int, settings: ObservabilitySettings) -> JobReporter:
        """Where a job's numbers go."""
        home = None if self.replay is not None else self.home or _existing_home()
        return JobReporter(home, path=path, parallelism=parallelism, on_progress=self.on_progress, settings=settings)


_plain = Session()
_used: list[Session] = []


def current() -> Session:
    """The session in use."""
    return _used[-1] if _used else _plain


class use:  # noqa: N801 - reads as a word: with use(session)
    """A context manager: the session is the current one inside, in all threads."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> Session:
        _used.append(self._session)
        return self._session

    def __exit__(self, *_: Any) -> None:
        _used.remove(self._session)


def warn(text: str) -> None:
    """Tell the person at the terminal."""
    running = current()
    running.warnings.append(text)
    if running.on_warning is not None:
        running.on_warning(text)
    else:
        print(f"warning: {text}", file=sys.stderr)


def say(text: str) -> None:
    """Tell the person at the terminal something that is no cause for worry."""
    print(text, file=sys.stderr, flush=True)


def say_stopping() -> None:
    """After the first Ctrl-C."""
    print("stopping: what was read still runs out (Ctrl-C again aborts)", file=sys.stderr, flush=True)


def _existing_home() -> SageHome | None:
    """$SAGE_HOME (made if need be), else a `.sage/` that exists: a plain script makes no folders by itself."""
    import os

    from sage.common.errors import StateError
    from sage.common.home import SageHome

    try:
        home = SageHome.find()
    except StateError as error:
        log.warning("jobs are not recorded: %s", error)
        return None
    return home if os.environ.get("SAGE_HOME") or home.root.is_dir() else None
