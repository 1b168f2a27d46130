"""What the data sets of clips share: reading the sample of a key, alone or in a whole batch.

Path of a sample: store --> `StoredClips` --> batch; `earmark.clips.dataset` says which clips of which videos.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from earmark.clips.collation import empty_rows
from earmark.clips.sampling import Key, Visits, sample_seed
from earmark.clips.store import PreparedStore
from earmark.datasets import parent_of

__all__ = ["ClipWindow", "StoredClips", "num_frames_of"]

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClipWindow:
    """Which part of which video a sample shows.

    Attributes:
        video_id: The video.
        times_seconds: Times of the frames of all clips, one clip after another.
        sound_start_seconds: Time of the first sample of sound.
    """

    video_id: str
    times_seconds: npt.NDArray[np.float64]
    sound_start_seconds: float


class StoredClips(Dataset[Sample]):
    """What both data sets share: reading the sample of a key, alone or in a whole batch.

    Attributes:
        store: Prepared videos.
        clip_names: The clips of a sample, in temporal order; empty where only sound is read.
        same_clips: Further names, each with the clip that it is an alias of.
        num_frames: Frames of each, T.
        num_samples: Samples of sound, S; None for no sound.
    """

    store: PreparedStore
    clip_names: tuple[str, ...]
    same_clips: Mapping[str, str] = MappingProxyType({})
    num_frames: int
    num_samples: int | None

    def __init__(self) -> None:
        self._visits = Visits()

    def __len__(self) -> int:
        raise NotImplementedError

    def set_epoch(self, epoch: int, *, seed: int = 0) -> None:
        """Say which epoch begins, so that keys without a seed get new draws: moments, gaps, crops.

        Call it before each pass of a `torch.utils.data.DataLoader`, as for torch's own DistributedSampler; otherwise
        every pass is that of epoch 0. Item i is then what the key ``(i, visit_seed(seed, epoch, i))`` gives.

        Args:
            epoch: Counted from 0.
            seed: Seed of the run.

        Raises:
            ValueError: If a number is negative or too large for an int64.
        """
        self._visits.set_epoch(epoch, seed=seed)

    def visit_seed(self, seed: int, epoch: int, index: int) -> int:
        """Return the seed of an item's visit in an epoch (see `earmark.clips.sampling.sample_seed`).

        Args:
            seed: Seed of the run.
            epoch: Counted from 0.
            index: Which item.
        """
        return sample_seed(seed, epoch, index)

    def visit(self, key: Key) -> tuple[int, int]:
        """Return the index, counted from the start, and the seed that a key means.

        Raises:
            IndexError: If there is no such item.
        """
        return self._visits.of(key, num_items=len(self), seed_of=self.visit_seed)

    def describe(self, index: int, seed: int) -> str:
        """Name a visit by video and time."""
        window = self._window(index, seed)
        return f"{window.video_id} from {window.times_seconds[0]:.2f} s"

    def _videos_of_items(self) -> tuple[Sequence[str], npt.NDArray[np.integer[Any]]]:
        """Return ids of videos, and for each item which of them it is of, (num_items,)."""
        raise NotImplementedError

    @property
    def video_of_item(self) -> npt.NDArray[np.integer[Any]]:
        """A number of the video that each item is of, (num_items,); cuts of one video have the same."""
        video_ids, which = self._videos_of_items()
        parents = np.unique([parent_of(video_id) for video_id in video_ids], return_inverse=True)[1]
        of_item: npt.NDArray[np.integer[Any]] = parents[which]
        return of_item

    @cached_property
    def _picture_sizes(self) -> npt.NDArray[np.int32]:
        """Height and width of each item's pictures, (num_items, 2)."""
        video_ids, which = self._videos_of_items()
        videos = [self.store.videos[video_id] for video_id in video_ids]
        sizes: npt.NDArray[np.int32] = np.array([(video.height, video.width) for video in videos], np.int32)[which]
        return sizes

    def picture_size(self, indices: Sequence[int] | None = None) -> tuple[int, int]:
        """Return the height and the width that hold the pictures of some items; None for all.

        Raises:
            ValueError: If there are none.
        """
        sizes = self._picture_sizes if indices is None else self._picture_sizes[list(indices)]
        if not len(sizes):
            raise ValueError("a batch needs at least one sample")
        height, width = sizes.max(axis=0).tolist()
        return height, width

    def row_shapes(self, picture_size: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
        """Return shape and type of a row of each array of a batch whose pictures are (height, width) large."""
        clip, number = (self.num_frames, *picture_size, 3), ()
        shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = dict.fromkeys(self.clip_names, (clip, np.uint8))
        if self.num_samples is not None:
            shapes["audio"] = ((self.num_samples,), np.int16)
        shapes["video_size"] = ((2,), np.int64)
        return shapes | dict.fromkeys(("index", "seed", *self._labels(0, 0)), (number, np.int64))

    def read_row(self, index: int, seed: int, row: Mapping[str, npt.NDArray[Any]]) -> None:
        """Read a visit into a row of each array of a batch, zeros where its pictures are smaller than those.

        Args:
            index: Which item.
            seed: Randomness of the visit.
            row: The arrays that `row_shapes` says, whatever they hold.

        Raises:
            earmark.preparation.catalog.StoreError: If the video is damaged; the message names video, time and file.
        """
        window = self._window(index, seed)
        video = self.store.videos[window.video_id]
        size = (video.height, video.width)
        clips = [row[name] for name in self.clip_names]
        whole = clips
        if (
            clips and clips[0].shape[1:3] != size
        ):  # a picture is decoded into contiguous memory, which a part of a row is not
            whole = [np.empty((self.num_frames, *size, 3), np.uint8) for _ in clips]
        self._read(window, whole, row["audio"] if self.num_samples is not None else np.empty(0, np.int16))
        if whole is not clips:
            for clip, picture in zip(clips, whole, strict=True):
                clip[:, : video.height, : video.width] = picture
                clip[:, video.height :] = 0
                clip[:, : video.height, video.width :] = 0
        row["video_size"][...] = size
        for name, value in {"index": index, "seed": seed, **self._labels(index, seed)}.items():
            row[name][...] = value

    def _window(self, index: int, seed: int) -> ClipWindow:
        """Return what a visit reads."""
        raise NotImplementedError

    def _labels(self, index: int, seed: int) -> dict[str, int]:
        """Return what else a visit carries."""
        return {}

    def __getitem__(self, key: Key) -> Sample:
        visit = self.visit(key)
        window = self._window(*visit)
        video = self.store.videos[window.video_id]
        clips = [np.empty((self.num_frames, video.height, video.width, 3), np.uint8) for _ in self.clip_names]
        sound = np.empty(self.num_samples or 0, np.int16)
        self._read(window, clips, sound)
        sample: Sample = dict(zip(self.clip_names, clips, strict=True))
        sample |= {name: sample[clip] for name, clip in self.same_clips.items()}
        if self.num_samples is not None:
            sample["audio"] = sound
        return sample | {"index": visit[0], "seed": visit[1]} | self._labels(*visit)

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Tensor]:
        """Return a whole batch, which is how a DataLoader asks; `collate` lets it pass as it is."""
        return self.read_batch(keys)

    def read_batch(
        self,
        keys: Sequence[Key],
        *,
        run: Callable[..., Iterable[Any]] = map,
        pin_memory: bool = False,
    ) -> dict[str, Tensor]:
        """Return a whole batch, with the pictures decoded straight into it.

        Args:
            keys: The (index, seed), or the index, of each sample.
            run: Applies a function to each row: `map`, or that of a pool of threads.
            pin_memory: Read into pinned memory, from which a GPU copies by itself.

        Returns:
            The batch as `earmark.clips.dataset` describes it.

        Raises:
            earmark.preparation.catalog.StoreError: If a video is damaged; the message names video, time and file.
        """
        visits = [self.visit(key) for key in keys]
        size = self.picture_size([index for index, _ in visits])
        batch = {
            name: empty_rows((len(keys), *shape), dtype, pin_memory)
            for name, (shape, dtype) in self.row_shapes(size).items()
        }
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}

        def read_row(row: int) -> None:
            self.read_row(*visits[row], {name: array[row, ...] for name, array in arrays.items()})

        deque(run(read_row, range(len(keys))), maxlen=0)  # waits for all, and raises what one raised
        return batch | {name: batch[clip] for name, clip in self.same_clips.items()}

    def _read(self, window: ClipWindow, clips: Sequence[npt.NDArray[np.uint8]], sound: npt.NDArray[np.int16]) -> None:
        self.store.read_into(
            [frame for clip in clips for frame in clip],
            sound,
            window.video_id,
            window.times_seconds if clips else (),
            sound_start_seconds=window.sound_start_seconds,
        )


def num_frames_of(clip_seconds: float, clip_fps: float, store: PreparedStore) -> int:
    """Return how many frames a clip has.

    Raises:
        ValueError: If it has none, or the store does not hold a separate frame for each at its time.
    """
    if clip_seconds <= 0 or clip_fps <= 0 or round(clip_seconds * clip_fps) < 1:
        raise ValueError(f"a clip of {clip_seconds} s at {clip_fps} frames per second has no frame")
    ratio = store.fps / clip_fps
    if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-9:
        how = "be repeated" if ratio < 1 else "be unevenly spaced"
        raise ValueError(
            f"{store.root}: holds {store.fps:g} frames per second, which clips of {clip_fps:g} frames per second do "
            f"not divide: frames would {how}"
        )
    return round(clip_seconds * clip_fps)
