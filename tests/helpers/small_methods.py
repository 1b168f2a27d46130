"""Each method on tiny encoders, and inputs for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earmark.methods import AVID, XDC, SimCLRVideo, Supervised
from earmark.methods.replai import (
    AudioVisualModel,
    ClipPairOptions,
    ContrastiveOptions,
    MomentDetectionOptions,
    SoundUnitOptions,
    StateChangeOptions,
)
from tests.helpers.flat_encoder import FlatEncoder
from tests.helpers.rank_runs import NormedEncoder
from tests.helpers.tiny_run import NUM_CLIPS, TinyClips

NUM_SAMPLES = 11


def encoders() -> tuple[FlatEncoder, FlatEncoder]:
    torch.manual_seed(3)
    return FlatEncoder(3 * 2 * 2 * 2), FlatEncoder(4)


METHODS: dict[str, Callable[[], nn.Module]] = {
    "replai": lambda: AudioVisualModel(*encoders(), hidden_dim=7, out_dim=5),
    "replai with options": lambda: AudioVisualModel(
        *encoders(),
        hidden_dim=7,
        out_dim=5,
        learnable_temperature=True,
        contrastive=ContrastiveOptions(queue_size=6),
        state_change=StateChangeOptions(normalize_states=True, negatives="batch"),
        clip_pair=ClipPairOptions(weight=0.4),
    ),
    "replai with quiet times": lambda: AudioVisualModel(
        *encoders(),
        hidden_dim=7,
        out_dim=5,
        state_change=StateChangeOptions(negatives="batch"),
        clip_pair=ClipPairOptions(weight=0.4),
        sound_unit=SoundUnitOptions(weight=0.3, num_units=(2, 3)),
        moment_detection=MomentDetectionOptions(weight=0.2),
    ),
    "avid": lambda: AVID(*encoders(), num_samples=NUM_SAMPLES, num_negatives=7, hidden_dim=7, out_dim=5),
    "xdc": lambda: XDC(*encoders(), num_samples=NUM_SAMPLES, num_clusters=3),
    "simclr_video": lambda: SimCLRVideo(encoders()[0], hidden_dim=7, out_dim=5),
    "supervised": lambda: Supervised(encoders()[0], num_classes={"verb": 4, "noun": 3}),
}


def make_inputs(num: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    before, after = torch.randn(2, num, 3, 2, 2, 2, dtype=torch.float64, generator=generator)
    return before, after, torch.randn(num, 1, 2, 2, dtype=torch.float64, generator=generator)


def keywords_of(name: str, num: int = 4) -> dict[str, Any]:
    """Those of `make_keywords`, and which samples are of quiet times for the method that tells them."""
    keywords = make_keywords(num)
    if "quiet" in name:
        keywords["labels"]["moment"] = torch.tensor([1, 0, 1, 1, 1, 1, 0, 0])[:num]
    return keywords


def make_keywords(num: int = 4) -> dict[str, Any]:
    """Samples in no order, some without a label."""
    index = torch.tensor([7, 2, 10, 0, 5, 3, 9, 1])[:num]
    labels = {
        "verb": torch.tensor([3, 0, -1, 2, -1, 1, 1, 0])[:num],
        "noun": torch.tensor([2, -1, -1, 0, 1, 0, 2, 1])[:num],
    }
    return {"index": index, "labels": labels}


class LabelledClips(TinyClips):
    """With the classes that a sample's index stands for; some samples have none."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index = key[0]
        return super().__getitem__(key) | {"label_verb": np.int64(index % 3), "label_noun": np.int64(index % 2 - 1)}


class QuietClips(LabelledClips):
    """Some of which are of quiet times."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return super().__getitem__(key) | {"label_moment": np.int64(key[0] % 5 > 0)}


def normed_encoders() -> tuple[NormedEncoder, NormedEncoder]:
    torch.manual_seed(3)
    return NormedEncoder(3 * 2 * 4 * 4), NormedEncoder(12)


TRAINED = {
    "avid": lambda: AVID(*normed_encoders(), num_samples=NUM_CLIPS, num_negatives=7, hidden_dim=7, out_dim=5),
    "xdc": lambda: XDC(*normed_encoders(), num_samples=NUM_CLIPS, num_clusters=3),
    "simclr_video": lambda: SimCLRVideo(normed_encoders()[0], hidden_dim=7, out_dim=5),
    "supervised": lambda: Supervised(normed_encoders()[0], num_classes={"verb": 3, "noun": 1}),
    "replai with options": lambda: AudioVisualModel(
        *normed_encoders(),
        hidden_dim=7,
        out_dim=5,
        contrastive=ContrastiveOptions(queue_size=6),
        learnable_temperature=True,
        state_change=StateChangeOptions(negatives="batch"),
    ),
    "replai with quiet times": lambda: AudioVisualModel(
        *normed_encoders(),
        hidden_dim=7,
        out_dim=5,
        state_change=StateChangeOptions(negatives="batch"),
        clip_pair=ClipPairOptions(weight=0.4),
        sound_unit=SoundUnitOptions(weight=0.3, num_units=(2, 3)),
        moment_detection=MomentDetectionOptions(weight=0.2, quiet_share=0.2),
    ),
}
