"""Checkpoints: the coordinator that asks for them, where they lie, how a job is restored from one."""

__all__: list[str] = []
