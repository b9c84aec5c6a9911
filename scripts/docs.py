"""Regenerate ``docs/cli.md`` from the real help pages and check every link of the documents (``make docs``).

``--check`` changes nothing and exits 1 when the reference is out of date or a link leads nowhere.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

from sage.cli.exit_codes import MEANINGS

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "cli.md"
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
HEADER = """\
# Command reference

Generated from the help pages by `make docs`. The [manual](manual/cli.md) explains how the commands work together.

"""


def help_page(words: list[str]) -> str:
    """What ``sage WORDS --help`` prints in a pipe, 100 columns wide."""
    env = os.environ | {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [pathlib.Path(sys.executable).with_name("sage"), *words, "--help"],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def commands_of(page: str) -> list[str]:
    """The names listed under ``Commands:`` on a help page."""
    _, _, listed = page.partition("\nCommands:\n")
    return re.findall(r"^ {2}([a-z][a-z-]*)(?: |$)", listed, flags=re.MULTILINE)


def reference() -> str:
    """The whole reference, one section a command, groups before their members."""
    sections = []

    def visit(words: list[str]) -> None:
        page = help_page(words)
        title = " ".join(["sage", *words])
        sections.append(f"## {title}\n\n```text\n{page}\n```\n")
        for name in commands_of(page):
            visit([*words, name])

    visit([])
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in MEANINGS.items())
    return HEADER + "\n".join(sections) + f"\n## Exit codes\n\n| code | meaning |\n| --- | --- |\n{codes}\n"


def broken_links() -> list[str]:
    """``file: target`` for each relative link that leads to no file."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "*.md"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    broken = []
    for name in filter(None, listed):
        path = ROOT / name
        if not path.is_file():
            continue
        for match in LINK.finditer(path.read_text(encoding="utf-8")):
            target = match["target"]
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                broken.append(f"{name}: {target}")
    return broken


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something is out of date")
    arguments = parser.parse_args()
    text = reference()
    stale = not REFERENCE.exists() or REFERENCE.read_text(encoding="utf-8") != text
    if stale and not arguments.check:
        REFERENCE.write_text(text, encoding="utf-8")
        print(f"wrote {REFERENCE.relative_to(ROOT)}")
    broken = broken_links()
    for row in broken:
        print(f"broken link in {row}", file=sys.stderr)
    if stale and arguments.check:
        print("docs/cli.md is out of date: run make docs", file=sys.stderr)
    return 1 if broken or (stale and arguments.check) else 0


if __name__ == "__main__":
    sys.exit(main())
