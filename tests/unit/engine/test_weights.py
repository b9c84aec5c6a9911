"""Reading parts of tensors: the numbers that the safetensors library wrote, and no second copy in memory (SPEC E7)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from sagellm_core.errors import ModelLoadError
from sagellm_core.models.weights import Part, WeightReader

pytestmark = pytest.mark.spec("E7")

ROWS, COLUMNS = 12, 10


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    tensors = {
        "half.weight": torch.randn(ROWS, COLUMNS, generator=draw).bfloat16(),
        "single.weight": torch.randn(ROWS, COLUMNS, generator=draw),
        "single.bias": torch.randn(ROWS, generator=draw),
    }
    folder = tmp_path_factory.mktemp("weights")
    save_file(tensors, folder / "model.safetensors")
    return folder, tensors


def span(whole: int) -> st.SearchStrategy[range | None]:
    ends = st.tuples(st.integers(0, whole), st.integers(0, whole)).map(sorted)
    return st.none() | ends.map(lambda pair: range(pair[0], pair[1]))


@given(
    name=st.sampled_from(["half.weight", "single.weight"]),
    rows=span(ROWS),
    columns=span(COLUMNS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    zeros=st.integers(0, 2),
)
def test_any_part_in_any_type(
    name: str,
    rows: range | None,
    columns: range | None,
    dtype: torch.dtype,
    zeros: int,
    stored: tuple[Path, dict[str, Tensor]],
) -> None:
    folder, tensors = stored
    part = Part(name, (ROWS, COLUMNS), rows=rows, columns=columns)
    turned = Part(name, (COLUMNS, ROWS), rows=columns, columns=rows, transposed=True)
    with WeightReader(folder) as reader:
        found = reader.stack([part, part], dtype, torch.device("cpu"), zeros=zeros)
        across = reader.stack([turned], dtype, torch.device("cpu"))
    wanted = tensors[name][slice(0, ROWS) if rows is None else slice(rows.start, rows.stop)]
    wanted = wanted[:, slice(0, COLUMNS) if columns is None else slice(columns.start, columns.stop)].to(dtype)
    assert torch.equal(found[: 2 * len(wanted)], torch.cat((wanted, wanted)))
    assert found.shape[0] == 2 * len(wanted) + zeros
    assert not found[2 * len(wanted) :].any()
    assert torch.equal(across, wanted.t())


def test_a_bias_goes_with_the_rows_of_its_matrix(stored: tuple[Path, dict[str, Tensor]]) -> None:
    folder, tensors = stored
    bias = Part("single.weight", (ROWS, COLUMNS), rows=range(3, 7), columns=range(2)).bias()
    with WeightReader(folder) as reader:
        assert torch.equal(reader.stack([bias], torch.float32, torch.device("cpu")), tensors["single.bias"][3:7])


def rewrite(folder: Path, change: dict[str, object], body: bytes = b"\0" * 64) -> None:
    head = json.dumps({"x.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32], **change}}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "F3"}, "does not describe x.weight"),
        ({"shape": [2, 5]}, "does not fit its shape"),
        ({"shape": [-2, -4]}, "does not fit its shape"),
        ({"data_offsets": [40, 72]}, "x.weight ends at"),
        ({"data_offsets": [-40, -8]}, "does not fit its shape"),
        ({"data_offsets": "all"}, "does not describe x.weight"),
    ],
)
def test_headers_that_lie(change: dict[str, object], message: str, tmp_path: Path) -> None:
    rewrite(tmp_path, change)
    with pytest.raises(ModelLoadError, match="torn") as caught, WeightReader(tmp_path):
        pass
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\4\0\0\0\0\0\0\0null", b"\2\0\0\0\0\0\0\0{]", b"PK\3\4" * 9])
def test_files_of_something_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelLoadError, match="torn"), WeightReader(tmp_path):
        pass


def test_a_file_cut_short_while_it_is_open(tmp_path: Path) -> None:
    rewrite(tmp_path, {})
    with WeightReader(tmp_path) as reader:
        (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(ModelLoadError, match="ends before its tensors do"):
            reader.stack([Part("x.weight", (2, 4))], torch.float32, torch.device("cpu"))


PEAK = """
import resource, sys
from pathlib import Path
import torch
from sagellm_core.models.weights import Part, WeightReader
torch.zeros(1) + 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = []
with WeightReader(Path(sys.argv[1])) as reader:
    for index in range(6):
        part = Part(f"{index}.weight", (2048, 4096), columns=range(2048) if sys.argv[2] == "part" else None)
        kept.append(reader.stack([part], getattr(torch, sys.argv[3]), torch.device("cpu")))
held = sum(tensor.nbytes for tensor in kept)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / held)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize(("taken", "dtype"), [("whole", "bfloat16"), ("whole", "float32"), ("part", "bfloat16")])
def test_the_peak_is_what_stays(taken: str, dtype: str, tmp_path: Path) -> None:
    tensors = {f"{index}.weight": torch.ones(2048, 4096, dtype=torch.bfloat16) for index in range(6)}
    save_file(tensors, tmp_path / "model.safetensors")
    argv = [sys.executable, "-c", PEAK, str(tmp_path), taken, dtype]
    ratio = float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert ratio < (1.15 if taken == "whole" else 1.5)
