"""A tiny model, data set and run of the training loop.

The model has batch norm (buffers) and dropout (the global generator), so that nothing that a resume must put back
is missing.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.clips.sampling import seed_in_group
from earmark.training.checkpoint import load_checkpoint
from earmark.training.optim import WarmupCosineLR, multi_step, one_cycle, sgd
from earmark.training.pretraining import PretrainResult
from tests.helpers.flat_pretrain import pretrain

NUM_CLIPS, BATCH_SIZE = 14, 4  # 3 batches an epoch, 2 clips left out
TIMED = {  # of the metrics, what depends on the clock
    *("samples_per_second", "seconds", "tflops_per_second", "peak_share"),
    *("device_busy_share", "data_wait_share", "host_wait_share", "launch_bound_share"),
}


class TinyClips:
    """Samples that depend on (index, seed) alone; `on_sample`, told how many were drawn, may do mischief."""

    def __init__(self, on_sample: Any = None) -> None:
        self.on_sample, self.num_drawn = on_sample, 0

    def __len__(self) -> int:
        return NUM_CLIPS

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        self.num_drawn += 1
        if self.on_sample is not None:
            self.on_sample(self.num_drawn)
        draw = np.random.default_rng(seed)
        return {
            "video_before": draw.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
            "video_after": draw.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8),
            "audio": draw.integers(-(2**15), 2**15, 12, dtype=np.int16),
            "index": np.int64(index),
            "seed": np.int64(seed),
            "video_size": np.array([4, 4]),
        }


class TinyClipsOfVideos(TinyClips):
    """Samples of four videos, two of each segment, which draw together."""

    video_of_item = np.repeat([2, 0, 3, 1], [6, 4, 2, 2])

    def visit_seed(self, seed: int, epoch: int, index: int) -> int:
        return seed_in_group(seed, epoch, index // 2, index % 2, num_places=2)


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


class TinyVideoTransform(nn.Module):
    """Scale each sample by a number drawn from its seed and stream."""

    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor, *, stream: int) -> Tensor:
        scale = torch.tensor([np.random.default_rng([int(s), stream]).random() for s in seed], dtype=torch.float32)
        return video.permute(0, 4, 1, 2, 3).float() / 255 * scale[:, None, None, None, None]


class TinyAudioTransform(nn.Module):
    def forward(self, audio: Tensor) -> Tensor:
        return (audio.float() / 2**15).reshape(-1, 1, 3, 4)


class TinyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.video = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3)), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(32, 8))
        self.audio = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(12, 8))

    def forward(
        self, video_before: Tensor, video_after: Tensor, audio: Tensor, *, index: Tensor, labels: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        before, after, sound = self.video(video_before), self.video(video_after), self.audio(audio)
        contrastive, change = (before - sound).square().mean(), (after - before - sound).square().mean()
        return {
            "loss": (contrastive + change) / 2,
            "contrastive_loss": contrastive.detach(),
            "state_change_loss": change.detach(),
        }


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the state of the global generator is part of a checkpoint
    torch.manual_seed(seed)


def run(
    run_dir: Path, *, model: nn.Module | None = None, schedule: str = "one_cycle", **options: Any
) -> PretrainResult:
    """Start or resume a run of four epochs as a fresh process would: with a new model, optimizer and schedule."""
    model = TinyModel() if model is None else model
    optimizer = sgd(model.parameters(), lr=0.05)
    scheduler = {
        "one_cycle": lambda: one_cycle(optimizer, max_lr=0.05, total_steps=6),
        "multi_step": lambda: multi_step(optimizer, milestones=[1, 3]),
        "cosine": lambda: WarmupCosineLR(optimizer, total_steps=12, warmup_steps=2.5),
        "none": lambda: None,
    }[schedule]()
    defaults: dict[str, Any] = {
        "clips": TinyClips(),
        "video_transform": TinyVideoTransform(),
        "audio_transform": TinyAudioTransform(),
        "fabric": Fabric(accelerator="cpu", devices=1),
        "epochs": 4,
        "batch_size": BATCH_SIZE,
        "seed": 5,
        "num_workers": 0,
        "save_every_epochs": 2,
        "log_every": 1,
        "config": {"optim": {"lr": 0.05}, "environment": {"workers": 0}},
        "fingerprint": "abc",
        "tensorboard": False,
        "progress": False,
    }
    seed_all(99 if (run_dir / "checkpoints").exists() else 7)  # a resume must not owe anything to the caller's seeds
    return pretrain(
        model=model,
        collate_fn=collate,
        run_dir=run_dir,
        **{"optimizer": optimizer, "scheduler": scheduler} | defaults | options,
    )


def assert_same_end(one: PretrainResult, other: PretrainResult) -> None:
    """Everything that the last checkpoints hold is equal bit for bit, but for the times."""
    first, second = (load_checkpoint(result.checkpoint_path) for result in (one, other))
    for state in (first, second):
        for name in ("seconds", "data_wait_seconds"):
            del state["epoch_totals"][name]
        del state["config"]["environment"]
    assert_equal(first, second, "checkpoint")
    assert one.last_losses == other.last_losses
    assert (one.steps, one.epochs) == (other.steps, other.epochs)


def assert_equal(one: Any, other: Any, name: str) -> None:
    assert type(one) is type(other), name
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_equal(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{name}[{place}]")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), name
    else:
        assert one == other, name


def lines_of(result: PretrainResult) -> list[dict[str, Any]]:
    """Return the lines of metrics without what depends on the clock, and without those that say what it was held to."""
    lines = [json.loads(line) for line in result.metrics_path.read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in TIMED} for line in lines if line["kind"] != "device"
    ]


def plain_model() -> TinyModel:
    model = TinyModel()
    model.video[1], model.audio[1] = nn.Identity(), nn.Identity()
    return model


def weights_of(result: PretrainResult, part: str = "model") -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load_checkpoint(result.checkpoint_path)[part]
    return weights


def run_script(script: str, *arguments: Path) -> "subprocess.CompletedProcess[str]":
    source = Path(sys.modules["earmark"].__file__ or "").parents[1]
    path = os.pathsep.join([str(source), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


class NanAtStep(TinyModel):
    """A model whose loss, or whose gradient alone, is NaN in one step."""

    def __init__(self, step: int, *, gradient_only: bool = False) -> None:
        super().__init__()
        self.left, self.gradient_only = step, gradient_only

    def forward(self, *inputs: Tensor, **samples: Any) -> dict[str, Tensor]:
        output = super().forward(*inputs, **samples)
        self.left -= 1
        if self.left == 0:
            weight = self.audio[2].weight.sum()
            # sqrt has an infinite slope at 0: times 0 the value is 0, and its gradient NaN
            output["loss"] = output["loss"] + ((weight * 0).sqrt() if self.gradient_only else weight * torch.nan)
        return output
