"""A run and a store made at commit e2cc9bf: later versions read them as that commit did, and go on with the run.

``tests/reference/e2cc9bf/README.md`` says how they were made.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark.cli.main import main
from earmark.clips.store import PreparedStore
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.encoders.weights import load_encoder_weights
from earmark.training.checkpoint import latest_checkpoint, load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

CHECKPOINT = "run/checkpoints/latest_00000002.pt"
SETTINGS = [  # of run/config.yaml, where they are not the defaults
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=4",
    "backbone.audio.args.width=4",
    "criterion.args.out_dim=8",
    "data.args.base_path=kitchen",
    "data_augm.crop_size=24",
    "data_augm.min_short_side=32",
    "data_augm.max_short_side=40",
    "optim.batch_size=1",
    "optim.epochs=3",
    "optim.use_lr_scheduler=false",
    "prepare.short_side=32",
    "prepare.quality=40",
    "prepare.detector=replai",
    "environment.workers=0",
    "environment.accelerator=cpu",
    "logging.name=old",
    "logging.print_freq=1",
]


@pytest.fixture(scope="module")
def old(reference: Path) -> Path:
    return reference / "e2cc9bf"


@pytest.fixture(scope="module")
def expected(old: Path) -> dict[str, Any]:
    with np.load(old / "expected.npz") as arrays:
        return dict(arrays)


def test_the_encoders_of_the_run_give_the_features_they_gave(old: Path, expected: dict[str, Any]) -> None:
    video, audio = R2Plus1D(10, width=4), SpecCNN9(width=4)
    load_encoder_weights(video, old / CHECKPOINT, kind="video")
    load_encoder_weights(audio, old / CHECKPOINT, kind="audio")
    clips = np.random.RandomState(7).standard_normal((2, 3, 8, 24, 24)).astype(np.float32)
    sounds = np.random.RandomState(8).standard_normal((2, 1, 125, 80)).astype(np.float32)
    with torch.no_grad():
        features = video.eval()(torch.from_numpy(clips)), audio.eval()(torch.from_numpy(sounds))
    for found, name in zip(features, ("video_features", "audio_features"), strict=True):
        torch.testing.assert_close(found, torch.from_numpy(expected[name]), rtol=1e-6, atol=1e-6)


def test_the_store_gives_the_frames_sound_and_moments_it_gave(old: Path, expected: dict[str, Any]) -> None:
    store = PreparedStore(old / "store")
    assert list(store.videos) == expected["video_ids"].tolist()
    for number, video_id in enumerate(store.videos):
        np.testing.assert_array_equal(store.frames(video_id, np.array([1.0, 5.5])), expected["frames"][number])
        np.testing.assert_array_equal(store.sound(video_id, 2.0, 400), expected["sound"][number])
        np.testing.assert_array_equal(store.moments[video_id], expected[f"moments_{video_id}"])


def test_the_command_goes_on_with_the_run(old: Path, tmp_path: Path) -> None:
    """Two of three epochs are done: the third is added, and what is there already stays as it is."""
    run = shutil.copytree(old / "run", tmp_path / "outputs/old")
    store = shutil.copytree(old / "store", tmp_path / "store")
    before = (run / "metrics.jsonl").read_text()
    where = [f"environment.data_dir={tmp_path}", f"data.store={store}"]
    assert main(["pretrain", *SETTINGS, *where]) == 0
    metrics = (run / "metrics.jsonl").read_text()
    assert metrics.startswith(before)
    added = [json.loads(line) for line in metrics.removeprefix(before).splitlines()]
    assert [(line["kind"], line["step"], line["epoch"]) for line in added] == [
        *(("device", 2, 3), ("step", 3, 3), ("epoch", 3, 3))
    ]
    assert (run / "config.yaml").read_bytes() == (old / "run/config.yaml").read_bytes()
    path = latest_checkpoint(run / "checkpoints")
    assert path is not None
    assert path.name == "checkpoint_0003.pt"
    first, last = (load_checkpoint(path)["model"] for path in (old / CHECKPOINT, path))
    assert first.keys() == last.keys()
    assert int(last["backbone.video.conv1.1.num_batches_tracked"]) == 3
    assert not torch.equal(first["backbone.video.conv1.0.weight"], last["backbone.video.conv1.0.weight"])
