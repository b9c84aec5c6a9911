"""``sage monitor``: the dashboard, and the same facts as text."""

__all__: list[str] = []
