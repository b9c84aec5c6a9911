"""Expressions over named columns: `stream.where(col("x") > 3).select(y=col("x") * 3 + 1)`.

On rows (dicts, or objects with attributes) they run as generated Python code, without a call for each record; on
columnar data they run in Arrow (`stream.columns()`, `env.from_columns(…)`; needs pyarrow).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sage.core.api.columns.expressions import Expression, col, lit

__all__ = ["Expression", "col", "lit"]


if not TYPE_CHECKING:  # a type checker knows the names above, and is to find one that is not there

    def __getattr__(name: str) -> object:
        if name in __all__:
            from sage.core.api.columns import expressions

            return getattr(expressions, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
