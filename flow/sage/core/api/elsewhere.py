"""Names that people bring along from Flink, Spark and pandas: an AttributeError that says what it is called here."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["ENVIRONMENTS", "JOINS", "STREAMS", "Elsewhere"]

TYPE_CHECKING = False


class Elsewhere:
    """A class whose `elsewhere` says for names that it does not have what to use in their place."""

    elsewhere: ClassVar[dict[str, str]] = {}

    if not TYPE_CHECKING:  # a type checker is to find names that are not there

        def __getattr__(self, name: str) -> object:
            instead = type(self).elsewhere.get(name)
            told = f": {instead}" if instead else ""
            shown = f"{type(self).__name__!r} object has no attribute {name!r}{told}"
            raise AttributeError(shown, name=name, obj=self)


_KEY_FIRST = "call key_by(...) first"

STREAMS = {
    "add_sink": "use sink(...) or sink_to(...)",
    "aggregate": _KEY_FIRST,
    "count": _KEY_FIRST,
    "count_window": _KEY_FIRST,
    "execute": "pipelines run with env.submit()",
    "foreach": "use sink(...)",
    "group_by": "use key_by(...)",
    "groupby": "use key_by(...)",
    "interval_join": _KEY_FIRST,
    "max": _KEY_FIRST,
    "min": _KEY_FIRST,
    "set_parallelism": "give the operator parallelism=",
    "sum": _KEY_FIRST,
    "time_window": "use key_by(...).window(TumblingEventTimeWindows.of(...))",
    "to_pandas": "use sink(...), or write_parquet(...)",
    "uid": "give the operator uid=, as in map(function, uid='...')",
    "window": "call key_by(...) first, or window_all(...)",
    "with_column": "use select(...)",
}

JOINS = {
    "apply": "call window(...) first",
    "key_by": "use where(key of the first).equal_to(key of the second)",
    "on": "use where(key of the first).equal_to(key of the second)",
}

ENVIRONMENTS = {
    "add_source": "use from_source(...)",
    "enable_checkpointing": "LocalEnvironment(name, {'checkpoint.interval': '10s'})",
    "execute": "use submit()",
    "execute_async": "use submit(block=False)",
    "from_elements": "use from_collection([...])",
    "from_list": "use from_collection([...])",
    "get_execution_environment": "LocalEnvironment(name)",
    "get_execution_plan": "use explain('json')",
    "read_csv": "use from_csv(...)",
    "read_parquet": "use from_parquet(...)",
    "read_text_file": "use from_text(...)",
    "set_parallelism": "LocalEnvironment(name, {'parallelism': 4})",
    "set_restart_strategy": "LocalEnvironment(name, {'restart.strategy': 'fixed-delay'})",
    "set_state_backend": "LocalEnvironment(name, {'state.backend': 'rocksdb'})",
    "wait": "submit() returns a handle, which has wait()",
}
