"""Where a job's checkpoints lie on this machine, and what is said about how it starts."""

from __future__ import annotations

from pathlib import Path

from sage.common.errors import StateError
from sage.common.home import SageHome
from sage.core.api.function.service_calls import ServiceProvider
from sage.core.checkpoint.job_folder import LATEST, identity
from sage.core.graph.origin import Origin
from sage.core.runtime import session
from sage.core.runtime.local.checkpoints import JobCheckpoints
from sage.core.runtime.services import ServiceRegistry
from sage.core.runtime.settings import CheckpointSettings, ServiceSettings

__all__ = ["dead_letters", "job_checkpoints", "job_services", "state_folder", "tell_start", "traces"]


def job_checkpoints(name: str, origin: Origin, settings: CheckpointSettings, number: int) -> JobCheckpoints:
    """The checkpoints of the `number`th job of an environment: in the project's `.sage/`, or where the settings say."""
    file = Path(origin.file)
    project = file.resolve().parent if file.is_file() else Path.cwd()
    running = session.current()
    key = identity(name, project, number)
    if settings.directory is not None:
        root = Path(settings.directory).expanduser()
    else:
        root = (_home(project) if running.home is None or running.beside_file else running.home).checkpoints
    if running.replay is not None:
        wanted = running.replay.checkpoint if number == 1 else None
        return JobCheckpoints(settings, root / key, key, name, wanted, read_only=True)
    # A number or a folder names a checkpoint of one job: the first; `latest` is another one for each.
    restore = running.restore if number == 1 or running.restore == LATEST else None
    return JobCheckpoints(settings, root / key, key, name, restore, drop_state=running.drop_state)


def job_services(services: ServiceRegistry, settings: ServiceSettings, checkpoints: JobCheckpoints) -> ServiceProvider:
    """What a job's functions call: the environment's services, recorded where that is asked for; in a replay the log
    of them, `.sage/service-log/<identity>/`."""
    from sage.core.runtime.services.log import AnswerFile, RecordingServices, ReplayedServices

    replays = session.current().replay is not None
    if not settings.record and not replays:
        return services
    if settings.directory is not None:
        folder = Path(settings.directory).expanduser() / checkpoints.identity
    else:
        folder = checkpoints.folder.root.parent.parent / "service-log" / checkpoints.identity
    return ReplayedServices(folder, services.names) if replays else RecordingServices(services, AnswerFile(folder))


def dead_letters(checkpoints: JobCheckpoints) -> Path:
    """Where the job's dead letters go when the settings name no place: `.sage/dead-letters/<identity>.jsonl`."""
    return checkpoints.folder.root.parent.parent / "dead-letters" / f"{checkpoints.identity}.jsonl"


def state_folder(checkpoints: JobCheckpoints) -> Path:
    """Where state backends on disk work when the settings name no place: `.sage/state/`."""
    return checkpoints.folder.root.parent.parent / "state"


def traces(checkpoints: JobCheckpoints, job_id: str) -> Path:
    """Where the spans of traced records go without OpenTelemetry: `.sage/traces/<job id>.jsonl`."""
    return checkpoints.folder.root.parent.parent / "traces" / f"{job_id}.jsonl"


def tell_start(name: str, checkpoints: JobCheckpoints) -> None:
    """Say what the job continues from, where the user asked for that."""
    point = checkpoints.point
    if point is not None:
        end = ", which is its end: there is nothing left to do" if point.manifest.finished else ""
        session.say(f"{name} continues from checkpoint {point.manifest.checkpoint_id} ({point.folder.path}){end}")
        if checkpoints.dropped:
            session.say(f"{name} drops the state of {', '.join(map(repr, checkpoints.dropped))}: it has them no more")
    elif checkpoints.found_nothing:
        session.say(f"{name} has no checkpoint yet: it starts from the beginning")
    elif checkpoints.left_behind is not None:
        session.say(
            f"{name} starts from the beginning; an earlier run left checkpoint {checkpoints.left_behind}, which is kept"
            f" until this one makes its own (sage run --restore {checkpoints.left_behind} continues it)"
        )


def _home(project: Path) -> SageHome:
    try:
        return SageHome.find(project)
    except StateError:  # no home directory: beside the pipeline
        return SageHome(project / ".sage")
