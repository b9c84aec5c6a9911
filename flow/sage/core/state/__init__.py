"""State of functions and operators: descriptors and stores, in memory or in RocksDB, snapshots and restore."""

__all__: list[str] = []
