"""Every command of ``sage``: its name, where its function stands, and its line in the help.

The help pages and the did-you-mean are made from this list alone; a command's module is imported when it is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_HERE = "sage.cli.commands"


@dataclass(frozen=True, slots=True)
class Entry:
    """One command (``target`` only), one group (``children`` only), or a group that also does something itself."""

    name: str
    help: str
    target: str = ""
    children: tuple[Entry, ...] = ()


LLM = (
    Entry("serve", "Start the gateway, the engine and the embedding server.", f"{_HERE}.llm.serve:serve"),
    Entry("stop", "Stop what `sage llm serve` started.", f"{_HERE}.llm.stop:stop"),
    Entry("restart", "Stop the services and start them again as they were.", f"{_HERE}.llm.restart:restart"),
    Entry("status", "Show which services run, on which ports.", f"{_HERE}.llm.status:status"),
    Entry("logs", "Print what the services wrote.", f"{_HERE}.llm.logs:logs"),
)

MONITOR = (
    Entry("logs", "Print the log lines of services and pipelines.", f"{_HERE}.monitor.logs:logs"),
    Entry("metrics", "Print the numbers of the running services.", f"{_HERE}.monitor.metrics:metrics"),
)

BENCH = (Entry("llm", "Put load on the gateway or any OpenAI-compatible server.", f"{_HERE}.bench.llm:llm"),)

CONFIG = (Entry("show", "Show every setting and where its value comes from.", f"{_HERE}.config:show"),)

ROOT = (
    Entry("check-env", "Check this machine: python, torch, accelerator, disk, ports.", f"{_HERE}.check_env:check_env"),
    Entry("init", "Create a project from a template.", f"{_HERE}.init:init"),
    Entry("run", "Run a pipeline file on this machine.", f"{_HERE}.run:run"),
    Entry("llm", "Start, stop and watch the local AI services.", children=LLM),
    Entry("chat", "Talk to the model, or ask it one question.", f"{_HERE}.chat:chat"),
    Entry("embed", "Turn texts into vectors.", f"{_HERE}.embed:embed"),
    Entry("monitor", "Open the dashboard.", f"{_HERE}.monitor.dashboard:dashboard", MONITOR),
    Entry("bench", "Put load on a service and measure it.", children=BENCH),
    Entry("config", "Show the configuration.", children=CONFIG),
    Entry("help", "Print a help page: sage help llm serve, sage help exit-codes.", f"{_HERE}.help:help_page"),
)


def walk(entries: tuple[Entry, ...] = ROOT, above: str = "sage") -> Iterator[tuple[str, Entry]]:
    """Every command with its full path (``"sage llm serve"``), parents first."""
    for entry in entries:
        path = f"{above} {entry.name}"
        yield path, entry
        yield from walk(entry.children, path)
