"""``sage llm``: the local AI services."""

__all__: list[str] = []
