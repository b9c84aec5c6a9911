"""What ``sage llm serve`` is about to start: models found, ports chosen, daemons described, then launched."""

__all__: list[str] = []
