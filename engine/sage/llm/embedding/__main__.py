"""`python -m sage.llm.embedding`."""

import sys

from sage.llm.embedding.server import main

if __name__ == "__main__":
    sys.exit(main())
