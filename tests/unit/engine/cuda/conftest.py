"""The GPU kernels on a CPU: Triton's interpreter is chosen when the kernels are imported, so they are imported here."""

import os
from importlib.util import find_spec

if find_spec("triton") is not None:
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton.experimental.gluon  # noqa: F401  its standard library is made when it is imported, too

        import sagellm_core.layers.cuda.kernels  # noqa: F401
    finally:
        del os.environ["TRITON_INTERPRET"]
