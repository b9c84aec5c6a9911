"""What importing costs, and what packages say that they have (SPEC X1, E1)."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "pydantic", "starlette", "uvicorn", "tokenizers", "jinja2")
PACKAGES = [
    "sagellm_protocol",
    "sagellm_core",
    "sagellm_core.backends",
    "sagellm_core.comm",
    "sagellm_core.decoding",
    "sagellm_core.engine_core",
    "sagellm_core.executor",
    "sagellm_core.kv_transfer",
    "sagellm_core.layers",
    "sagellm_core.models",
    "sagellm_core.nodes",
    "sagellm_core.server",
    "sagellm_core.text",
    "sagellm_core.worker",
]


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_complete(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__)
    assert all(getattr(package, each) is not None for each in package.__all__)
    with pytest.raises(AttributeError):
        _ = package.nothing_of_this_name


@pytest.mark.parametrize(
    "code", ["import sagellm_core", "import sagellm_protocol", "import sagellm_core.engine_server"]
)
def test_importing_a_package_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_scheduling_and_routing_never_load_torch() -> None:
    """Every module of the engine core, and all that a process needs which only passes requests on."""
    code = (
        "import pkgutil, importlib\nfrom sagellm_core import engine_core\n"
        "for each in pkgutil.iter_modules(engine_core.__path__):\n"
        "    importlib.import_module(f'{engine_core.__name__}.{each.name}')\n"
        "import sagellm_core.runtime, sagellm_core.nodes.router, sagellm_core.server.app, sagellm_core.demo"
    )
    assert not loaded_by(code) & {"torch", "transformers"}


def test_without_the_extra_the_message_says_what_to_install() -> None:
    """A meta-path finder that hides tokenizers stands for an environment without the extra."""
    hide = (
        "import importlib.abc\nclass Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'tokenizers': raise ModuleNotFoundError(name, name='tokenizers')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "try:\n    from sagellm_core import LLMEngine\nexcept ImportError as error: print(str(error).split()[-1])"
    )
    assert loaded_by(hide) >= {"'sage-stack[engine]'"}


def test_an_engine_object_does_not_load_torch() -> None:
    code = "from sagellm_core import LLMEngine, LLMEngineConfig\nLLMEngine(LLMEngineConfig(model_path='m'))"
    assert not loaded_by(code) & {"torch", "transformers", "starlette"}


@pytest.mark.slow
def test_a_running_engine_never_loads_transformers() -> None:
    code = (
        "import asyncio\nfrom sagellm_core import EngineFactory\n"
        "async def main():\n    engine = EngineFactory().create('cpu')\n    await engine.start()\n"
        "    await engine.generate('hi', max_tokens=2)\n    await engine.stop()\nasyncio.run(main())"
    )
    loaded = loaded_by(code)
    assert "torch" in loaded
    assert "transformers" not in loaded
