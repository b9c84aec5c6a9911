"""Where model downloads come from: the Hugging Face hub, or its mirror inside mainland China (SPEC P5).

The region is told by what this machine says of itself (SAGE_NETWORK_REGION, time zone, language), never by asking the
network: so nothing here blocks, online or offline. A HF_ENDPOINT that is set is never overridden.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

__all__ = [
    "HF_HUB",
    "HF_MIRROR",
    "configure_hf_mirror",
    "detect_china_mainland",
    "ensure_hf_mirror_configured",
    "get_hf_endpoint",
    "get_network_region",
]

HF_HUB = "https://huggingface.co"
HF_MIRROR = "https://hf-mirror.com"
CACHE_S = 24 * 3600.0
_ZONES = frozenset(
    {"Asia/Shanghai", "Asia/Urumqi", "Asia/Chongqing", "Asia/Chungking", "Asia/Harbin", "Asia/Kashgar", "PRC"}
)


def get_network_region(*, refresh: bool = False) -> str:
    """ "cn" for mainland China, else "global". SAGE_NETWORK_REGION decides when it names one of the two; otherwise the
    answer is kept on disk for a day (`refresh` asks anew)."""
    told = os.environ.get("SAGE_NETWORK_REGION", "").strip().lower()
    if told in ("cn", "global"):
        return told
    cache = _cache_file()
    region = None if refresh else _cached(cache)
    if region is None:
        region = "cn" if _looks_like_mainland() else "global"
        _remember(cache, region)
    return region


def detect_china_mainland(*, refresh: bool = False) -> bool:
    """Whether this machine seems to stand in mainland China. Answers at once."""
    return get_network_region(refresh=refresh) == "cn"


def get_hf_endpoint() -> str:
    """Where models are downloaded from: $HF_ENDPOINT, else the mirror or the hub by region."""
    return os.environ.get("HF_ENDPOINT", "").strip() or (HF_MIRROR if detect_china_mainland() else HF_HUB)


def configure_hf_mirror(endpoint: str = HF_MIRROR, environ: MutableMapping[str, str] | None = None) -> bool:
    """Set HF_ENDPOINT for this process and its children; False, and nothing changed, when it is set already."""
    target = os.environ if environ is None else environ
    if target.get("HF_ENDPOINT", "").strip():
        return False
    target["HF_ENDPOINT"] = endpoint
    return True


def ensure_hf_mirror_configured() -> bool:
    """In mainland China: use the mirror unless HF_ENDPOINT is set. True when this call set it."""
    return detect_china_mainland() and configure_hf_mirror()


def _looks_like_mainland() -> bool:
    zone = _time_zone()
    if zone:
        return zone in _ZONES
    language = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return time.timezone == -8 * 3600 and language.startswith("zh_CN")


def _time_zone() -> str:
    """The name of the time zone, as "Asia/Shanghai"; empty when the machine does not name one."""
    named = os.environ.get("TZ", "").lstrip(":")
    if "/" in named or named == "PRC":
        return named.rpartition("zoneinfo/")[2]
    if named:
        return ""
    try:
        target = os.readlink("/etc/localtime")  # noqa: PTH115 - the text is wanted, not a path
    except OSError:
        target = ""
    if "zoneinfo/" in target:
        return target.rpartition("zoneinfo/")[2]
    try:
        return Path("/etc/timezone").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cache_file() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "sage" / "network-region"
    except RuntimeError:  # there is no home directory
        return None


def _cached(path: Path | None) -> str | None:
    try:
        if path is None or time.time() - path.stat().st_mtime > CACHE_S:
            return None
        region = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return region if region in ("cn", "global") else None


def _remember(path: Path | None, region: str) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(region, encoding="ascii")
    except OSError:  # a read-only home: then it is worked out each time
        return
