"""`python -m sage.llm.gateway --host H --port P [--home .sage] [--engine URL]... [--embedding URL]...`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from sage.common.config.ports import SagePorts
from sage.common.errors import ConfigError, SageError
from sage.common.home import SageHome
from sage.common.listening import listen, report
from sage.common.logs import configure_logging, get_logger
from sage.llm.control_plane.strategies.registry import policy_names
from sage.llm.gateway.settings import GatewaySettings
from sage.llm.serving import serve

_log = get_logger("sage.llm.gateway")

KEY_VARIABLE = "SAGE_ENGINE_API_KEY"
"""Where the engines take their keys from too; the first one is the gateway's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM (0) or Ctrl-C (130); 1 where the port is taken or an option makes no sense."""
    options = _parser().parse_args(argv)
    configure_logging("gateway", level=options.log_level)
    started = time.perf_counter()
    try:
        settings = _settings(options)
        with listen(options.host, options.port) as sock:
            from sage.llm.gateway.app import create_app

            app = create_app(settings)
            _log.info(
                "gateway starts",
                port=sock.getsockname()[1],
                engines=",".join(settings.engines + settings.embeddings) or "daemon.json",
                seconds=round(time.perf_counter() - started, 3),
            )
            serve(app, sock)
            _log.info("gateway stopped")
    except SageError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130
    return 0


def _settings(options: argparse.Namespace) -> GatewaySettings:
    """Return the settings that the options stand for; raises ConfigError for an engine URL that is none."""
    for url in (*options.engine, *options.embedding):
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{url!r} is no engine URL",
                cause="It must start with http:// or https://.",
                hint="--engine http://HOST:PORT",
            )
    return GatewaySettings(
        home=SageHome(Path(options.home)) if options.home else None,
        engines=tuple(options.engine),
        embeddings=tuple(options.embedding),
        wait_seconds=options.wait_seconds,
        max_running=options.max_running,
        max_waiting=options.max_waiting,
        policy=options.policy,
        engine_key=os.environ.get(KEY_VARIABLE, "").split(",")[0].strip(),
    )


def _parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    usual = GatewaySettings()
    parser = argparse.ArgumentParser(prog="python -m sage.llm.gateway", description="One address for all models.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=SagePorts.GATEWAY_DEFAULT)
    parser.add_argument("--home", default=None, help="the .sage folder whose daemons are served")
    parser.add_argument("--engine", action="append", default=[], metavar="URL", help="an LLM engine; may be repeated")
    parser.add_argument("--embedding", action="append", default=[], metavar="URL", help="an embedding server; as above")
    add = parser.add_argument
    add("--wait-seconds", type=float, default=usual.wait_seconds, help="how long to wait for an engine that restarts")
    add("--max-running", type=int, default=usual.max_running, help="requests an engine works on at once")
    add("--max-waiting", type=int, default=usual.max_waiting, help="requests that wait for an engine, then 429")
    add("--policy", default=usual.policy, metavar="NAME", help=f"who goes next: {', '.join(policy_names())}")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser
