"""Augmented sound in the loop: what hears it and what does not, an exact resume, and runs from before the settings."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from earmark.clips.sound_augmentation import AugmentedLogMel, SoundAugmentation
from earmark.clips.transforms import LogMel
from earmark.training.checkpoint import CheckpointError
from tests.helpers.tiny_run import NUM_CLIPS, TinyAudioTransform, TinyModel, assert_same_end, lines_of, run

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = TinyAudioTransform()


class Inaudible(nn.Module):
    """Zeros in the place of sound, and the seeds that they came with."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []

    def forward(self, audio: Tensor, seed: Tensor) -> Tensor:
        self.seeds += seed.tolist()
        return PLAIN(audio) * 0


class Listener(TinyModel):
    """Tells how loud the sounds are that it trains on, and those of its look at all clips."""

    def __init__(self) -> None:
        super().__init__()
        self.trained_on: list[float] = []
        self.looked_at: list[float] = []

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor) -> dict[str, Tensor]:
        self.looked_at += audio.abs().amax(dim=(1, 2, 3)).tolist()
        return {"audio": self.audio(audio)}

    def start_epoch(self, epoch: int, embeddings: Any) -> None:
        for _ in embeddings():
            pass

    def forward(
        self, video_before: Tensor, video_after: Tensor, audio: Tensor, *, index: Tensor, labels: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        self.trained_on += audio.abs().amax(dim=(1, 2, 3)).tolist()
        return super().forward(video_before, video_after, audio, index=index, labels=labels)


def test_training_hears_augmented_sound_and_the_look_at_all_clips_the_sound_as_it_is(tmp_path: Path) -> None:
    model, augmented = Listener(), Inaudible()
    run(tmp_path, model=model, augmented_audio_transform=augmented, epochs=2, schedule="none")
    assert model.trained_on == [0.0] * 24
    assert len(set(augmented.seeds)) == 24  # one for each sample and epoch
    assert len(model.looked_at) == 2 * NUM_CLIPS
    assert min(model.looked_at) > 0.1


def test_a_resume_hears_what_the_uninterrupted_run_hears(tmp_path: Path) -> None:
    log_mel = LogMel(window_seconds=4 / 16000, hop_seconds=2 / 16000, num_mels=2)  # of 12 samples: 6 frames
    everything = SoundAugmentation(gain_db=6, mix=0.7, time_masks=1, time_width=3, mel_masks=1, mel_width=1)
    options = {"audio_transform": log_mel, "augmented_audio_transform": AugmentedLogMel(log_mel, everything)}
    whole = run(tmp_path / "whole", **options)
    run(tmp_path / "parts", max_steps=5, **options)
    assert_same_end(whole, run(tmp_path / "parts", **options))
    plain = run(tmp_path / "plain", audio_transform=log_mel, max_steps=1)
    assert lines_of(plain)[0]["loss"] != lines_of(whole)[0]["loss"]


def test_a_setting_that_was_not_there_yet_counts_as_its_default(tmp_path: Path) -> None:
    before = {"optim": {"lr": 0.05}, "environment": {}}
    now = {**before, "data_augm": {"audio_mix": 0.0, "audio_mix_snr_db": [5, 20]}}
    defaults = {"data_augm.audio_mix": 0.0, "data_augm.audio_mix_snr_db": [5.0, 20.0], "data_augm.unused": None}
    run(tmp_path, max_steps=1, config=before)
    run(tmp_path, max_steps=2, config=now, defaults=defaults)
    run(tmp_path, max_steps=3, config=before, defaults=defaults)
    changed = {**before, "data_augm": {"audio_mix": 0.5, "audio_mix_snr_db": [5, 20]}}
    with pytest.raises(CheckpointError, match=r"settings: data_augm\.audio_mix \(0\.0 there, 0\.5 here\);"):
        run(tmp_path, config=changed, defaults=defaults)
    with pytest.raises(CheckpointError, match=r"data_augm\.audio_mix \(missing there, 0\.0 here\), data_augm"):
        run(tmp_path, config=now)
