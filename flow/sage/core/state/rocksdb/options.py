"""How the database is set up, and the only place that imports rocksdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sage.common.errors import StateError

__all__ = ["RocksSettings", "check_installed", "open_database", "without_log", "write_batch"]


@dataclass(frozen=True, slots=True)
class RocksSettings:
    """Sizes for each backend (one operator in one subtask), the block cache excepted: a process has one, in bytes.

    `dirty_rows`: from here on rows are written in the background; eight times as many make the task wait for a
    checkpoint that is being written. `cached_rows`: rows kept unpacked, in each of two generations, `cached_bytes` of
    them packed at most. `write_buffer` is small, because rows are inserted at random: one that fits in the processor's
    cache takes them twice as fast. `incremental`: a checkpoint names the files that the one before it has already.
    """

    dirty_rows: int = 32_768
    cached_rows: int = 524_288
    cached_bytes: int = 64 << 20
    slice_rows: int = 4_096
    write_buffer: int = 4 << 20
    block_cache: int = 64 << 20
    incremental: bool = True


def check_installed() -> None:
    """Raises StateError when rocksdict is missing."""
    try:
        import rocksdict  # noqa: F401
    except ImportError as error:
        raise StateError(
            "The state backend rocksdb is not installed",
            cause=str(error),
            hint="pip install 'sage-stack[flow]', or set state.backend to memory",
        ) from error


@lru_cache(maxsize=4)
def _block_cache(size: int) -> Any:
    from rocksdict import Cache

    return Cache(size)


def open_database(path: Path, settings: RocksSettings, *, read_only: bool = False) -> Any:
    """Open or make a database (a rocksdict.Rdict, of bytes). Raises StateError, with RocksDB's words."""
    from rocksdict import (
        AccessType,
        BlockBasedOptions,
        DBCompactionStyle,
        DBCompressionType,
        Options,
        Rdict,
    )

    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10, False)
    blocks.set_block_cache(_block_cache(settings.block_cache))
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(settings.write_buffer)
    options.set_max_write_buffer_number(8)
    options.set_compaction_style(DBCompactionStyle.universal())  # small files join small ones: increments stay small
    options.set_level_zero_file_num_compaction_trigger(8)
    options.set_level_zero_slowdown_writes_trigger(40)
    options.set_level_zero_stop_writes_trigger(60)
    options.set_max_background_jobs(2)
    options.set_max_open_files(512)
    options.set_keep_log_file_num(1)
    options.set_stats_dump_period_sec(0)
    options.set_is_fd_close_on_exec(True)
    options.set_allow_concurrent_memtable_write(False)  # one thread writes at a time
    try:
        return (
            Rdict(str(path), options, access_type=AccessType.read_only(False))
            if read_only
            else Rdict(str(path), options)
        )
    except Exception as error:  # rocksdict raises plain Exception
        raise StateError(
            f"The RocksDB state in {path} cannot be opened",
            cause=str(error),
            hint="restore from another checkpoint or savepoint",
        ) from error


def write_batch() -> Any:
    """An empty batch."""
    from rocksdict import WriteBatch

    return WriteBatch(raw_mode=True)


@lru_cache(maxsize=1)
def without_log() -> Any:
    """Options of writes that need no log: checkpoints are what survives a failure."""
    from rocksdict import WriteOptions

    options: Any = WriteOptions()
    options.disable_wal = True  # a property; the package's types say a method
    return options
