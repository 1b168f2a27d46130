"""Samples a second a core of the prepared store, beside the same windows read straight from H.264 with PyAV.

A sample is what pretraining eats: two clips of 8 frames and 2 s of sound around a moment. Sources are generated 10 s
files of 640x360 at 16 fps, as the original used them. Both sides run in one process and one thread, in turns, on the
same moments, so that the ratio holds when the machine's speed drifts.

    python benchmarks/loader.py [--folder DIR] [--videos 48] [--rounds 5]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from earmark.clips import MomentClips, collate
from earmark.datasets import Kitchen
from earmark.kitchen import make_kitchen
from earmark.media import SoundReader, read_frames
from earmark.prepare import prepare
from earmark.sampling import EpochBatches, sample_seed
from earmark.store import PreparedStore


def make_store(folder: Path, num_videos: int) -> PreparedStore:
    """Generate the sources and prepare them; a second run finds them done."""
    kitchens = 6
    make_kitchen(
        folder / "kitchen",
        preset=None,
        num_kitchens=kitchens,
        videos_per_kitchen=max(1, num_videos // kitchens),
        video_seconds=10.0,
        width=640,
        height=360,
        fps=16,
        num_workers=2,
    )
    prepare(Kitchen(folder / "kitchen").videos(), folder / "prepared", num_workers=2)
    return PreparedStore(folder / "prepared")


def read_from_source(
    clips: MomentClips, index: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Read the same sample from the source file: seek, decode, scale; decode and resample the sound."""
    video_id, moment = clips.moment_of(index, seed)
    source = clips.store.videos[video_id].path
    steps = np.arange(clips.num_frames) / clips.clip_fps
    start = moment - clips.gap_seconds - clips.clip_seconds
    frames = read_frames(source, np.concatenate([start + steps, moment + clips.gap_seconds + steps]), short_side=128)
    sound = np.concatenate(list(SoundReader(source, sample_rate=clips.sample_rate)))
    first = max(0, round((moment - clips.audio_seconds / 2) * clips.sample_rate))
    return frames, sound[first : first + clips.num_samples]


def samples_a_second(read: object, keys: list[tuple[int, int]]) -> float:
    """Time reading all keys once."""
    assert callable(read)
    started = time.perf_counter()
    for key in keys:
        read(key)
    return len(keys) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the generated files here")
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        clips = MomentClips(make_store(options.folder or Path(scratch), options.videos))
        keys = [(index, sample_seed(0, epoch, index)) for epoch in range(8) for index in range(len(clips))]
        few = keys[:: max(1, len(keys) // 24)]
        samples_a_second(clips.__getitem__, keys)  # opens the files, fills the page cache
        stored, straight, ratios = [], [], []
        for _ in range(options.rounds):
            stored.append(samples_a_second(clips.__getitem__, keys))
            straight.append(samples_a_second(lambda key: read_from_source(clips, *key), few))
            ratios.append(stored[-1] / straight[-1])
        for name, rates in (("store, one core", stored), ("H.264 with PyAV, one core", straight)):
            print(f"{name:26}{statistics.median(rates):8.1f} samples/s ({min(rates):.1f} to {max(rates):.1f})")
        print(f"{'ratio, median of rounds':26}{statistics.median(ratios):8.1f}")
        for workers in (1, 2):
            print(f"{f'DataLoader, {workers} worker(s)':26}{through_loader(clips, workers):8.1f} samples/s")
        num_bytes = sum(video.num_bytes for video in clips.store.videos.values())
        hours = sum(video.duration_seconds for video in clips.store.videos.values()) / 3600
        print(f"{'size of the store':26}{num_bytes / hours / 1e9:8.2f} GB an hour of video")


def through_loader(clips: MomentClips, workers: int) -> float:
    """Samples a second of collated batches of 32 through worker processes, from the second batch on."""
    keys = [
        batch for epoch in range(40) for batch in EpochBatches(len(clips), min(32, len(clips)), seed=0, epoch=epoch)
    ]
    loader = DataLoader(
        clips, batch_sampler=keys, collate_fn=collate, num_workers=workers, multiprocessing_context="forkserver"
    )
    batches = iter(loader)
    next(batches)
    started = time.perf_counter()
    count = sum(len(batch["index"]) for batch in batches)
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
