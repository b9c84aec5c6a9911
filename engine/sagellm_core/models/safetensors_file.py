"""Parts of tensors from a safetensors file, straight into the memory where they stay.

The safetensors library either maps the file, and then every page that was read counts beside the copy (a peak of twice
the weights), or reads whole tensors where a slice is asked for (20 times slower by slices). The format is a length, a
JSON header and the bytes: https://huggingface.co/docs/safetensors/index#format.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MOST_HEADER = 100 << 20
_STAGING = 16 << 20
_DTYPES = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
}


@dataclass(slots=True, frozen=True)
class Entry:
    """A tensor in the file: `begin` is the offset of its first byte."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int


class SafetensorsFile:
    """One open file. Raises ValueError when it is torn or no safetensors file, OSError when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        try:
            self.entries = self._header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._file)

    def read(self, target: Tensor, name: str, first: int = 0, columns: slice = slice(None)) -> None:
        """Copy rows `first`, `first + 1`, … of a matrix (or of a vector) into `target`, converting their type.

        `target` has as many rows as are wanted; `columns` of each row are taken.
        """
        entry = self.entries[name]
        width = entry.shape[1] if len(entry.shape) > 1 else 1
        row = width * entry.dtype.itemsize
        begin = entry.begin + first * row
        whole = columns == slice(None)
        if whole and target.dtype is entry.dtype and target.is_contiguous() and target.device.type == "cpu":
            self._fill(target, begin)
            return
        rows = target.shape[0]
        step = max(1, min(rows, _STAGING // row))
        staging = torch.empty((step, *entry.shape[1:]), dtype=entry.dtype)
        for at in range(0, rows, step):
            some = staging[: min(step, rows - at)]
            self._fill(some, begin + at * row)
            target[at : at + step].copy_(some if whole else some[:, columns])

    def _fill(self, target: Tensor, begin: int) -> None:
        """Bytes of the file, from `begin` on, into a contiguous CPU tensor."""
        if not target.numel():
            return
        memory = target.reshape(-1).view(torch.uint8).numpy().data
        done = 0
        while done < len(memory):
            count = os.preadv(self._file, [memory[done:]], begin + done)
            if not count:
                raise ValueError(f"{self.path.name} ends before its tensors do")
            done += count

    def _header(self) -> dict[str, Entry]:
        size = os.fstat(self._file).st_size
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER):
            raise ValueError("its header is longer than the file")
        header = json.loads(os.pread(self._file, length, 8))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        header.pop("__metadata__", None)
        return {name: _entry(name, about, 8 + length, size) for name, about in header.items()}


def _entry(name: str, about: Any, data: int, size: int) -> Entry:
    try:
        dtype = _DTYPES[about["dtype"]]
        shape = tuple(int(side) for side in about["shape"])
        begin, end = (data + int(offset) for offset in about["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header does not describe {name}") from error
    elements = 1
    for side in shape:
        elements *= side
    if min((begin - data, *shape)) < 0 or end - begin != elements * dtype.itemsize:
        raise ValueError(f"its header gives {name} a size that does not fit its shape")
    if end > size:
        raise ValueError(f"it has {size} bytes, but {name} ends at {end}")
    return Entry(dtype, shape, begin)
