"""Encoders of torchvision: the same numbers and names as torchvision's own; skipped where it cannot be imported."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from earmark.encoders import VIDEO_ENCODERS, VideoResNet, new_encoder
from earmark.encoders.recognition import recognise

HEADS = {
    "r2plus1d_18": "fc",
    "r3d_18": "fc",
    "mc3_18": "fc",
    "s3d": "classifier",
    "mvit_v2_s": "head",
    "swin3d_t": "head",
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("s3d", "mvit_v2_s")]
SIZES = {"s3d": (16, 224, 224), "mvit_v2_s": (16, 224, 224)}  # of torchvision's own forward, which takes no others


@pytest.fixture(scope="module")
def video() -> Any:
    try:
        from torchvision.models import video
    except Exception as error:  # where torchvision does not fit torch, RuntimeError
        pytest.skip(f"torchvision cannot be imported ({error})")
    return video


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "mc3_18", *SLOW, "swin3d_t"])
@torch.no_grad()
def test_features_and_names_are_torchvisions(video: Any, name: str) -> None:
    model = getattr(video, name)(weights=None).eval()
    encoder = VIDEO_ENCODERS[name]().eval()
    published = {
        key: value for key, value in model.state_dict().items() if key.partition(".")[0] not in encoder.not_encoder
    }
    assert recognise(model.state_dict()) == (name, {})
    encoder.load_state_dict(published)
    setattr(model, HEADS[name], nn.Identity())
    clips = torch.randn(2 if name not in SIZES else 1, 3, *SIZES.get(name, (8, 64, 64)))
    torch.testing.assert_close(encoder(clips), model(clips), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_the_clips_of_the_published_runs_are_encoded(video: Any, name: str) -> None:
    encoder = new_encoder(name).eval()
    encoder.initialise()
    features = encoder(torch.randn(1, 3, 8, 112, 112))
    assert features.shape == (1, encoder.output_dim)
    assert features.isfinite().all()
    with pytest.raises(ValueError, match=r"\(B, 3, T, H, W\)"):
        encoder(torch.zeros(1, 1, 8, 112, 112))


def test_too_small_clips_are_refused(video: Any) -> None:
    with pytest.raises(ValueError, match="at least 5 frames of 17 x 17"):
        new_encoder("s3d")(torch.zeros(1, 3, 4, 112, 112))


def test_an_unknown_residual_network_is_refused() -> None:
    with pytest.raises(ValueError, match="mc3_18, r2plus1d_18, r3d_18"):
        VideoResNet("r3d_50")


def test_without_torchvision_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match=r"the encoder s3d needs torchvision.*earmark\[torchvision\]"):
        new_encoder("s3d")
