"""What was probably meant: commands, options, files, names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from sage.cli.manifest import ROOT, Entry, walk
from sage.common.errors import UsageError


def nearest(word: str, names: Iterable[str], *, count: int = 1) -> list[str]:
    """The names most like ``word``, best first; case does not matter."""
    by_fold = {name.casefold(): name for name in names}
    found = get_close_matches(word.casefold(), by_fold, n=count, cutoff=0.5)
    return [by_fold[name] for name in found]


def unknown_command(name: str, path: str, entries: tuple[Entry, ...]) -> UsageError:
    """The error for a command that ``path`` does not have, with the nearest one at this level or elsewhere.

    ``sage statsu`` and ``sage status`` both lead to ``sage llm status``: a leaf of another group counts when its name
    is right or nearly right.
    """
    here = [f"{path} {match}" for match in nearest(name, (entry.name for entry in entries))]
    leaves: dict[str, str] = {}
    for full, entry in walk(ROOT):
        leaves.setdefault(entry.name, full)
    elsewhere = [leaves[match] for match in nearest(name, leaves) if leaves[match] not in here]
    exact = [full for full in elsewhere if full.endswith(f" {name}")]
    candidates = exact or here or elsewhere
    known = ", ".join(entry.name for entry in entries)
    hint = f"Did you mean:  {candidates[0]}" if candidates else f"See what there is:  {path} --help"
    return UsageError(f"There is no command {name!r} in {path!r}", cause=f"It knows: {known}.", hint=hint)
