"""Reading weights by name from safetensors, one file or shards with an index: the part that is wanted, to its place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from sagellm_core.errors import ModelLoadError
from sagellm_core.models.config import read_json
from sagellm_core.models.safetensors_file import SafetensorsFile


@dataclass(slots=True, frozen=True)
class Part:
    """A part of a checkpoint's tensor: `rows` (outputs) and `columns` (inputs) of it; None: all of them.

    `shape` is that of the whole tensor as (outputs, inputs) or (outputs,). `transposed`: it is stored as (inputs,
    outputs).
    """

    name: str
    shape: tuple[int, ...]
    rows: range | None = None
    columns: range | None = None
    transposed: bool = False

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of the part."""
        sizes = [
            whole if taken is None else len(taken)
            for whole, taken in zip(self.shape, (self.rows, self.columns), strict=False)
        ]
        return tuple(sizes)

    def stored(self, *, transposed: bool) -> Part:
        """The same part of a tensor that is stored this way."""
        return replace(self, transposed=transposed)

    def bias(self) -> Part:
        """The bias that belongs to the rows of this matrix."""
        name = f"{self.name.removesuffix('.weight')}.bias"
        return Part(name, self.shape[:1], rows=self.rows)


class WeightReader:
    """The tensors of a model folder by their Hugging Face names; a context manager that holds the files open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = ExitStack()
        self._where: dict[str, SafetensorsFile] = {}

    def __enter__(self) -> Self:
        for path in self._paths():
            try:
                file = SafetensorsFile(path)
            except (ValueError, OSError) as error:
                raise ModelLoadError(
                    f"Cannot read the weights in {path}",
                    cause=f"{error} (a torn or incomplete file?)",
                    hint="Fetch the file again, or check its size",
                ) from error
            self._files.callback(file.close)
            self._where.update(dict.fromkeys(file.entries, file))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        self._where.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._where

    @property
    def names(self) -> list[str]:
        """Of all tensors."""
        return list(self._where)

    def check(self, part: Part) -> None:
        """Raise ModelLoadError unless the tensor is there and has the shape that `part` says."""
        if part.name not in self._where:
            near = get_close_matches(part.name, list(self._where), n=1)
            raise ModelLoadError(
                f"The weights in {self.folder} have no {part.name}", cause=f"nearest name: {near[0]}" if near else ""
            )
        stored = self._where[part.name].entries[part.name].shape
        wanted = part.shape[::-1] if part.transposed else part.shape
        if stored != wanted:
            raise ModelLoadError(
                f"{part.name} in {self.folder} has the shape {stored}", cause=f"config.json asks for {wanted}"
            )

    def fill(self, target: Tensor, part: Part) -> None:
        """Copy a part of a tensor into `target`, converting its type. Of a matrix's rows only those are read.

        Raises ModelLoadError on a missing name, and where the whole has not the right shape.
        """
        self.check(part)
        rows, columns = (part.columns, part.rows) if part.transposed else (part.rows, part.columns)
        taken = slice(None) if columns is None else slice(columns.start, columns.stop)
        turned = target.t() if part.transposed else target
        try:
            self._where[part.name].read(turned, part.name, rows.start if rows else 0, taken)
        except (ValueError, OSError) as error:
            raise ModelLoadError(f"Cannot read {part.name} in {self.folder}", cause=str(error)) from error

    def stack(self, parts: Sequence[Part], dtype: torch.dtype, device: torch.device, *, zeros: int = 0) -> Tensor:
        """Parts one under the other in a new tensor, and below them `zeros` rows of zeros."""
        for part in parts:  # before memory is taken: a wrong configuration may ask for more than there is
            self.check(part)
        sizes = [part.size for part in parts]
        stacked = torch.empty((sum(size[0] for size in sizes) + zeros, *sizes[0][1:]), dtype=dtype, device=device)
        first = 0
        for size, part in zip(sizes, parts, strict=True):
            self.fill(stacked[first : first + size[0]], part)
            first += size[0]
        stacked[first:].zero_()
        return stacked

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
