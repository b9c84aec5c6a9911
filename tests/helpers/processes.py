"""Which child processes a test has."""

from __future__ import annotations

import psutil


def children_of(module: str) -> list[psutil.Process]:
    """Living descendants of this process that were started as `python -m MODULE`, the oldest first."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.Error:
            continue
    return sorted(found, key=lambda child: child.pid)
