"""Puts a job together from its plan and the settings. Imported with the first `submit()`: building pipelines does not
need what runs them."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sage.core.graph.origin import Origin
from sage.core.graph.plan import PhysicalPlan
from sage.core.runtime import session
from sage.core.runtime.clock import SystemClock
from sage.core.runtime.dead_letters import on_error
from sage.core.runtime.local.job import LocalJob
from sage.core.runtime.local.replay import replay_settings, replayed
from sage.core.runtime.local.start import dead_letters, job_checkpoints, job_services, state_folder, tell_start, traces
from sage.core.runtime.local.wiring import JobContext
from sage.core.runtime.services import ServiceRegistry
from sage.core.runtime.settings import RuntimeSettings
from sage.core.runtime.states import ConfiguredStates
from sage.core.runtime.tracing import spans_for

if TYPE_CHECKING:
    from sage.core.api.local_environment import LocalEnvironment

__all__ = ["new_job"]


def new_job(
    environment: LocalEnvironment,
    plan: PhysicalPlan,
    settings: RuntimeSettings,
    services: ServiceRegistry,
    origin: Origin,
    number: int,
) -> LocalJob:
    """The `number`th job (from 1) of an environment that was made at `origin`, under the session in use.

    Says what it continues from. Raises StateError for a checkpoint that is not there or does not fit.
    """
    running = session.current()
    replay = running.replay
    if replay is not None:
        plan, stops = replayed(plan, replay)
        settings = replay_settings(settings)
    name = environment.name
    checkpoints = job_checkpoints(name, origin, settings.checkpoint, number)
    job_id = uuid.uuid4().hex[:12] if replay is None else replay.job_id
    clock = running.clock or SystemClock()
    context = JobContext(
        job_id=job_id,
        name=name,
        settings=settings,
        services=job_services(services, settings.services, checkpoints),
        stopping=threading.Event(),
        aborted=threading.Event(),
        owner=environment,
        identity=checkpoints.identity,
        states=ConfiguredStates(settings.state, state_folder(checkpoints), clock),
        clock=clock,
        on_error=on_error(settings, dead_letters(checkpoints)),
        spans=spans_for(traces(checkpoints, job_id)) if settings.observability.tracing else None,
    )
    path = Path(origin.file)
    where = str(path.resolve()) if path.is_file() else origin.file
    reporter = running.reporter(path=where, parallelism=settings.parallelism, settings=settings.observability)
    job = LocalJob(plan, context, reporter, checkpoints)
    if replay is not None:
        stops(job.abort)
    tell_start(name, checkpoints)
    return job
