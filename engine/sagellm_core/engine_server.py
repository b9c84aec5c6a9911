"""The engine server: `sage-engine`, `python -m sagellm_core.engine_server`, or `engine_server_app` under uvicorn.

The port is bound and the model's folder is checked before anything heavy is imported, so what can be wrong on a
command line is said at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError, SageError
from sage.common.listening import listen, report

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

    from sagellm_core.config import LLMEngineConfig

    engine_server_app: Starlette

__all__ = ["engine_server_app", "main"]

MODEL_VARIABLE = "SAGE_ENGINE_MODEL"
DRAIN_SECONDS = 6.0
_OPTIONS = {
    "backend_type": "--backend",
    "enable_prefix_cache": "--no-prefix-cache",
    "kv_cache_num_blocks": "--kv-cache-blocks",
    "lora_adapters": "--lora",
    "max_waiting_requests": "--max-waiting",
    "model_path": "--model",
    "num_threads": "--threads",
}
"""The options that are not called like their field of LLMEngineConfig."""


def __getattr__(name: str) -> Any:
    """`engine_server_app`: made on first use, of the model in $SAGE_ENGINE_MODEL or the built-in one."""
    if name != "engine_server_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sagellm_core.api_keys import read_keys
    from sagellm_core.config import LLMEngineConfig
    from sagellm_core.models.locate import DEFAULT_MODEL
    from sagellm_core.server.app import create_app

    config = LLMEngineConfig(model_path=os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL)
    app = create_app(config, api_keys=read_keys([], None))
    globals()[name] = app
    return app


def main(argv: list[str] | None = None) -> int:
    """Serve until TERM or Ctrl-C. Returns the exit code: 0, 1 with one clear message, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    try:
        return _serve(arguments)
    except SageError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    from sage.common.config.ports import SagePorts
    from sagellm_core.api_keys import KEY_VARIABLE

    parser = argparse.ArgumentParser(prog="sage-engine", description="Serve one model over OpenAI's HTTP API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=SagePorts.LLM_DEFAULT, help="default: %(default)s; 0: any free")
    parser.add_argument(
        "--model",
        default=os.environ.get(MODEL_VARIABLE) or "sage-builtin",
        help=f"folder, or Hugging Face name in the local cache (default: ${MODEL_VARIABLE}, else the built-in model)",
    )
    parser.add_argument("--served-model-name", help="the id that /v1/models shows (default: what --model says)")
    parser.add_argument("--backend", default="auto", help="auto, cpu, cuda, or one that a package adds")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "float16", "bfloat16"])
    parser.add_argument("--max-batch-size", type=int, default=32, help="sequences a step (default: %(default)s)")
    parser.add_argument("--max-model-len", type=int, default=4096, help="tokens of prompt plus answer, at most")
    parser.add_argument(
        "--max-waiting", type=int, default=256, help="queued requests before 429 (default: %(default)s)"
    )
    parser.add_argument("--kv-cache-blocks", type=int, help="size of the KV cache (default: from the memory there is)")
    parser.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"let in only who knows a key; better kept in ${KEY_VARIABLE} or a file, which others do not see in ps",
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="the keys, one a line")
    parser.add_argument("--prefill-nodes", type=int, default=0, metavar="N", help="processes that only compute prompts")
    parser.add_argument("--decode-nodes", type=int, default=0, metavar="N", help="processes that answer, beside those")
    _add_engine_options(parser)
    parser.add_argument("--threads", type=int, help="threads for the model on a CPU (default: by the model's size)")
    parser.add_argument("--log-level", default="INFO", type=str.upper, choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    """What else an engine can be told; each is a field of LLMEngineConfig."""
    add = parser.add_argument
    add("--tensor-parallel-size", type=int, default=1, metavar="N", help="processes that share every matrix")
    add("--pipeline-parallel-size", type=int, default=1, metavar="N", help="stages that share the layers")
    add("--quantization", choices=["int8", "int4", "fp8"], help="of the weights (default: none)")
    add("--num-speculative-tokens", type=int, default=0, metavar="N", help="guess so many tokens a step (default: 0)")
    add("--speculative-model", metavar="MODEL", help="a small model that guesses (default: the text so far)")
    add("--lora", action="append", default=[], metavar="NAME=FOLDER", help="a LoRA adapter; may be repeated")
    add("--pooling-strategy", default="mean", choices=["mean", "cls", "last"], help="of vectors (default: mean)")
    add("--no-prefix-cache", action="store_true", help="compute what prompts have in common anew each time")


def _adapters(given: list[str]) -> dict[str, str]:
    """Folders by name. Raises ConfigError."""
    adapters = dict(each.partition("=")[::2] for each in given)
    if not all(name and folder for name, folder in adapters.items()) or len(adapters) < len(given):
        raise ConfigError("--lora is wrong", cause="NAME=FOLDER, each name once", hint="sage-engine --help")
    return adapters


def _serve(arguments: argparse.Namespace) -> int:
    from sage.common.logs import configure_logging
    from sagellm_core.api_keys import read_keys

    configure_logging("engine", level=arguments.log_level)
    _check_installed()
    sock = listen(arguments.host, arguments.port)
    with sock:
        config = _engine_config(arguments)
        keys = read_keys(arguments.api_key, arguments.api_key_file)
        _check_model(config)
        failure = _run(config, sock, keys)
    if failure is None:
        return 0
    raise failure if isinstance(failure, SageError) else SageError("The engine did not start", cause=str(failure))


def _check_installed() -> None:
    """Raise ConfigError when the libraries of the extra `engine` are not there."""
    from importlib.util import find_spec

    needed = ("torch", "tokenizers", "safetensors", "jinja2", "starlette", "uvicorn")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "The LLM engine is not installed",
            cause=f"missing: {', '.join(missing)}",
            hint="pip install 'sage-stack[engine]'",
        )


