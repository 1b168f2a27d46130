"""What a run reads, and in which order: the batches of this process, ready for the model.

In the path of a sample this file stands between `earmark.clips` (data set, sampling, loading, transforms) and the loop,
which takes the model's inputs from here.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earmark.clips import loading
from earmark.clips.sampling import EpochBatches, SeedOf, sample_seed
from earmark.clips.video_batches import BatchesOfVideos
from earmark.methods.base import Embeddings, EpochAware
from earmark.training.ranges import require_in_range
from earmark.training.run_state import Position
from earmark.wording import counted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Clips", "Schedule", "TrainingBatches", "TrainingData"]


class Clips(loading.Clips, Protocol):
    """A map-style data set of known size: its keys are (index, seed), its samples are NumPy arrays by name."""

    def __len__(self) -> int: ...


@runtime_checkable
class SeedsVisits(Protocol):
    """A data set that gives its visits seeds of its own, such as `earmark.clips.dataset.MomentClips`."""

    def visit_seed(self, seed: int, epoch: int, index: int) -> int:
        """Return the seed of an item's visit in an epoch of a run of this seed."""


@runtime_checkable
class OfVideos(Protocol):
    """A data set that says which video each item is of, such as `earmark.clips.dataset.MomentClips`."""

    @property
    def video_of_item(self) -> NDArray[np.integer[Any]]:
        """Numbers of videos, (num_items,)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run is, and in which order it reads.

    Attributes:
        epochs: Epochs of the whole run.
        batch_size: Size of the global batch, over all ranks together. If there are fewer clips, a batch is all of them;
            clips that do not fill a batch are left out of an epoch, others in each.
        seed: Seed of order and samples. The model's first weights are the caller's to seed.
        max_steps: Stop after so many steps of the whole run, if its epochs don't end before; the learning rate goes on
            as if there were no such limit.
        videos_per_batch: Make each batch of the samples of so many videos, or of few more where these are too short
            (see `earmark.clips.video_batches.BatchesOfVideos`); None for any videos.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> Schedule(epochs=100, batch_size=128).seed
        0
    """

    epochs: int
    batch_size: int
    seed: int = 0
    max_steps: int | None = None
    videos_per_batch: int | None = None

    def __post_init__(self) -> None:
        require_in_range(
            at_least_1={
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "max_steps": self.max_steps,
                "videos_per_batch": self.videos_per_batch,
            },
            at_least_0={"seed": self.seed},
        )
        if self.videos_per_batch is not None and self.videos_per_batch > self.batch_size:
            raise ValueError(
                f"a batch of {self.batch_size} can't be made of {self.videos_per_batch} videos (videos_per_batch)"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run reads.

    Attributes:
        clips: The data set, of samples with ``video_before`` and ``video_after`` uint8 (T, H, W, 3), ``audio`` int16
            (S,), ``index``, ``seed`` and ``video_size`` (height, width), and any ``label_NAME``.
        collate_fn: Makes one batch of a list of samples.
        video_transform: Called with (video uint8 (B, T, H, W, 3), seed (B,), video_size (B, 2), stream=0 or 1).
        audio_transform: Called with (audio int16 (B, S)).
        augmented_audio_transform: Called with (audio int16 (B, S), seed (B,)) in its place for what is trained on, not
            for the model's own look at all clips before an epoch; None: `audio_transform` makes both.
        fingerprint: Identity of the prepared data; a run is resumed with the same only.
        shared_crop: Draw the crop of both clips of a sample alike, instead of independently.
        num_workers: Workers that load data for this rank (see `earmark.clips.loading.load_batches`); 0 loads between
            the steps.
        videos: Ids of videos by use: "pretraining", and "probe" for those that a run is judged on. Stored in every
            checkpoint, so that an evaluation can tell which of its videos were seen.
        describe: Names a sample by its index and seed, for errors.

    Raises:
        ValueError: If a number is out of range.
    """

    clips: Clips
    collate_fn: Callable[[list[Any]], dict[str, Tensor]]
    video_transform: nn.Module
    audio_transform: nn.Module
    fingerprint: str
    augmented_audio_transform: nn.Module | None = None
    shared_crop: bool = False
    num_workers: int = 0
    videos: Mapping[str, Sequence[str]] = field(default_factory=dict)
    describe: Callable[[int, int], str] | None = None

    def __post_init__(self) -> None:
        require_in_range(at_least_0={"num_workers": self.num_workers})


class TrainingBatches:
    """The batches of a run, as this process sees them.

    Args:
        data: What is read; its transforms are moved to the device.
        schedule: In which order.
        fabric: The launched Fabric: rank, number of ranks, device and precision.

    Attributes:
        num_per_epoch: Batches of an epoch.
        share: Samples of a batch that are this process's.

    Raises:
        ValueError: If there are no clips, a batch can't be shared out equally among the ranks, or there are fewer
            videos than a batch is to be made of.
    """

    def __init__(self, data: TrainingData, schedule: Schedule, fabric: "Fabric") -> None:
        self._data, self._schedule, self._fabric = data, schedule, fabric
        self._num_clips = len(data.clips)
        self._shuffle = _shuffle_of(data.clips, schedule.videos_per_batch)
        self._seed_of: SeedOf = data.clips.visit_seed if isinstance(data.clips, SeedsVisits) else sample_seed
        self.num_per_epoch = self._of_epoch(0, world_size=fabric.world_size).num_batches
        self.share = min(self._num_clips, schedule.batch_size) // fabric.world_size
        data.video_transform.to(fabric.device)
        data.audio_transform.to(fabric.device)
        if data.augmented_audio_transform is not None:
            data.augmented_audio_transform.to(fabric.device)

    def rest(self, position: Position) -> Generator[dict[str, Tensor], None, None]:
        """Yield this rank's batches from a position to the end of the run, on the device.

        Closing the iterator ends the workers that read ahead.
        """
        return self._load(self._keys_of_rest(position.epoch, position.batch))

    def _keys_of_rest(self, start_epoch: int, start_batch: int) -> Iterator[list[tuple[int, int]]]:
        # one iterator over all epochs, so that reading ahead goes on across their edges
        for epoch in range(start_epoch, self._schedule.epochs):
            yield from self._of_epoch(
                epoch,
                start_batch=start_batch if epoch == start_epoch else 0,
                rank=self._fabric.global_rank,
                world_size=self._fabric.world_size,
            )

    def model_inputs(self, batch: Mapping[str, Tensor], *, augment_sound: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the model takes: clip before, clip after, log-mel of the sound, augmented if so asked."""
        data, seed, size = self._data, batch["seed"], batch["video_size"]
        augmented = data.augmented_audio_transform if augment_sound else None
        return (
            data.video_transform(batch["video_before"], seed, size, stream=0),
            data.video_transform(batch["video_after"], seed, size, stream=0 if data.shared_crop else 1),
            data.audio_transform(batch["audio"]) if augmented is None else augmented(batch["audio"], seed),
        )

    @torch.no_grad()
    def embeddings(self, model: nn.Module, epoch: int) -> Iterator[Embeddings]:
        """Yield (index, embeddings by name) of this rank's share of all clips, in order and in evaluation mode.

        Args:
            model: The bare model, an `EpochAware` one.
            epoch: Counted from 0; it seeds the samples.
        """
        fabric, batch_size = self._fabric, self._schedule.batch_size
        share = range(fabric.global_rank, self._num_clips, fabric.world_size)
        size = batch_size // fabric.world_size
        batches = (share[start : start + size] for start in range(0, len(share), size))
        keys = ([(index, self._seed_of(self._schedule.seed, epoch, index)) for index in batch] for batch in batches)
        model.eval()
        try:
            with closing(self._load(keys)) as loaded:
                for batch in loaded:
                    # sound as it is: where it is clustered, a sample must not be what another one sounds like
                    inputs = fabric.strategy.precision.convert_input(self.model_inputs(batch, augment_sound=False))
                    with fabric.autocast():
                        embeddings = cast(EpochAware, model).embed(*inputs)
                    yield batch["index"], embeddings
        finally:
            model.train()

    def name_of(self, position: Position) -> str:
        """Name the samples of the batch, over all ranks, that comes next at a position."""
        keys = next(iter(self._of_epoch(position.epoch, start_batch=position.batch)))
        if self._data.describe is None:
            return f"indices {[index for index, _ in keys]}"
        return ", ".join(self._data.describe(index, seed) for index, seed in keys)

    def notes(self) -> Iterator[str]:
        """Say where a batch is smaller than asked for, or an epoch does not see all clips."""
        num_clips, batch_size = self._num_clips, self._schedule.batch_size
        if num_clips < batch_size:
            yield (
                f"note: {counted(num_clips, 'clip')}, fewer than a batch of {batch_size}: "
                f"each batch is of {num_clips}, all there are"
            )
        elif rest := num_clips % batch_size:
            batches = counted(num_clips // batch_size, "batch", "batches")
            left_out = f"each epoch leaves out {rest}, others each time"
            yield f"note: {num_clips} clips are {batches} of {batch_size}: {left_out}"

    def _of_epoch(self, epoch: int, *, start_batch: int = 0, rank: int = 0, world_size: int = 1) -> EpochBatches:
        schedule = self._schedule
        return EpochBatches(
            self._num_clips,
            schedule.batch_size,
            seed=schedule.seed,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            start_batch=start_batch,
            shuffle=self._shuffle,
            seed_of=self._seed_of,
        )

    def _load(self, keys: Iterator[list[tuple[int, int]]]) -> Generator[dict[str, Tensor], None, None]:
        data = self._data
        return loading.load_batches(
            data.clips, keys, collate_fn=data.collate_fn, num_workers=data.num_workers, device=self._fabric.device
        )


def _shuffle_of(clips: Clips, videos_per_batch: int | None) -> bool | BatchesOfVideos:
    if videos_per_batch is None:
        return True
    if not isinstance(clips, OfVideos):
        raise ValueError(f"{type(clips).__name__} doesn't say of which video an item is (video_of_item)")
    return BatchesOfVideos(clips.video_of_item, videos_per_batch=videos_per_batch)
