"""Who is measured: ours and each peer, in which environment, on which file, in which type."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine.models import MEDIUM, SMALL, Shape, folder_of
from benchmarks.environments import OURS, EnvironmentUnavailableError, cache_folder, python_of

_CONVERT = Path(__file__).parent / "peers" / "convert.py"
SIXTEEN_BITS = "16 bits or more"
EIGHT_BITS = "8 bits"


@dataclass(frozen=True, slots=True)
class Side:
    """One competitor. `converter` names the peer's format, empty for Hugging Face folders; `bits` is its class.

    `only`: names of the model shapes that it is measured on. `narrow`: shapes on which it sits out 16 at once, where it
    would take minutes.
    """

    name: str
    environment: str
    script: str
    precision: str
    bits: str = SIXTEEN_BITS
    converter: str = ""
    only: tuple[str, ...] = (SMALL.name, MEDIUM.name)
    narrow: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        return self.script == "ours"


_BIG = (MEDIUM.name,)
SIDES = (
    Side("ours", OURS, "ours", "auto"),
    Side("ours int8", OURS, "ours", "int8", EIGHT_BITS),
    Side("transformers", OURS, "with_transformers", "bf16"),
    Side("transformers fp32", OURS, "with_transformers", "fp32", only=(SMALL.name,)),
    Side("transformers continuous", OURS, "with_transformers", "bf16-continuous", only=(SMALL.name,)),
    Side("llama.cpp bf16", "llamacpp", "with_llamacpp", "bf16", converter="gguf"),
    Side("llama.cpp q8_0", "llamacpp", "with_llamacpp", "q8_0", EIGHT_BITS, "gguf", narrow=_BIG),
    Side("OpenVINO bf16", "openvino", "with_openvino", "bf16", converter="openvino"),
    Side("OpenVINO int8", "openvino", "with_openvino", "int8", EIGHT_BITS, "openvino"),
    Side("CTranslate2 fp32", "ctranslate2", "with_ctranslate2", "float32", converter="ctranslate2", narrow=_BIG),
    Side("CTranslate2 int8", "ctranslate2", "with_ctranslate2", "int8", EIGHT_BITS, "ctranslate2", narrow=_BIG),
)


def model_for(side: Side, shape: Shape) -> Path:
    """The model in this side's format, converted first where it is not there. Raises EnvironmentUnavailableError."""
    folder = folder_of(shape, cache_folder())
    if not side.converter:
        return folder
    target = cache_folder() / "converted" / shape.name / f"{side.converter}-{side.precision}"
    if not target.exists():
        print(f"converting {shape.name} for {side.name}", file=sys.stderr, flush=True)
        command = [str(python_of("convert")), str(_CONVERT), side.converter, str(folder), str(target), side.precision]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise EnvironmentUnavailableError(f"the model cannot be converted: {lines[-1][:300]}")
    return target
