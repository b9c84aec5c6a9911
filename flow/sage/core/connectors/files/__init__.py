"""Files as sources and sinks: lines of text and JSON, CSV, Parquet, folders that files arrive in."""

__all__: list[str] = []
