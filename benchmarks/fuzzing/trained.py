"""A run of a small model, made and gone on with: what checkpoints are damaged of."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from earmark import training
from earmark.cli.config import compose
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.encoders.by_name import new_encoder
from earmark.methods.replai import AudioVisualModel
from earmark.training.optim import one_cycle, sgd

EPOCHS = 2
VIDEO, AUDIO = "avid_r2plus1d_10", "avid_spec_cnn_9"
CONFIG_NAME = "default_ssrl"
OVERRIDES = (f"backbone/video={VIDEO}", "backbone.video.args.width=2", "backbone.audio.args.width=2")


class Clips:
    """Four samples that depend on (index, seed) alone."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        draw = np.random.default_rng(seed)
        return {
            "video_before": draw.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
            "video_after": draw.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
            "audio": draw.integers(-(2**15), 2**15, 4000, dtype=np.int16),
            "index": np.int64(index),
            "seed": np.int64(seed),
            "video_size": np.array([16, 16]),
        }


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def train(run_dir: Path, *, epochs: int = EPOCHS) -> training.PretrainResult:
    """Start a run, or go on with it, as a fresh process would."""
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(3)
    model = AudioVisualModel(new_encoder(VIDEO, width=2), new_encoder(AUDIO, width=2), hidden_dim=8, out_dim=4)
    optimizer = sgd(model.parameters(), lr=0.01, fused=True)
    return training.pretrain(
        training.Learner(
            model=model, optimizer=optimizer, scheduler=one_cycle(optimizer, max_lr=0.01, total_steps=EPOCHS)
        ),
        training.TrainingData(
            clips=Clips(),
            collate_fn=collate,
            video_transform=VideoCrop(crop_size=16, min_short_side=16, max_short_side=20),
            audio_transform=LogMel(),
            fingerprint="abc",
            videos={"pretraining": ["P01_01", "P01_02"]},
        ),
        training.Schedule(epochs=epochs, batch_size=2, seed=5),
        run_dir=run_dir,
        fabric=Fabric(accelerator="cpu", devices=1),
        step=training.StepOptions(ema_decay=0.9),
        checkpointing=training.Checkpointing(config=compose(CONFIG_NAME, OVERRIDES), every_epochs=1),
        logging=training.Logging(tensorboard=False, progress=False, every_steps=1),
    )
