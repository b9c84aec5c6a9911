"""`python -m sage.llm.gateway`."""

import sys

from sage.llm.gateway.server import main

if __name__ == "__main__":
    sys.exit(main())
