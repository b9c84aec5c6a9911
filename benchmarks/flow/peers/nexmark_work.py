"""Nexmark's events and the digest of results, for scripts that do not have this repository on their path."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).resolve().parents[1] / "nexmark")
sys.path.append(FOLDER)
from digest import digest  # noqa: E402
from events import OUT_OF_ORDER, Auction, Bid, Person, generate  # noqa: E402

UNTIMED = ("q0", "q1", "q2", "q3")  # they ask for no time: nobody gives events one

__all__ = ["FOLDER", "OUT_OF_ORDER", "UNTIMED", "Auction", "Bid", "Person", "digest", "generate"]
