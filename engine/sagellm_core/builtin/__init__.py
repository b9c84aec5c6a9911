"""The built-in model: a small Llama in Hugging Face format, made by ``training/`` (see REPORT.md beside this file).

Knows nothing about engines: it only says where the folder is.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL_ID", "path"]

MODEL_ID = "sage-builtin"


def path() -> Path:
    """The folder with config, tokenizer and weights, as any Hugging Face model folder."""
    return Path(__file__).resolve().parent
