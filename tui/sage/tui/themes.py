"""SAGE's own themes: sage green on ink, and its daylight twin."""

from __future__ import annotations

from textual.theme import Theme

__all__ = ["SAGE_DARK", "SAGE_LIGHT"]

SAGE_DARK = Theme(
    name="sage-dark",
    primary="#8FB996",
    secondary="#6C91A8",
    accent="#D9B26F",
    success="#8FC98A",
    warning="#E3B45C",
    error="#E07A6B",
    foreground="#D8DED6",
    background="#12171A",
    surface="#171E21",
    panel="#222B2E",
    dark=True,
    variables={"border": "#39464A", "border-blurred": "#2A3538", "footer-key-foreground": "#8FB996"},
)

SAGE_LIGHT = Theme(
    name="sage-light",
    primary="#4C7A57",
    secondary="#41687F",
    accent="#9A6B16",
    success="#3F7A3A",
    warning="#9A6A00",
    error="#B23B2E",
    foreground="#1F2A24",
    background="#F6F7F2",
    surface="#FBFCF9",
    panel="#E4E9E0",
    dark=False,
    variables={"border": "#B9C4B8", "border-blurred": "#D3DBD1", "footer-key-foreground": "#4C7A57"},
)
