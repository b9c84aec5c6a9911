"""``sage embed``: texts to vectors through the gateway."""

from __future__ import annotations

import json as json_module
import sys
from typing import Annotated

import typer

from sage.cli.output import emit_json, result
from sage.common.errors import UsageError


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Without any, each line of stdin is one.", show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The embedding model.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON array in place of one JSON object a line.")] = False,
) -> None:
    """Turn texts into vectors, one JSON object a line."""
    wanted = list(texts or _lines_of_stdin())
    from sage.cli.chosen import chosen_text
    from sage.llm import UnifiedInferenceClient

    client = UnifiedInferenceClient.create(default_embedding_model=model or chosen_text("embedding.model"))
    try:
        vectors = client.embed(wanted)
    finally:
        client.close()
    rows = [
        {"index": i, "text": text, "dim": len(vector), "embedding": vector}
        for i, (text, vector) in enumerate(zip(wanted, vectors, strict=True))
    ]
    if json:
        emit_json(rows)
        return
    for row in rows:
        result(json_module.dumps(row, ensure_ascii=False))


def _lines_of_stdin() -> list[str]:
    lines = [] if sys.stdin.isatty() else [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not lines:
        raise UsageError("There is no text to embed", hint='sage embed "first text" "second text"')
    return lines
