"""Tasks, channels and control events, the same wherever a task runs; `runtime.local` puts tasks on threads."""

__all__: list[str] = []
