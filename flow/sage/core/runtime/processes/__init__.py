"""Tasks in worker processes: for functions that keep the interpreter busy, which threads of one process do in turns."""

__all__: list[str] = []
