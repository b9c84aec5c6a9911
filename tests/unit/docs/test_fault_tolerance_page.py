"""The page on fault tolerance names the keys there are, with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage.core.api.config import parse_config
from sage.core.api.config_model import ConfigModel
from sage.core.graph.origin import Origin
from sage.core.runtime.settings import CheckpointSettings, RestartSettings

PAGE = Path(__file__).parents[3] / "docs" / "fault-tolerance.md"
HERE = Origin("page", 1)


def rows() -> list[tuple[str, str]]:
    """Keys and defaults of the configuration table."""
    table = PAGE.read_text().split("## Configuration\n")[1].split("\n## ")[0]
    return [
        (key, default.strip("` ")) for key, default in re.findall(r"^\| `([a-z_.]+)` \|([^|]*)\|", table, re.MULTILINE)
    ]


def test_every_key_is_one_and_none_of_these_families_is_missing() -> None:
    named = {key for key, _ in rows()}
    known = {field.alias or name for name, field in ConfigModel.model_fields.items()}
    assert named <= known
    families = ("checkpoint", "restart.", "hang.", "on_error", "dead_letter", "state.")
    assert {key for key in known if key.startswith(families)} <= named


@pytest.mark.parametrize(("key", "default"), [row for row in rows() if row[1]])
def test_the_defaults_are_the_ones_there_are(key: str, default: str) -> None:
    if key in ("checkpoint.dir", "dead_letter.path"):
        return  # a place that follows from the project
    plain = parse_config({"parallelism": 1}, HERE)
    named = parse_config({key: default}, HERE)
    if key.startswith("restart."):
        kind = named.restart.kind
        assert named.restart == RestartSettings(kind=kind)
    elif key.startswith("checkpoint"):
        assert named.checkpoint == CheckpointSettings()
    else:
        assert named == plain