def _engine_config(arguments: argparse.Namespace) -> LLMEngineConfig:
    from pydantic import ValidationError

    from sagellm_core.config import LLMEngineConfig

    try:
        return LLMEngineConfig(
            model_path=arguments.model,
            served_model_name=arguments.served_model_name,
            backend_type=arguments.backend,
            dtype=arguments.dtype,
            max_batch_size=arguments.max_batch_size,
            max_model_len=arguments.max_model_len,
            max_waiting_requests=arguments.max_waiting,
            kv_cache_num_blocks=arguments.kv_cache_blocks,
            num_threads=arguments.threads,
            quantization=arguments.quantization,
            num_speculative_tokens=arguments.num_speculative_tokens,
            speculative_model=arguments.speculative_model,
            lora_adapters=_adapters(arguments.lora),
            pooling_strategy=arguments.pooling_strategy,
            enable_prefix_cache=not arguments.no_prefix_cache,
            tensor_parallel_size=arguments.tensor_parallel_size,
            pipeline_parallel_size=arguments.pipeline_parallel_size,
            prefill_nodes=arguments.prefill_nodes,
            decode_nodes=arguments.decode_nodes,
        )
    except ValidationError as error:
        first = error.errors()[0]
        wrong = _option(str(first["loc"][0])) if first["loc"] else "The command line"
        cause = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{wrong} is wrong", cause=cause, hint="sage-engine --help") from error


def _option(field: str) -> str:
    """The option that sets a field of LLMEngineConfig."""
    return _OPTIONS.get(field) or "--" + field.replace("_", "-")


def _check_model(config: LLMEngineConfig) -> None:
    """What can be told without loading anything. Raises EngineError."""
    from sagellm_core.backends.base import check_kind
    from sagellm_core.models.config import read_model_config
    from sagellm_core.models.locate import locate_model

    check_kind(config.backend_type)
    read_model_config(locate_model(config.model_path))


def _run(config: LLMEngineConfig, sock: socket.socket, keys: list[str]) -> Exception | None:
    """Serve until told to stop; why the model did not load, if it did not."""
    import logging

    from sagellm_core.server.app import create_app
    from sagellm_core.server.run import DrainingServer, server_config
    from sagellm_core.server.service import EngineService

    service = EngineService(config)
    server = DrainingServer(
        server_config(create_app(config, service, api_keys=keys), DRAIN_SECONDS), service, DRAIN_SECONDS
    )
    service.on_failure = lambda _: setattr(server, "should_exit", True)
    service.on_ready = leave_to_stay
    host, port = sock.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logging.getLogger("sagellm_core.server").info("%s serves %s; loading", url, service.model_id)
    # uvicorn takes TERM over, and raises it again when it has drained: then it has nothing left to do.
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    server.run(sockets=[sock])
    return service.failure


def leave_to_stay() -> None:
    """What is there now stays until the end: looking through it for garbage would hold up steps again and again."""
    import gc

    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
