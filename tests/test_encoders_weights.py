"""Encoder weights out of checkpoints of several kinds, and the refusal of others."""

from pathlib import Path

import pytest
import torch
from torch import nn

from earmark.encoders import SpecCNN9
from earmark.encoders.weights import WeightsError, load_encoder_weights


@pytest.mark.parametrize("prefix", ["module.audio_model.", "audio_model.", "module.backbone.audio.", "backbone.audio."])
@pytest.mark.parametrize("nested", [True, False])
def test_weights_of_every_known_checkpoint_are_read(tmp_path: Path, prefix: str, nested: bool) -> None:
    trained, fresh = SpecCNN9(width=4), SpecCNN9(width=4)
    state = {prefix + key: value for key, value in trained.state_dict().items()}
    state |= {"module.video_model.conv1.0.weight": torch.zeros(3), "mlp.audio_clr.0.weight": torch.zeros(3)}
    torch.save({"model": state, "epoch": 3} if nested else state, tmp_path / "weights.pth")
    load_encoder_weights(fresh, tmp_path / "weights.pth", kind="audio")
    for key, value in trained.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[key], value, rtol=0, atol=0)


def test_weights_of_another_shape_or_an_incomplete_set_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = {f"backbone.audio.{key}": value for key, value in SpecCNN9(width=4).state_dict().items()}
    torch.save({"model": state}, path)
    with pytest.raises(
        WeightsError, match=r"weights\.pth: its audio encoder does not fit this one: (.|\n)*size mismatch"
    ):
        load_encoder_weights(SpecCNN9(width=8), path, kind="audio")
    with pytest.raises(
        WeightsError, match=r"weights\.pth: holds no video encoder \(looked for module\.video_model\.\*"
    ):
        load_encoder_weights(SpecCNN9(width=4), path, kind="video")
    del state["backbone.audio.conv1.0.weight"]
    torch.save({"model": state}, path)
    with pytest.raises(WeightsError, match="Missing key"):
        load_encoder_weights(SpecCNN9(width=4), path, kind="audio")


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="not a checkpoint of tensors and plain data"):
        load_encoder_weights(SpecCNN9(width=4), path, kind="audio")
    torch.save(nn.Linear(2, 2), path)  # a pickled object, which could run code
    with pytest.raises(WeightsError, match="not a checkpoint of tensors and plain data"):
        load_encoder_weights(SpecCNN9(width=4), path, kind="audio")
    torch.save([torch.zeros(2)], path)
    with pytest.raises(WeightsError, match="holds no weights by name"):
        load_encoder_weights(SpecCNN9(width=4), path, kind="audio")
