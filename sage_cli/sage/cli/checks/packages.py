"""What is installed: torch, the extras, models in the cache. Looks, but imports nothing of it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from sage.cli.checks.check import Check

DISTRIBUTION = "sage-stack"
_NOT_FOR_USERS = {"all", "dev", "test-models"}
_PURPOSE = {"engine": "serving language models", "hf": "embedding models from Hugging Face folders"}


def version_of(distribution: str) -> str | None:
    """The installed version; None where it is missing."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def torch() -> Check:
    """Needed by the engine only; flow, gateway, hash embeddings and dashboard do without."""
    found = version_of("torch")
    if found is None:
        return Check("torch", "warn", "not installed; the LLM engine needs it", f'pip install "{DISTRIBUTION}[engine]"')
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < (2, 6):
        return Check("torch", "warn", f"{found}; the engine needs 2.6 or newer", 'pip install --upgrade "torch>=2.6"')
    return Check("torch", "ok", found)


def extras() -> list[Check]:
    """One row for each optional extra that users choose: complete, or what is missing."""
    try:
        needs = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        step = f'pip install "{DISTRIBUTION}[all]"'
        return [Check("extras", "warn", "SAGE runs from its source folder and is not installed", step)]
    named: dict[str, list[str]] = {}
    for need in needs:
        marker = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", need)
        package = re.match(r"[\w.-]+", need)
        if marker and package and marker[1] not in _NOT_FOR_USERS:
            named.setdefault(marker[1], []).append(package[0])
    return [_extra(name, packages) for name, packages in sorted(named.items())]


def builtin_model() -> Check:
    """The model that comes with SAGE: its files are there."""
    from sagellm_core import builtin

    folder = builtin.path()
    weights = list(folder.glob("*.safetensors"))
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    missing += [] if weights else ["*.safetensors"]
    if missing:
        step = f"Install SAGE again:  pip install --force-reinstall {DISTRIBUTION}"
        return Check("built-in model", "fail", f"{', '.join(missing)} not in {folder}", step)
    size = sum(path.stat().st_size for path in weights)
    return Check("built-in model", "ok", f"{builtin.MODEL_ID}, {size / 1e6:.1f} MB")


def model_cache() -> Check:
    """What Hugging Face has downloaded on this machine."""
    from sage.cli.stack.models import cached_models, hub_cache

    names = sorted(name for name, _ in cached_models())
    place = hub_cache()
    if not names:
        return Check("model cache", "ok", f"empty ({place}); the built-in model needs no download")
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return Check("model cache", "ok", f"{shown} ({place})")


def _extra(name: str, packages: list[str]) -> Check:
    missing = [package for package in packages if package != DISTRIBUTION and version_of(package) is None]
    purpose = _PURPOSE.get(name, "optional")
    if not missing:
        return Check(f"extra {name}", "ok", f"installed ({purpose})")
    detail = f"{purpose}: {', '.join(missing)} not installed"
    return Check(f"extra {name}", "warn", detail, f'pip install "{DISTRIBUTION}[{name}]"')
