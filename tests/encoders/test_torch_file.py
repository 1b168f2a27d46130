"""The reader of torch's files: what it returns, and which file it refuses for which reason."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark.encoders import SpecCNN9
from earmark.encoders.torch_file import read_torch_file
from earmark.encoders.torch_outline import DamagedTorchFileError, TorchFileError, read_outline
from earmark.encoders.weights import load_encoder_weights
from earmark.training.checkpoint import load_checkpoint, save_checkpoint


class Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("malicious",)


@pytest.mark.parametrize("zip_format", [True, False])
def test_tensors_arrays_and_plain_data_come_back(tmp_path: Path, zip_format: bool) -> None:
    path = tmp_path / "state.pt"
    saved = {"weight": torch.arange(5.0), "order": np.arange(3), "loss": np.float32(1.5), "names": ["a", ("b", None)]}
    torch.save(saved, path, _use_new_zipfile_serialization=zip_format)
    state = read_torch_file(path)
    assert torch.equal(state["weight"], torch.arange(5.0))
    assert state["order"].tolist() == [0, 1, 2]
    assert (state["loss"], state["names"]) == (1.5, ["a", ("b", None)])


@pytest.mark.parametrize("read", [read_torch_file, read_outline])
def test_code_is_refused_and_not_run(tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Malicious()}, "state.pt")
    with pytest.raises(TorchFileError, match=r"^state\.pt: holds more than tensors and plain data") as raised:
        read("state.pt")
    assert not isinstance(raised.value, DamagedTorchFileError)
    assert raised.value.path == Path("state.pt")
    assert not Path("malicious").exists()


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("cut", [0, 10, 500, -1])
def test_a_file_that_is_cut_off_is_damaged(tmp_path: Path, cut: int, zip_format: bool) -> None:
    path = tmp_path / "state.pt"
    torch.save({"weight": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=zip_format)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedTorchFileError, match=rf"^{path}: damaged"):
        read_torch_file(path)


def test_a_flipped_bit_is_noticed_where_the_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"weight": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1.0, 20.0).numpy().tobytes()) + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedTorchFileError, match=r"damaged \(the checksum of \S+ is wrong\)"):
        read_torch_file(path)
    assert read_outline(path)["weight"].shape == (1000,)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file"):
        read_torch_file(tmp_path / "none.pt")


def test_weights_come_from_a_state_that_was_read_before_and_the_file_is_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_0001.pt"
    trained, fresh = SpecCNN9(width=4), SpecCNN9(width=4)
    model = {f"backbone.audio.{name}": value for name, value in trained.state_dict().items()}
    save_checkpoint(path, {"model": model, "ema": None, "config": None})
    state = load_checkpoint(path)
    read = str(load_encoder_weights(SpecCNN9(width=4), path, kind="audio"))
    path.unlink()
    assert str(load_encoder_weights(fresh, path, kind="audio", state=state)) == read
    assert fresh.origin == read
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in trained.state_dict().items())
