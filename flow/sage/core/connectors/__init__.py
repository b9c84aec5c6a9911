"""Sources and sinks, and the interfaces for new ones."""

__all__: list[str] = []
