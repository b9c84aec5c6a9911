"""Databases as sources and sinks: SQLite by itself, others through SQLAlchemy."""

__all__: list[str] = []
