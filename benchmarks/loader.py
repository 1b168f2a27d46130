"""Samples a second a core of the prepared store, beside a naive data set that decodes H.264 anew for every sample.

A sample is what pretraining eats: two clips of 8 frames and 2 s of sound around a moment. Sources are 10 s files of
640x360 at 16 fps with x264's default distance of key frames (250: one for the whole file) and with 16: a texture with
the spectrum of natural pictures under a moving camera, a moving hand, sensor noise; hits and noise for sound.

The naive data set does for every sample what the original code does (arXiv 2209.13583): decode the segment's sound and
search it for peaks, seek and decode each clip, resize and crop each frame with PIL, decode, resample and transform the
sound. Both sides run in one process and one thread, in turns, and are held against their own CPU time, so that other
jobs on the machine disturb the ratio little. The store's side is timed up to the batch that goes to the device, and
once more with crops and log-mels made on the same core, so that both put out the same.

Then threads beside processes through `load_batches`, in turns: samples a second of wall time, and the CPU time a sample
of the program and its workers together.

    python benchmarks/loader.py [--folder DIR] [--videos 12] [--rounds 5] [--only-loaders]
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import scipy.signal
import simplejpeg
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.video.frame import VideoFrame
from PIL import Image
from torch.utils.data import DataLoader

import earmark.clips.store
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import load_batches
from earmark.clips.sampling import EpochBatches
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import IMAGENET_MEAN, IMAGENET_STD, LogMel, VideoCrop
from earmark.datasets import Folder
from earmark.preparation import prepare

WIDTH, HEIGHT, FPS, SECONDS, SOUND_RATE = 640, 360, 16, 10, 48000
CLIP_FRAMES, CLIP_SECONDS, GAP_SECONDS, AUDIO_SECONDS = 8, 0.5, 0.1, 2.0
BATCH_SIZE = 32


# -- Footage ----------------------------------------------------------------------------------------------------------


def texture(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return a picture (H, W, 3) whose amplitudes fall with the frequency, to JPEGs as large as real clips' are."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    falloff = frequency**1.4
    planes = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / falloff) for _ in range(3)]
    luma, *chroma = (plane / plane.std() for plane in planes)
    return np.stack([110 + 45 * luma + 12 * colour for colour in (*chroma, luma)], axis=2).astype(np.float32)


def pictures(rng: np.random.Generator) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames: a head-worn camera sways over a scene, a hand goes to and fro, the sensor adds noise."""
    scene, hand = texture(rng, 2 * HEIGHT, 2 * WIDTH), texture(rng, 160, 160) + np.float32([60, 10, -20])
    mask = (np.hypot(*np.mgrid[-1:1:160j, -1:1:160j]) < 0.9)[..., None].astype(np.float32)
    mask = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
    phase = rng.uniform(0, 2 * np.pi, 6)
    for k in range(FPS * SECONDS):
        angle = 2 * np.pi * k / FPS * np.array([0.21, 0.17, 0.13, 0.9, 0.7, 1.9]) + phase
        sway = np.sin(angle)
        camera = cv2.getRotationMatrix2D((WIDTH, HEIGHT), 4 * sway[2], 1.0)
        camera[:, 2] -= [WIDTH / 2 + 90 * sway[0] + 3 * sway[5], HEIGHT / 2 + 50 * sway[1]]
        frame = cv2.warpAffine(scene, camera, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        top, left = round(100 + 80 * sway[3]), round(240 + 200 * sway[4])
        frame[top : top + 160, left : left + 160] *= 1 - mask
        frame[top : top + 160, left : left + 160] += mask * hand
        frame += 2.5 * rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def wave(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the sound: room noise and a hit every second or so."""
    sound = 0.01 * rng.standard_normal(SOUND_RATE * SECONDS)
    decay = np.exp(-np.arange(SOUND_RATE // 4) / (0.03 * SOUND_RATE))
    for second in range(SECONDS - 1):
        at = round((second + rng.uniform(0.2, 0.8)) * SOUND_RATE)
        sound[at : at + len(decay)] += 0.4 * decay * rng.standard_normal(len(decay))
    return np.clip(sound, -1, 1).astype(np.float32)


def write_footage(path: Path, *, seed: int, gop: int) -> None:
    """Write one source by x264 and AAC with their defaults, but for the distance of key frames."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"g": str(gop)})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for picture in pictures(rng):
            container.mux(video.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        samples = wave(rng)
        for start in range(0, len(samples), 1024):
            frame = AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def make_store(folder: Path, *, num_videos: int, gop: int) -> PreparedStore:
    """Write the sources and prepare them; a second run finds them done."""
    sources = folder / f"gop{gop}"
    sources.mkdir(parents=True, exist_ok=True)
    for number in range(num_videos):
        path = sources / f"{number:03}.mp4"
        if not path.exists():
            write_footage(path.with_suffix(".part.mp4"), seed=number, gop=gop)
            path.with_suffix(".part.mp4").rename(path)
    prepare(Folder(sources).videos()[:num_videos], folder / f"prepared{gop}", num_workers=2)
    return PreparedStore(folder / f"prepared{gop}")


# -- The naive data set -----------------------------------------------------------------------------------------------


@dataclass
class NaiveClips:
    """Every sample from the source: the steps of the original, with PyAV, SciPy, PIL and our log-mel."""

    sources: list[str]
    log_mel: LogMel = field(default_factory=LogMel)

    def __getitem__(self, key: tuple[int, int]) -> tuple[npt.NDArray[np.float32], ...]:
        """Return both clips (3, T, 112, 112) and the log-mel (1, 125, 80)."""
        index, seed = key
        source, rng = self.sources[index], np.random.default_rng(seed)
        moment = rng.choice(self.moments(source))
        before = self.clip(source, moment - GAP_SECONDS - CLIP_SECONDS, rng)
        after = self.clip(source, moment + GAP_SECONDS, rng)
        sound, rate = self.sound(source, moment - AUDIO_SECONDS / 2, AUDIO_SECONDS, resample=16000)
        assert rate == 16000
        padded = np.zeros(round(AUDIO_SECONDS * rate), np.float32)
        padded[: len(sound)] = sound[: len(padded)]
        return before, after, self.log_mel(torch.from_numpy(padded)[None])[0].numpy()

    def moments(self, source: str) -> npt.NDArray[np.float64]:
        """Decode the segment's sound and return the times of its peaks."""
        sound, rate = self.sound(source, 0.0, SECONDS)
        _, times, power = scipy.signal.spectrogram(sound, rate)
        level = np.log10(power + 1e-5)
        curve = ((level - level.mean(1, keepdims=True)) / (level.std(1, keepdims=True) + 1e-5)).mean(0)
        found = times[scipy.signal.find_peaks(curve, distance=10, prominence=1)[0]]
        margin = GAP_SECONDS + CLIP_SECONDS
        return found[(found >= margin) & (found <= SECONDS - margin)]

    def clip(self, source: str, start: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Seek, decode, resize, crop, mirror and normalize one clip."""
        with av.open(source) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek(int(start / stream.time_base), stream=stream)
            frames: list[Image.Image] = []
            for frame in container.decode(stream):
                if frame.time >= start - 0.5 / FPS:
                    frames.append(frame.to_image())
                if len(frames) == CLIP_FRAMES:
                    break
        short = int(rng.integers(128, 181))
        size = (short * WIDTH // HEIGHT, short)
        left, top = int(rng.integers(size[0] - 111)), int(rng.integers(size[1] - 111))
        small = [
            frame.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 112, top + 112)) for frame in frames
        ]
        if rng.random() < 0.5:
            small = [frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for frame in small]
        clip = np.stack([np.asarray(frame, np.float32) for frame in small]) / 255
        return ((clip - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)).transpose(3, 0, 1, 2)

    def sound(
        self, source: str, start: float, seconds: float, *, resample: int | None = None
    ) -> tuple[npt.NDArray[np.float32], int]:
        """Seek and decode a run of sound, resampled if asked for; return it with its rate."""
        with av.open(source) as container:
            stream = container.streams.audio[0]
            rate = resample or stream.codec_context.sample_rate
            convert = AudioResampler(format="fltp", layout="mono", rate=rate)
            container.seek(max(0, int(start / stream.time_base)), stream=stream)
            blocks, first = [], None
            for frame in container.decode(stream):
                if frame.time + frame.samples / frame.sample_rate <= start:
                    continue
                if frame.time >= start + seconds:
                    break
                first = frame.time if first is None else first
                blocks += [block.to_ndarray()[0] for block in convert.resample(frame)]
            blocks += [block.to_ndarray()[0] for block in convert.resample(None)]
        sound = np.concatenate(blocks)
        skip = max(0, round((start - first) * rate))
        return sound[skip : skip + round(seconds * rate)], rate


# -- Measuring --------------------------------------------------------------------------------------------------------


def rate(work: Callable[[Any], object], items: list[Any], *, samples_each: int = 1) -> float:
    """Return the samples done in a second of this process's own time."""
    started = time.process_time()
    for item in items:
        work(item)
    return samples_each * len(items) / (time.process_time() - started)


def batches_of(clips: MomentClips, count: int) -> list[list[tuple[int, int]]]:
    """Return the keys of `count` batches."""
    size, batches, epoch = min(BATCH_SIZE, len(clips)), [], 0
    while len(batches) < count:
        batches += EpochBatches(len(clips), size, seed=0, epoch=epoch)
        epoch += 1
    return batches[:count]


def assemble(clips: MomentClips, keys: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """Do what the loader does for a batch, on this thread."""
    return clips.read_batch(keys)


def with_transforms(
    clips: MomentClips, video_crop: VideoCrop, log_mel: LogMel, keys: list[tuple[int, int]]
) -> tuple[torch.Tensor, ...]:
    """Go on to the model's inputs on this core, as the naive data set does."""
    batch = assemble(clips, keys)
    size, seed = batch["video_size"], batch["seed"]
    before = video_crop(batch["video_before"], seed, size, stream=0)
    return before, video_crop(batch["video_after"], seed, size, stream=1), log_mel(batch["audio"])


@contextmanager
def timed(module: Any, name: str, totals: dict[str, float]) -> Iterator[None]:
    """Add up the time spent in a function."""
    function = getattr(module, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        result = function(*args, **kwargs)
        totals[name] = totals.get(name, 0.0) + time.process_time() - started
        return result

    setattr(module, name, wrapper)
    try:
        yield
    finally:
        setattr(module, name, function)


def time_split(clips: MomentClips, batches: list[list[tuple[int, int]]]) -> dict[str, float]:
    """Return the microseconds that each part of a sample takes, and what collating one not read into a batch would."""
    totals: dict[str, float] = {}
    count = sum(map(len, batches))
    with (
        timed(os, "preadv", totals),
        timed(earmark.clips.store, "crc32", totals),
        timed(simplejpeg, "decode_jpeg", totals),
    ):
        started = time.process_time()
        for keys in batches:
            clips.read_batch(keys)
        totals["assemble"] = time.process_time() - started - sum(totals.values())
    apart = [[clips[key] for key in keys] for keys in batches[:4]]
    started = time.process_time()
    for samples in apart:
        collate(samples)
    totals["collate"] = (time.process_time() - started) * len(batches) / len(apart)
    names = {
        "preadv": "read",
        "crc32": "checksums",
        "decode_jpeg": "JPEG",
        "assemble": "assemble",
        "collate": "(spared: collate)",
    }
    return {name: 1e6 * totals[key] / count for key, name in names.items()}


class WholeBatches:
    """The same clips without what lets processes read them row by row: `load_batches` reads these by threads."""

    def __init__(self, clips: MomentClips) -> None:
        self.read_batch = clips.read_batch


def cpu_seconds() -> float:
    """Return the processor time of this process and of its loader's, so far."""
    ticks = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def through_loader(
    clips: Any, keys: list[list[tuple[int, int]]], num_workers: int, seconds: float
) -> tuple[float, float]:
    """Return samples a second of wall time through `load_batches`, and the microseconds of CPU time a sample."""
    batches = load_batches(clips, cycle(keys), collate_fn=collate, num_workers=num_workers, device=torch.device("cpu"))
    for _ in range(6):  # until all memory has been touched once
        next(batches)
    wall, own, count = time.perf_counter(), cpu_seconds(), 0
    while time.perf_counter() - wall < seconds:
        count += len(next(batches)["index"])
    wall, own = time.perf_counter() - wall, cpu_seconds() - own
    batches.close()
    return count / wall, 1e6 * own / count


def compare_loaders(clips: MomentClips, *, batch_size: int, rounds: int, seconds: float) -> None:
    """Print a table of threads beside processes, in turns."""
    indices = [index % len(clips) for index in range(4 * batch_size)]
    keys = [[(index, place) for place, index in enumerate(indices[k::4])] for k in range(4)]
    ways: dict[str, tuple[Any, int]] = {"in the calling thread": (clips, 0)}
    for num_workers in (1, 2):
        ways[f"{num_workers} thread{'s' * (num_workers > 1)}"] = (WholeBatches(clips), num_workers)
        ways[f"{num_workers} process{'es' * (num_workers > 1)}"] = (clips, num_workers)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (data_set, num_workers) in ways.items():
            measured[name].append(through_loader(data_set, keys, num_workers, seconds))
    print(f"batches of {batch_size}, median of {rounds} rounds of {seconds:g} s in turns")
    print("| loader | samples/s of wall time | CPU time a sample, us | beside one thread, in its round |")
    print("|---|---|---|---|")
    for name, figures in measured.items():
        speeds, costs = zip(*figures, strict=True)
        of_thread = [cost for _, cost in measured["1 thread"]]
        ratio = statistics.median(cost / other for cost, other in zip(costs, of_thread, strict=True))
        print(f"| {name} | {statistics.median(speeds):.0f} | {statistics.median(costs):.0f} | {ratio:.2f} |")
    ratios = [p / t for (p, _), (t, _) in zip(measured["2 processes"], measured["2 threads"], strict=True)]
    print(f"2 processes beside 2 threads, samples/s: {spread(ratios)}, bar 1")


def through_processes(clips: MomentClips, num_workers: int, num_batches: int) -> tuple[float, float]:
    """Return the same of torch's DataLoader with worker processes, which are forked so that their time can be told."""
    before = os.times()
    loader = DataLoader(
        clips,
        batch_sampler=batches_of(clips, num_batches),
        collate_fn=collate,
        num_workers=num_workers,
        multiprocessing_context="fork",
    )
    started, count = time.perf_counter(), 0
    for batch in loader:
        count += len(batch["index"])
    wall = time.perf_counter() - started
    del batch, loader  # the workers' time is known when they have ended
    after = os.times()
    return count / wall, 1e6 * sum(b - a for a, b in zip(before[:4], after[:4], strict=True)) / count


def crop_costs(store: PreparedStore) -> tuple[float, float]:
    """Return the microseconds a sample that cutting its pictures before the transfer takes, and the MB that it saves.

    At the least scale the crop needs a square of 7/8 of the short side; the rest of the picture could stay behind.
    """
    video = next(iter(store.videos.values()))
    picture = np.zeros((video.height, video.width, 3), np.uint8)
    side = min(video.height, video.width) * 7 // 8
    batch = np.zeros((2000 * 2 * CLIP_FRAMES // 100, side, side, 3), np.uint8)
    started = time.process_time()
    for _ in range(100):
        for row in batch:
            row[:] = picture[8 : 8 + side, 8 : 8 + side]
    seconds = time.process_time() - started
    saved = 2 * CLIP_FRAMES * (picture.nbytes - batch[0].nbytes)
    return 1e6 * seconds / 2000, saved / 1e6


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):9.1f}  ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the generated files here")
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20, help="batches of the store a round")
    parser.add_argument("--naive", type=int, default=8, help="samples of the naive data set a round")
    parser.add_argument("--batch-size", type=int, default=128, help="of threads beside processes")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of them a round")
    parser.add_argument("--only-loaders", action="store_true", help="threads beside processes, nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if options.only_loaders:
            clips = MomentClips(make_store(folder, num_videos=options.videos, gop=250))
            compare_loaders(clips, batch_size=options.batch_size, rounds=options.rounds, seconds=options.seconds)
            return
        for gop, bar in ((250, 100), (16, 50)):
            store = make_store(folder, num_videos=options.videos, gop=gop)
            clips = MomentClips(store)
            naive = NaiveClips([store.videos[clips.moment_of(i, 0)[0]].path for i in range(len(clips))])
            batches = batches_of(clips, options.batches)
            keys = [key for batch in batches for key in batch]
            read = partial(assemble, clips)
            read_and_transform = partial(with_transforms, clips, VideoCrop(), LogMel(sample_rate=store.sample_rate))
            rate(read, batches[:2])  # opens the files, fills the page cache
            rate(naive.__getitem__, keys[:1])
            stored, transformed, straight = [], [], []
            for number in range(options.rounds):
                size = len(batches[0])
                stored.append(rate(read, batches, samples_each=size))
                some = keys[number * options.naive : (number + 1) * options.naive]
                straight.append(rate(naive.__getitem__, some))
                transformed.append(rate(read_and_transform, batches[:4], samples_each=size))
            print(f"key frames every {gop} frames; samples a second of one core, median of {options.rounds} rounds")
            print(f"  naive data set              {spread(straight)}")
            print(f"  store, batches for a device {spread(stored)}")
            print(f"    ratio, bar {bar:3}            {spread([a / b for a, b in zip(stored, straight, strict=True)])}")
            print(f"  store, crops and log-mels   {spread(transformed)}")
            ratios = [a / b for a, b in zip(transformed, straight, strict=True)]
            print(f"    ratio                     {spread(ratios)}")
        split = time_split(clips, batches)
        print("microseconds a sample: " + ", ".join(f"{part} {value:.0f}" for part, value in split.items()))
        cut_us, saved = crop_costs(store)
        print(f"cutting pictures before the transfer: {cut_us:.0f} us a sample, saves {saved:.2f} MB of it")
        compare_loaders(clips, batch_size=options.batch_size, rounds=options.rounds, seconds=options.seconds)
        for workers in (1, 2):
            speed, own = through_processes(clips, workers, options.batches)
            print(
                f"{workers} DataLoader processes: {speed:.0f} samples/s of wall time, {own:.0f} us of CPU time a sample"
            )
        sample = assemble(clips, batches[0])
        num_bytes = sum(sample[name][0].nbytes for name in ("video_before", "video_after", "audio"))
        print(f"a sample of the batch: {num_bytes / 1e6:.2f} MB")
        hours = sum(video.duration_seconds for video in store.videos.values()) / 3600
        print(f"the store: {sum(video.num_bytes for video in store.videos.values()) / hours / 1e9:.2f} GB an hour")


if __name__ == "__main__":
    main()
