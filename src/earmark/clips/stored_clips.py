"""What the data sets of clips share: reading the sample of a key, alone or in a whole batch.

Path of a sample: store --> `StoredClips` --> batch; `earmark.clips.dataset` says which clips of which videos.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from earmark.clips.collation import collate, empty_rows
from earmark.clips.sampling import Key, Visits
from earmark.clips.store import PreparedStore

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
        clip_names: The clips of a sample, in temporal order.
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
        every pass is that of epoch 0. Item i is then what the key ``(i, sample_seed(seed, epoch, i))`` gives (see
        `earmark.clips.sampling`).

        Args:
            epoch: Counted from 0.
            seed: Seed of the run.

        Raises:
            ValueError: If a number is negative or too large for an int64.
        """
        self._visits.set_epoch(epoch, seed=seed)

    def _visit(self, key: Key) -> tuple[int, int]:
        return self._visits.of(key, num_items=len(self))

    def _window(self, index: int, seed: int) -> ClipWindow:
        """Return what a visit reads."""
        raise NotImplementedError

    def _labels(self, index: int, seed: int) -> dict[str, int]:
        """Return what else a visit carries."""
        return {}

    def __getitem__(self, key: Key) -> Sample:
        visit = self._visit(key)
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
        visits = [self._visit(key) for key in keys]
        windows = [self._window(*visit) for visit in visits]
        sizes = {(video.height, video.width) for video in (self.store.videos[w.video_id] for w in windows)}
        if len(sizes) > 1:
            batch = collate(list(run(self.__getitem__, visits)))
            return {name: tensor.pin_memory() for name, tensor in batch.items()} if pin_memory else batch
        height, width = sizes.pop()
        shape = (len(keys), self.num_frames, height, width, 3)
        batch = {name: empty_rows(shape, torch.uint8, pin_memory) for name in self.clip_names}
        audio = empty_rows((len(keys), self.num_samples or 0), torch.int16, pin_memory)
        clips, sounds = [batch[name].numpy() for name in self.clip_names], audio.numpy()

        def read_row(row: int) -> None:
            self._read(windows[row], [clip[row] for clip in clips], sounds[row])

        deque(run(read_row, range(len(keys))), maxlen=0)  # waits for all, and raises what one raised
        batch |= {name: batch[clip] for name, clip in self.same_clips.items()}
        if self.num_samples is not None:
            batch["audio"] = audio
        batch["video_size"] = torch.tensor([height, width]).repeat(len(keys), 1)
        others = [{"index": index, "seed": seed} | self._labels(index, seed) for index, seed in visits]
        return batch | collate(others)

    def _read(self, window: ClipWindow, clips: Sequence[npt.NDArray[np.uint8]], sound: npt.NDArray[np.int16]) -> None:
        self.store.read_into(
            [frame for clip in clips for frame in clip],
            sound,
            window.video_id,
            window.times_seconds,
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
