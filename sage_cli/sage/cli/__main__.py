"""``python -m sage.cli``: the ``sage`` command where its script is not on the path."""

import sys

from sage.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
