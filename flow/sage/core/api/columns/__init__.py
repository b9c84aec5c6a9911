"""Expressions over named columns: `stream.where(col("x") > 3).select(y=col("x") * 3 + 1)`.

On rows (dicts, or objects with attributes) they run as generated Python code, without a call for each record; on
columnar data they run in Arrow (`stream.columns()`, `env.from_columns(…)`; needs pyarrow).
"""

from sage.core.api.columns.expressions import Expression, col, lit

__all__ = ["Expression", "col", "lit"]
