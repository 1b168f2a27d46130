"""SPDL beside what Earmark does: decoding of stored pictures, a pipeline of threads, worker processes.

The store is that of `loader.py`: 10 s files prepared at a short side of 128, JPEGs of 228 x 128. Three questions, each
asked in turns in one run, with wall time and CPU time (that of worker processes too):

1. A picture from its bytes in memory to RGB: simplejpeg into a given array, as the store does it; `spdl.io` one by one
   and 16 at a time.
2. Whole batches by threads: `load_batches`; a pipeline of `spdl.pipeline` whose stage reads a batch by the same code.
3. Whole batches by worker processes: torch's DataLoader; `spdl.pipeline.iterate_in_subprocess` through its queue and
   through its ring of shared memory. What `load_batches` does with its workers is the line of question 2.

`spdl-io` and `spdl-core` are no dependencies of Earmark: install them beside it. `spdl-io` needs FFmpeg's own shared
libraries (Debian: `libavfilter-dev`, or `ffmpeg`).

    python benchmarks/loader_peers.py [--folder DIR] [--rounds 5] [--batches 20] [--workers 1 2]
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import simplejpeg
import spdl.io
import spdl.pipeline
import torch
from torch.utils.data import DataLoader

from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import load_batches
from loader import BATCH_SIZE, batches_of, make_store

Keys = list[tuple[int, int]]
PICTURES_AT_ONCE = 16  # of one sample


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    parts = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(part.ru_utime + part.ru_stime for part in parts)


def stored_pictures(clips: MomentClips, keys: Keys) -> list[bytes]:
    """Return the bytes that the store decodes for some samples."""
    pictures: list[bytes] = []
    decode = simplejpeg.decode_jpeg

    def keep(jpeg: Any, *args: Any, **kwargs: Any) -> npt.NDArray[np.uint8]:
        pictures.append(bytes(jpeg))
        return decode(jpeg, *args, **kwargs)  # type: ignore[no-any-return]

    with patch.object(simplejpeg, "decode_jpeg", keep):
        clips.read_batch(keys)
    return pictures


# -- Pictures ---------------------------------------------------------------------------------------------------------


def by_simplejpeg(pictures: list[bytes], out: npt.NDArray[np.uint8]) -> None:
    for row, jpeg in zip(out, pictures, strict=True):
        simplejpeg.decode_jpeg(jpeg, "RGB", buffer=row, fastupsample=True)


def by_spdl_one_by_one(pictures: list[bytes], out: npt.NDArray[np.uint8]) -> None:
    for row, jpeg in zip(out, pictures, strict=True):
        row[:] = spdl.io.to_numpy(spdl.io.load_image(jpeg))


def by_spdl_at_once(pictures: list[bytes], out: npt.NDArray[np.uint8]) -> None:
    out[:] = spdl.io.to_numpy(spdl.io.load_image_batch(pictures, width=None, height=None))


DECODERS = {
    "simplejpeg into an array": by_simplejpeg,
    "spdl.io.load_image": by_spdl_one_by_one,
    f"spdl.io.load_image_batch, {PICTURES_AT_ONCE} at once": by_spdl_at_once,
}


def picture_table(pictures: list[bytes], *, num_threads: int, rounds: int) -> None:
    """Print pictures a second of every decoder, and how far its pixels are from the store's."""
    shape = simplejpeg.decode_jpeg(pictures[0], "RGB").shape
    groups = [pictures[k : k + PICTURES_AT_ONCE] for k in range(0, len(pictures), PICTURES_AT_ONCE)]
    outs = [np.empty((len(group), *shape), np.uint8) for group in groups]
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in DECODERS}
    decoded: dict[str, npt.NDArray[np.uint8]] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        for number in range(rounds + 1):  # the first warms up
            for name, decode in DECODERS.items():
                wall, own = time.perf_counter(), cpu_seconds()
                list(pool.map(decode, groups, outs))
                times = time.perf_counter() - wall, cpu_seconds() - own
                decoded[name] = outs[0].copy()
                if number:
                    measured[name].append(times)
    print(f"\n| pictures of {shape[1]} x {shape[0]} from memory, {num_threads} threads | pictures/s | CPU us each | ")
    print("|---|---|---|")
    truth = decoded["simplejpeg into an array"].astype(int)
    for name, times in measured.items():
        wall, own = (statistics.median(column) for column in zip(*times, strict=True))
        off = np.abs(decoded[name] - truth)
        note = "" if not off.any() else f" (pixels differ by {off.mean():.2f} on average, {off.max()} at most)"
        print(f"| {name}{note} | {len(pictures) / wall:.0f} | {1e6 * own / len(pictures):.0f} |")


# -- Batches ----------------------------------------------------------------------------------------------------------


