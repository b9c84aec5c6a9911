"""Reading weights from safetensors: one file, or shards with an index. One tensor is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sagellm_core.errors import ModelLoadError
from sagellm_core.models.config import read_json


class WeightReader:
    """The tensors of a model folder by their Hugging Face names; a context manager that holds the files open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = ExitStack()
        self._where: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for path in self._paths():
            try:
                handle = self._files.enter_context(safe_open(str(path), framework="pt"))
            except (SafetensorError, OSError) as error:
                raise ModelLoadError(
                    f"Cannot read the weights in {path}",
                    cause=f"{error} (a torn or incomplete file?)",
                    hint="Fetch the file again, or check its size",
                ) from error
            self._where.update(dict.fromkeys(handle.keys(), handle))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        self._where.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def fill(self, target: Tensor, name: str) -> None:
        """Copy a tensor into `target`, converting its type. Raises ModelLoadError on a missing name or wrong shape."""
        if name not in self._where:
            near = get_close_matches(name, list(self._where), n=1)
            raise ModelLoadError(
                f"The weights in {self.folder} have no {name}", cause=f"nearest name: {near[0]}" if near else ""
            )
        tensor = self._where[name].get_tensor(name)
        if tensor.shape != target.shape:
            raise ModelLoadError(
                f"{name} in {self.folder} has the shape {tuple(tensor.shape)}",
                cause=f"config.json asks for {tuple(target.shape)}",
            )
        target.copy_(tensor)

    def stack(
        self, names: Iterable[str], rows: Iterable[int], columns: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Matrices one under the other in a new tensor (sum of rows, columns); `columns=0` stacks vectors."""
        sizes = list(rows)
        shape = (sum(sizes), columns) if columns else (sum(sizes),)
        fused = torch.empty(shape, dtype=dtype, device=device)
        first = 0
        for size, name in zip(sizes, names, strict=True):
            self.fill(fused[first : first + size], name)
            first += size
        return fused

    def _paths(self) -> list[Path]:
        index = self.folder / "model.safetensors.index.json"
        single = self.folder / "model.safetensors"
        if index.is_file():
            where = read_json(index).get("weight_map")
            if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
                raise ModelLoadError(f"Cannot read {index}", cause="its weight_map does not map tensors to files")
            files = sorted(set(where.values()))
            missing = [name for name in files if not (self.folder / name).is_file()]
            if missing or not files:
                raise ModelLoadError(
                    f"{self.folder} lacks {len(missing)} of {len(files)} weight files", cause=", ".join(missing[:3])
                )
            return [self.folder / name for name in files]
        return [single] if single.is_file() else sorted(self.folder.glob("*.safetensors"))
