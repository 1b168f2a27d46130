"""What a file of torch claims, read without torch: the same as torch reads, or refused before torch reads it."""

import subprocess
import sys
import traceback
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from earmark.encoders.pickle_outline import ArrayOutline, TensorOutline
from earmark.encoders.torch_file import read_torch_file
from earmark.encoders.torch_outline import TorchFileError, read_outline
from tests.helpers.tiny_run import TinyModel


def everything() -> dict[str, Any]:
    """Return all that honest files hold, as far as we have seen."""
    grid = torch.arange(24.0).reshape(2, 3, 4)
    model = TinyModel()
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return {
        "model": model.state_dict(),
        "with gradients": model.state_dict(keep_vars=True),
        "optimizer": optimizer.state_dict(),
        "types": [torch.zeros(2, dtype=getattr(torch, name)) for name in TYPES],
        "slice": grid[:, 1:, ::2],
        "transposed": grid.transpose(0, 2),
        "channels last": torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "same memory": [grid, grid[0], grid.flatten()],
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(3),
        "one side expanded to one": torch.zeros(3).expand(1, 3),
        "parameter": nn.Parameter(torch.ones(2)),
        "arrays": [np.arange(3), np.zeros((2, 2), np.float32), np.array([True]), np.float64(2.5), np.int64(3)],
        "collections": [OrderedDict(a=1), Counter("aab"), {1, 2}, (1, (2, None)), b"bytes", bytearray(b"more"), 1j],
        "other": [torch.Size([2, 3]), torch.device("cuda", 0), torch.float32, 2**70, 1.5, True, "ü", -1],
    }


TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")


def compare(outline: Any, loaded: Any, name: str = "") -> int:
    """Compare what was read without torch with what torch read, and return how many tensors were among it."""
    if isinstance(loaded, torch.Tensor):
        assert isinstance(outline, TensorOutline), name
        assert (outline.dtype, outline.shape) == (str(loaded.dtype).removeprefix("torch."), tuple(loaded.shape)), name
        assert outline.stride == loaded.stride(), name
        return 1
    if isinstance(loaded, dict) and not isinstance(loaded, Counter):
        assert outline.keys() == loaded.keys(), name
        return sum(compare(outline[key], loaded[key], f"{name}.{key}") for key in loaded)
    if isinstance(loaded, list | tuple) and not isinstance(loaded, torch.Size):
        assert len(outline) == len(loaded), name
        return sum(compare(*pair, f"{name}[{n}]") for n, pair in enumerate(zip(outline, loaded, strict=True)))
    if isinstance(loaded, np.ndarray):
        assert outline == ArrayOutline(complete=True), name
    elif not isinstance(loaded, torch.device | torch.dtype):
        assert outline == loaded, name
    return 0


@pytest.mark.parametrize("zip_format", [True, False])
def test_all_that_honest_files_hold_is_read_as_torch_reads_it(tmp_path: Path, zip_format: bool) -> None:
    path = tmp_path / "state.pt"
    saved = everything()
    torch.save(saved, path, _use_new_zipfile_serialization=zip_format)
    loaded = read_torch_file(path)
    assert compare(read_outline(path), loaded) == compare(read_outline(path), saved) > 60
    assert torch.equal(loaded["slice"], saved["slice"])
    assert loaded["arrays"][0].tolist() == [0, 1, 2]


def test_the_outline_needs_no_torch(tmp_path: Path) -> None:
    torch.save(
        {"format_version": 1, "model": {"weight": torch.zeros(2, 3)}, "position": {"step": 7}}, tmp_path / "a.pt"
    )
    script = (
        "import sys; from earmark.encoders.torch_outline import read_outline; content = read_outline(sys.argv[1]); "
        "print(content['position'], content['model']['weight'].shape); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.pt"], capture_output=True, text=True, check=True)
    assert done.stdout == "{'step': 7} (2, 3)\n"


@pytest.mark.parametrize("zip_format", [True, False])
def test_what_torch_advises_is_not_repeated_anywhere(tmp_path: Path, zip_format: bool) -> None:
    """Not in the chain of causes either, which Python prints below an error that nobody caught."""
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(TorchFileError) as raised:
        read_torch_file(path)
    shown = "".join(traceback.format_exception(raised.value))
    assert "torch.nn.modules.linear.Linear" in str(raised.value)
    assert "weights_only" not in shown
    assert "add_safe_globals" not in shown


def test_a_tensor_in_the_midst_of_other_data_is_named_by_its_place(tmp_path: Path) -> None:
    torch.save({"criterion": {"memory": [1, (torch.zeros(1).expand(9),)]}, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(TorchFileError, match=r"a\.pth: criterion\.memory\.1\.0: a tensor that is expanded"):
        read_torch_file(tmp_path / "a.pth")


def test_a_file_that_was_packed_again_is_still_read(tmp_path: Path) -> None:
    import zipfile

    torch.save({"weight": torch.arange(1000.0)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as archive,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as again,
    ):
        for entry in archive.infolist():
            again.writestr(entry.filename, archive.read(entry))
    assert (tmp_path / "b.pt").stat().st_size < (tmp_path / "a.pt").stat().st_size
    assert torch.equal(read_torch_file(tmp_path / "b.pt")["weight"], torch.arange(1000.0))
