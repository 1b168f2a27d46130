"""Which encoder weights are of, told by their names and shapes."""

import pytest
import torch

from earmark.encoders import new_encoder
from earmark.encoders.recognition import recognise


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("avid_r2plus1d_10", {"width": 4}),
        ("avid_r2plus1d_18", {"width": 6}),
        ("avid_r2plus1d_34", {"width": 2}),
        ("avid_spec_cnn_9", {"width": 4}),
        ("cnn6", {"num_mels": 80}),
        ("cnn10", {"num_mels": 64}),
        ("cnn14", {"num_mels": 64}),
    ],
)
def test_every_encoder_and_its_options_are_recognised(name: str, options: dict[str, int]) -> None:
    assert recognise(new_encoder(name, **options).state_dict()) == (name, options)


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [  # as torchvision names and shapes them
        ("r2plus1d_18", "layer1.0.conv1.0.3.weight", (64, 144, 3, 1, 1)),
        ("r3d_18", "layer2.0.conv1.0.weight", (128, 64, 3, 3, 3)),
        ("mc3_18", "layer2.0.conv1.0.weight", (128, 64, 1, 3, 3)),
        ("s3d", "features.0.0.0.weight", (64, 3, 1, 7, 7)),
        ("mvit_v2_s", "pos_encoding.class_token", (96,)),
        ("swin3d_t", "patch_embed.proj.weight", (96, 3, 2, 4, 4)),
    ],
)
def test_those_of_torchvision_are_recognised(name: str, tensor: str, shape: tuple[int, ...]) -> None:
    assert recognise({tensor: torch.zeros(shape)}) == (name, {})


def test_other_weights_are_not_recognised() -> None:
    assert recognise({"fc.weight": torch.zeros(2, 2)}) is None
    assert recognise({"layer2.0.conv1.0.weight": torch.zeros(128, 64, 3, 1, 1)}) is None
