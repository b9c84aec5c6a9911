"""Keyed state in RocksDB: for state larger than memory, with incremental checkpoints. Needs the extra `flow`."""

from sage.core.state.rocksdb.backend import RocksKeyedState
from sage.core.state.rocksdb.options import RocksSettings

__all__ = ["RocksKeyedState", "RocksSettings"]