def as_arrays(clips: MomentClips, keys: Keys) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in clips.read_batch(keys).items()}


def produced(clips: MomentClips, batches: list[Keys]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    return map(partial(as_arrays, clips), batches)


def ours(clips: MomentClips, batches: list[Keys], num_workers: int) -> Iterator[dict[str, Any]]:
    return load_batches(clips, batches, collate_fn=collate, num_workers=num_workers, device=torch.device("cpu"))


def spdl_threads(clips: MomentClips, batches: list[Keys], num_workers: int) -> Iterator[dict[str, Any]]:
    builder = spdl.pipeline.PipelineBuilder().add_source(batches)
    read = builder.pipe(clips.read_batch, concurrency=num_workers, output_order="input").add_sink(2)
    pipeline = read.build(num_threads=num_workers)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def torch_processes(clips: MomentClips, batches: list[Keys], num_workers: int) -> Iterator[dict[str, Any]]:
    yield from DataLoader(
        clips, batch_sampler=batches, collate_fn=collate, num_workers=num_workers, multiprocessing_context="fork"
    )


def spdl_processes(
    clips: MomentClips, batches: list[Keys], num_workers: int, *, in_ring: bool
) -> Iterator[dict[str, Any]]:
    """Yield the batches of processes that take turns; forked, so that their time can be told."""
    num_bytes = sum(array.nbytes for array in as_arrays(clips, batches[0]).values())
    sources: list[Iterable[dict[str, Any]]] = []
    for number in range(num_workers):
        arena = spdl.pipeline.SharedMemoryRingBuffer(5 * num_bytes) if in_ring else None
        some = partial(produced, clips, batches[number::num_workers])
        sources.append(spdl.pipeline.iterate_in_subprocess(some, buffer_size=2, mp_context="fork", arena=arena))
    yield from (batch for batch in chain.from_iterable(zip_longest(*sources)) if batch is not None)


LOADERS: dict[str, Callable[[MomentClips, list[Keys], int], Iterator[dict[str, Any]]]] = {
    "load_batches": ours,
    "spdl.pipeline, threads over read_batch": spdl_threads,
    "torch's DataLoader, processes": torch_processes,
    "spdl iterate_in_subprocess, queue": partial(spdl_processes, in_ring=False),
    "spdl iterate_in_subprocess, SharedMemoryRingBuffer": partial(spdl_processes, in_ring=True),
}


def time_of(loader: Iterator[dict[str, Any]], num_samples: int) -> tuple[float, float]:
    """Return samples a second of wall time, workers' start left out, and microseconds of CPU time a sample in all."""
    own = cpu_seconds()
    seen = len(next(loader)["index"])
    first, started = seen, time.perf_counter()
    for batch in loader:
        seen += len(batch["index"])
    wall = time.perf_counter() - started
    assert seen == num_samples, f"{seen} of {num_samples} samples came"
    return (seen - first) / wall, 1e6 * (cpu_seconds() - own) / seen


def batch_table(clips: MomentClips, batches: list[Keys], *, num_workers: int, rounds: int) -> None:
    """Print samples a second of every loader."""
    num_samples = sum(map(len, batches))
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
    for _ in range(rounds):
        for name, load in LOADERS.items():
            measured[name].append(time_of(load(clips, batches, num_workers), num_samples))
    print(f"\n| batches of {len(batches[0])} by {num_workers} worker(s) | samples/s | CPU us a sample |\n|---|---|---|")
    for name, times in measured.items():
        speed, own = zip(*times, strict=True)
        spread = f"({min(speed):.0f} to {max(speed):.0f})"
        print(f"| {name} | {statistics.median(speed):.0f} {spread} | {statistics.median(own):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the generated files here")
    parser.add_argument("--videos", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ("spdl_io", "spdl_core", "simplejpeg", "torch", "numpy")
    print(
        ", ".join(f"{name} {version(name)}" for name in names), f"; {os.cpu_count()} cores, load {os.getloadavg()[0]}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        clips = MomentClips(make_store(options.folder or Path(scratch), num_videos=options.videos, gop=250))
        rows = -(-options.batches * BATCH_SIZE // min(BATCH_SIZE, len(clips)))
        keys = list(chain.from_iterable(batches_of(clips, rows)))
        batches = [keys[k * BATCH_SIZE : (k + 1) * BATCH_SIZE] for k in range(options.batches)]
        pictures = stored_pictures(clips, list(chain.from_iterable(batches[:2])))
        for num_workers in options.workers:
            picture_table(pictures, num_threads=num_workers, rounds=options.rounds)
            batch_table(clips, batches, num_workers=num_workers, rounds=options.rounds)


if __name__ == "__main__":
    main()
