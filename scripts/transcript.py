"""Run the demo and put what it printed into README.md, between the two marks. Changes nothing when the demo fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- demo: scripts/transcript.py -->\n", "<!-- /demo -->\n"
SHOWN = 5  # questions
LEFT_OUT = re.compile(r"^ok +(?! |python|torch|port|built-in).*\n", re.MULTILINE)


def shortened(output: str) -> str:
    """The demo's output without this machine's paths, the lesser checks, and all questions but the first few."""
    text = re.sub(r"\S*/sage-demo-\w+", "~/demo", output).replace(str(ROOT) + "/", "")
    before, *asked = LEFT_OUT.sub("", text).split("\nQ: ")
    last, after = asked[-1].split("\n\n", 1)
    asked[-1] = last + "\n"
    more = f"… and {len(asked) - SHOWN} more …\n\n"
    return "\nQ: ".join([before, *asked[:SHOWN]]).strip() + f"\n\n{more}{after.strip()}\n"


def main() -> int:
    """Give the demo's exit code."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # in the order in which a person sees it
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
        check=False,
    )
    print(done.stdout)
    if done.returncode == 0:
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END, 1)[1]
        block = f"```\n{shortened(done.stdout)}```\n"
        README.write_text(f"{before}{BEGIN}{block}{END}{after}", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
