"""Tools around pipelines: `sage.utils.profiler`."""

__all__: list[str] = []
