"""Tasks, channels and control events: the same for every place a task can run. `runtime.local` puts tasks on threads."""

__all__: list[str] = []
