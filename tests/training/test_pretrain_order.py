"""Runs whose rate changes at each step, and whose data set has a say in seeds and batches: exact through any stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.clips.sampling import shared_seed
from earmark.training.optim import WarmupCosineLR, sgd
from earmark.training.run_state import RunDiffersError
from tests.helpers.tiny_run import (
    NUM_CLIPS,
    TinyClips,
    TinyClipsOfVideos,
    TinyModel,
    assert_same_end,
    lines_of,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_cosine_has_the_rate_of_each_steps_place_whatever_stops_the_run(tmp_path: Path) -> None:
    """Stopped in mid-epoch and at an epoch's edge, with batches cut in two: the rates are the closed form's."""
    options: dict[str, Any] = {"schedule": "cosine", "accumulate": 2}
    whole = run(tmp_path / "whole", **options)
    for stop in (1, 3, 7):
        run(tmp_path / "parts", max_steps=stop, **options)
    resumed = run(tmp_path / "parts", **options)
    assert_same_end(whole, resumed)
    assert lines_of(resumed) == lines_of(whole)
    steps = [line for line in lines_of(resumed) if line["kind"] == "step"]
    places = np.arange(12, dtype=np.float64)
    shares = np.where(places < 2.5, (places + 1) / 3.5, (1 + np.cos(np.pi * (places - 2.5) / 9.5)) / 2)
    np.testing.assert_allclose([line["lr"] for line in steps], 0.05 * shares, rtol=1e-14)


def test_a_cosine_forced_on_other_data_goes_on_at_its_place(tmp_path: Path) -> None:
    """Five steps of epochs of three, then epoch 1 anew in epochs of five: steps 5 to 19 of 20."""

    class More(TinyClips):
        def __len__(self) -> int:
            return 20

    run(tmp_path, schedule="cosine", max_steps=5)
    model = TinyModel()
    optimizer = sgd(model.parameters(), lr=0.05)
    longer = WarmupCosineLR(optimizer, total_steps=20, warmup_steps=2.5)
    result = run(
        tmp_path, model=model, optimizer=optimizer, scheduler=longer, clips=More(), fingerprint="xyz", force=True
    )
    rates = [line["lr"] for line in lines_of(result) if line["kind"] == "step" and line["step"] > 5]
    assert rates == [0.05 * longer.share_of(step) for step in range(5, 20)]


def test_a_key_that_runs_of_before_lack_stands_for_what_they_did(tmp_path: Path) -> None:
    config = {"optim": {"lr": 0.05}, "environment": {"workers": 0}}
    later = {**config, "optim": {"lr": 0.05, "rate": "published"}}
    run(tmp_path, max_steps=2, config=config)
    with pytest.raises(RunDiffersError, match=r"optim\.rate \(missing there, published here\)"):
        run(tmp_path, max_steps=3, config=later)
    defaults = {"optim.rate": "published", "optim.absent_from_both": 1}
    assert run(tmp_path, max_steps=3, config=later, defaults=defaults).steps == 3
    other = {**config, "optim": {"lr": 0.05, "rate": "another"}}
    with pytest.raises(RunDiffersError, match=r"optim\.rate \(published there, another here\)"):
        run(tmp_path, max_steps=4, config=other, defaults=defaults)


class _Labelled(TinyClipsOfVideos):
    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {**super().__getitem__(key), "label_seed": np.int64(key[1])}


class _SeesSeeds(TinyModel):
    """Notes the seeds of the samples it trains on; before each epoch it goes through all data."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[tuple[int, int]] = []
        self.register_buffer("means", torch.zeros(NUM_CLIPS))  # of the clips before, which depend on the seed

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor) -> dict[str, Tensor]:
        return {"video": video_before.flatten(1).mean(dim=1, keepdim=True)}

    def start_epoch(self, epoch: int, embeddings: Any) -> None:
        for index, embedded in embeddings():
            self.means[index] = embedded["video"].squeeze(1)

    def forward(self, *inputs: Tensor, index: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        self.trained += zip(index.tolist(), labels["seed"].tolist(), strict=True)
        means = inputs[0].flatten(1).mean(dim=1)
        torch.testing.assert_close(means, self.means[index])
        return super().forward(*inputs, index=index, labels=labels)


def test_the_data_sets_own_seeds_reach_every_sample_and_the_look_at_all_data(tmp_path: Path) -> None:
    """What is embedded before an epoch is what is trained on in it, sample by sample."""
    model = _SeesSeeds()
    run(tmp_path, model=model, clips=_Labelled())
    clips = _Labelled()
    of_epochs = [model.trained[start : start + 12] for start in range(0, 48, 12)]
    for epoch, trained in enumerate(of_epochs):
        assert trained == [(index, clips.visit_seed(5, epoch, index)) for index, _ in trained]
        shared = {index: shared_seed(seed, num_places=2) for index, seed in trained}
        pairs = [(index, index + 1) for index in range(0, NUM_CLIPS, 2) if {index, index + 1} <= shared.keys()]
        assert pairs
        assert all(shared[one] == shared[other] for one, other in pairs)


OF_VIDEOS: dict[str, Any] = {"videos_per_batch": 2, "batch_size": 4}


def test_batches_of_few_videos_reach_the_model_and_any_stop_leaves_no_trace(tmp_path: Path) -> None:
    model = _SeesSeeds()
    whole = run(tmp_path / "whole", model=model, clips=_Labelled(), **OF_VIDEOS)
    batches = [[index for index, _ in model.trained[start : start + 4]] for start in range(0, 48, 4)]
    numbers = [len({int(TinyClipsOfVideos.video_of_item[index]) for index in batch}) for batch in batches]
    assert min(numbers) == 2
    assert numbers.count(2) > 6  # of 12; the two videos of two items are used up at once
    for epoch in range(4):
        visited = [index for batch in batches[3 * epoch : 3 * epoch + 3] for index in batch]
        assert len(set(visited)) == 12
    for stop in (1, 3, 7):
        run(tmp_path / "parts", model=_SeesSeeds(), clips=_Labelled(), max_steps=stop, **OF_VIDEOS)
    resumed = run(tmp_path / "parts", model=_SeesSeeds(), clips=_Labelled(), **OF_VIDEOS)
    assert_same_end(whole, resumed)
    assert lines_of(resumed) == lines_of(whole)


def test_other_numbers_of_videos_are_another_run_and_force_begins_the_epoch_anew(tmp_path: Path) -> None:
    run(tmp_path, clips=TinyClipsOfVideos(), max_steps=4)
    with pytest.raises(RunDiffersError, match=r"videos_per_batch \(None there, 2 here\)|\(missing there, 2 here\)"):
        run(tmp_path, clips=TinyClipsOfVideos(), **OF_VIDEOS)
    result = run(tmp_path, clips=TinyClipsOfVideos(), force=True, **OF_VIDEOS)
    assert (result.steps, result.epochs) == (4 + 3 * 3, 4)


def test_batches_of_videos_that_can_not_be_made_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a batch of 4 can't be made of 5 videos"):
        run(tmp_path, clips=TinyClipsOfVideos(), videos_per_batch=5)
    with pytest.raises(ValueError, match="can't make batches of 5 videos each: there are 4"):
        run(tmp_path, clips=TinyClipsOfVideos(), videos_per_batch=5, batch_size=6)
    with pytest.raises(ValueError, match="TinyClips doesn't say of which video an item is"):
        run(tmp_path, videos_per_batch=2)
    with pytest.raises(ValueError, match="videos_per_batch must be at least 1"):
        run(tmp_path, clips=TinyClipsOfVideos(), videos_per_batch=0)
