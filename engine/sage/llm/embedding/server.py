"""`python -m sage.llm.embedding --host H --port P [--model hash|hf:PATH|PATH]`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from sage.common.config.ports import SagePorts
from sage.common.errors import SageError
from sage.common.listening import listen, report
from sage.common.logs import configure_logging, get_logger
from sage.llm.serving import serve

_log = get_logger("sage.llm.embedding")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM (0) or Ctrl-C (130); 1 where the port is taken or the model is not there."""
    options = _parser().parse_args(argv)
    configure_logging("embedding", level=options.log_level)
    started = time.perf_counter()
    try:
        with listen(options.host, options.port) as sock:
            from sage.llm.embedding.app import create_app
            from sage.llm.embedding.models import load

            served = load(options.model, options.name)
            app = create_app(served.embedder, served.name, aliases=served.aliases)
            _log.info(
                "embedding server starts",
                model=served.name,
                dimension=served.embedder.get_dim(),
                port=sock.getsockname()[1],
                seconds=round(time.perf_counter() - started, 3),
            )
            serve(app, sock)
            _log.info("embedding server stopped")
    except SageError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(prog="python -m sage.llm.embedding", description="Serve /v1/embeddings.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=SagePorts.EMBEDDING_DEFAULT)
    parser.add_argument("--model", default="hash", help="hash, hf:PATH, or the path of a Hugging Face folder")
    parser.add_argument("--name", default=None, help="the name clients use for the model")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser
