"""A step queues its work on the device: nothing in transforms and methods may make the host wait for it."""

from typing import Any

import pytest
import torch
from torch import nn

from earmark.clips.sound_augmentation import AugmentedLogMel, SoundAugmentation
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods import AVID, XDC, SimCLRVideo, Supervised
from earmark.methods.replai import (
    AudioVisualModel,
    ClipPairOptions,
    ContrastiveOptions,
    MomentDetectionOptions,
    SoundUnitOptions,
    StateChangeOptions,
)
from tests.helpers.host_waits import watched_for_host_waits

NUM_SAMPLES = 6


def encoders() -> tuple[R2Plus1D, SpecCNN9]:
    return R2Plus1D(10, width=4), SpecCNN9(width=4)


def methods() -> dict[str, nn.Module]:
    queue = ContrastiveOptions(queue_size=4)
    states = StateChangeOptions(normalize_states=True, negatives="batch")
    return {
        "replai": AudioVisualModel(*encoders()),
        "replai with options": AudioVisualModel(
            *encoders(),
            contrastive=queue,
            state_change=states,
            learnable_temperature=True,
        ),
        "replai with quiet times": AudioVisualModel(
            *encoders(),
            state_change=states,
            clip_pair=ClipPairOptions(weight=0.3),
            sound_unit=SoundUnitOptions(weight=0.3, num_units=(4, 8)),
            moment_detection=MomentDetectionOptions(weight=0.3),
        ),
        "avid": AVID(*encoders(), num_samples=NUM_SAMPLES, num_negatives=9),
        "xdc": XDC(*encoders(), num_samples=NUM_SAMPLES, num_clusters=2),
        "simclr_video": SimCLRVideo(encoders()[0]),
        "supervised": Supervised(encoders()[0], num_classes={"verb": 3}),
    }


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: torch.tensor(2.0, device=x.device) * x,
        lambda x: x + x.new_tensor([1.0]),
        lambda x: x[torch.arange(2).to(x.device)],
        lambda x: torch.linalg.inv(x.expand(3, 3)),
    ],
)
def test_copies_that_are_waited_for_are_found(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched_for_host_waits(monkeypatch) as found:
        ask(zeros(3))
    assert len(found) == 1


@pytest.mark.parametrize("ask", [lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x.cpu(), torch.nonzero])
def test_numbers_that_are_asked_for_are_refused(ask: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        ask(zeros(3))


@pytest.mark.parametrize("options", [{}, {"random": False}, {"color_jitter": 0.4}, {"min_area": 0.2}], ids=str)
def test_video_transform(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    crop = VideoCrop(**options).to("meta")
    video, seed, size = (
        zeros(*shape, dtype=dtype)
        for shape, dtype in (
            ((2, 4, 128, 140, 3), torch.uint8),
            ((2,), torch.int64),
            ((2, 2), torch.int64),
        )
    )
    with watched_for_host_waits(monkeypatch) as found:
        assert crop(video, seed, size, stream=1).shape == (2, 3, 4, 112, 112)
        assert crop(video, seed).shape == (2, 3, 4, 112, 112)
    assert found == []


@pytest.mark.parametrize("sample_rate", [16000, 22050])  # of a hop of whole samples, and of another
def test_audio_transform(sample_rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log_mel = LogMel(sample_rate=sample_rate).to("meta")
    with watched_for_host_waits(monkeypatch) as found:
        assert log_mel(zeros(2, 2 * sample_rate, dtype=torch.int16)).shape == (2, 1, 125, 80)
    assert found == []


def test_augmentation_of_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = SoundAugmentation(gain_db=6, mix=0.5, time_masks=2, mel_masks=2)
    augmented = AugmentedLogMel(LogMel(), everything).to("meta")
    with watched_for_host_waits(monkeypatch) as found:
        audio = zeros(19, 32000, dtype=torch.int16)
        assert augmented(audio, zeros(19, dtype=torch.int64)).shape == (19, 1, 125, 80)
    assert found == []


@pytest.mark.parametrize("name", list(methods()))
def test_forward_and_backward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = methods()[name].to("meta")
    clips, audio, index = zeros(2, 3, 4, 32, 32), zeros(2, 1, 40, 32), zeros(2, dtype=torch.int64)
    labels = {"verb": index} | ({"moment": index} if "quiet" in name else {})
    with watched_for_host_waits(monkeypatch) as found:
        model(clips, clips, audio, index=index, labels=labels)["loss"].backward()
    assert found == []
