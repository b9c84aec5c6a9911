"""``sage bench``: load, and what came of it."""

__all__: list[str] = []
