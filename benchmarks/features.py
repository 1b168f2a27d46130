"""Features of a two-hour video: at what rate, in what memory, and equal after kills.

The video is prepared already, as `earmark features` finds it: two hours of pictures of 128 x 228 (10 s of a moving
camera over a texture, over and over) and of noise. In turns, on as many windows each: the features as the command
writes them; the same reads by the same loader with nothing done to them; the same encoder and transform on one batch
in memory. The first can't be faster than the slower of the other two; the bar is 0.9 of it. On the CPU loader and
encoder share the processors, and other jobs disturb wall time, so the processor time of all three in one process is
given, too: what writing costs beside reading and computing.

Then the whole video in a process of its own, for its peak of memory beside that of its first half hour; and, with
``--kills N``, the same killed at N random points and started again, which must end with the same bytes.

    python benchmarks/features.py [--folder DIR] [--rounds 3] [--windows 256] [--width 64] [--kills 3] [--seed 0]
"""

import argparse
import hashlib
import itertools
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch

from earmark.clips.collation import collate
from earmark.clips.loading import load_batches
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import VideoCrop
from earmark.clips.windows import WindowClips, WindowOptions, WindowPlan, plan_windows
from earmark.encoders import new_encoder
from earmark.evaluation.feature_settings import FeatureModel, FeatureWriting
from earmark.evaluation.feature_writing import write_features
from earmark.media import PacketIndex, write_prepared
from earmark.moments import detector_parameters, moments_table
from earmark.preparation.catalog import PreparedVideo
from earmark.preparation.record import Record, digest_of_file, save_record
from earmark.preparation.tables import write_catalog, write_description, write_moments_of_store
from loader import pictures

FPS, RATE, BATCH_SIZE = 16, 16000, 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WINDOWS = WindowOptions(window_seconds=0.5, stride_seconds=4.0)
LONG = "two_hours"


def make_store(root: Path, hours: float) -> PreparedStore:
    """Write a store of one long video, unless it is there."""
    if not (root / "store.json").exists():
        rng = np.random.default_rng(0)
        small = (cv2.resize(frame, (228, 128), interpolation=cv2.INTER_AREA) for frame in pictures(rng))
        jpegs = [simplejpeg.encode_jpeg(frame, quality=90) for frame in small]
        num_frames = round(hours * 3600 * FPS)
        path = root / "videos" / f"{LONG}.mov"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = ((1000 * rng.standard_normal(RATE)).astype(np.int16) for _ in range(num_frames // FPS))
        frames = itertools.islice(itertools.cycle(jpegs), num_frames)
        write_prepared(path, frames, fps=FPS, size=(228, 128), sound=sound, sample_rate=RATE)
        index = PacketIndex.of_file(path)
        index.save(path.with_suffix(".index.npz"))
        video = PreparedVideo(
            video_id=LONG,
            path=f"/{LONG}.mp4",
            prepared_path=f"videos/{LONG}.mov",
            split="all",
            duration_seconds=num_frames / FPS,
            num_frames=num_frames,
            width=228,
            height=128,
            has_audio=True,
            num_samples=num_frames // FPS * RATE,
            num_bytes=index.file_size,
            index_digest=index.digest,
            file_digest=digest_of_file(path),
        )
        parameters = {"fps": FPS, "audio_rate": RATE, "short_side": 128, **detector_parameters()}
        table = moments_table({LONG: []}, detector="earmark", parameters=detector_parameters())
        save_record(root, Record(video, (), parameters, "", index.checksum))
        write_catalog(root, [video], parameters, metadata=table.schema.metadata)
        write_moments_of_store(root, table)
        write_description(root, parameters)
    return PreparedStore(root)


def model_of(width: int) -> FeatureModel:
    torch.manual_seed(0)
    return FeatureModel(new_encoder("avid_r2plus1d_18", width=width), VideoCrop(random=False), "random weights")


def first_windows(store: PreparedStore, number: int, start: int = 0) -> WindowPlan:
    """Return a plan of a run of the video's windows."""
    plan = plan_windows(store, WINDOWS)
    video = replace(plan.videos[0], times_seconds=plan.videos[0].times_seconds[start : start + number])
    return replace(plan, videos=(video,))


def write(store: PreparedStore, plan: WindowPlan, model: FeatureModel, num_workers: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        writing = FeatureWriting(batch_size=BATCH_SIZE, num_workers=num_workers, device=DEVICE)
        write_features(store, plan, WINDOWS, {"video": model}, out, writing=writing)


def read(store: PreparedStore, plan: WindowPlan, num_workers: int) -> None:
    clips = WindowClips(store, plan.videos, WINDOWS)
    keys = [(item, 0) for item in range(len(clips))]
    batches = [keys[first : first + BATCH_SIZE] for first in range(0, len(keys), BATCH_SIZE)]
    for _ in load_batches(clips, batches, collate_fn=collate, num_workers=num_workers, device=DEVICE):
        pass


@torch.inference_mode()
def compute(batch: dict[str, torch.Tensor], model: FeatureModel, num_windows: int) -> None:
    for _ in range(num_windows // BATCH_SIZE):
        model.encoder(model.transform(batch["video"], batch["seed"], batch["video_size"])).float().cpu()


def rates(store: PreparedStore, options: argparse.Namespace) -> None:
    model, number = model_of(options.width), options.windows // BATCH_SIZE * BATCH_SIZE
    plan = first_windows(store, number)
    clips = WindowClips(store, plan.videos, WINDOWS)
    batch = {name: value.to(DEVICE) for name, value in clips.read_batch([(k, 0) for k in range(BATCH_SIZE)]).items()}
    model.encoder.to(DEVICE).eval()
    model.transform.to(DEVICE)
    for clock, num_workers in ((time.perf_counter, options.workers), (time.process_time, 0)):
        what = (
            f"windows a second, {num_workers} worker(s)" if num_workers else "ms of the processor a window, one process"
        )
        print(f"{what}; {number} windows, width {options.width}, {DEVICE}")
        print("| features | loader alone | encoder alone | share |\n|---|---|---|---|")
        shares = []
        for turn in range(options.rounds + 1):  # the first warms up
            seconds = []
            for work in (
                partial(write, store, plan, model, num_workers),
                partial(read, store, plan, num_workers),
                partial(compute, batch, model, number),
            ):
                begin = clock()
                work()
                seconds.append(clock() - begin)
            bound = max(seconds[1:]) if num_workers else sum(seconds[1:])
            shown = [number / value if num_workers else 1000 * value / number for value in seconds]
            shares.append(bound / seconds[0])
            if turn:
                print(f"| {shown[0]:.1f} | {shown[1]:.1f} | {shown[2]:.1f} | {shares[-1]:.3f} |", flush=True)
        print(f"median of {options.rounds}: {statistics.median(shares[1:]):.3f}; bar 0.9\n", flush=True)


def extract(options: argparse.Namespace) -> None:
    """Write features of the first windows and print the peak of memory; what the processes that are killed do."""
    store = PreparedStore(options.folder / "store")
    writing = FeatureWriting(batch_size=BATCH_SIZE, num_workers=options.workers, device=DEVICE)
    plan = first_windows(store, options.windows)
    write_features(store, plan, WINDOWS, {"video": model_of(options.width)}, options.extract, writing=writing)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def command(options: argparse.Namespace, out: Path, number: int) -> list[str]:
    how = ["--folder", str(options.folder), "--width", "8", "--workers", str(options.workers), "--windows", str(number)]
    return [sys.executable, __file__, "--extract", str(out), *how]


def memory_and_kills(options: argparse.Namespace, scratch: Path) -> bool:
    number = len(plan_windows(PreparedStore(options.folder / "store"), WINDOWS).videos[0].times_seconds)
    peaks = {}
    for name, windows in (("half an hour", round(1800 / (WINDOWS.stride_seconds or 1))), ("whole", number)):
        begin = time.perf_counter()
        done = subprocess.run(command(options, scratch / name, windows), capture_output=True, text=True, check=True)
        peaks[name] = float(done.stdout)
        seconds = time.perf_counter() - begin
    print(
        f"width 8, {number} windows of the whole video: {seconds:.0f} s; peak of memory {peaks['whole']:.0f} MB, "
        f"of its first half hour {peaks['half an hour']:.0f} MB",
        flush=True,
    )
    whole, rng = digest(scratch / "whole"), random.Random(options.seed)
    num_equal = 0
    for trial in range(options.kills):
        out = scratch / f"trial{trial}"
        process = subprocess.Popen(command(options, out, number), stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.1, 0.95) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        num_parts = len(list((out / ".parts" / LONG).glob("0*.npz")))
        subprocess.run(command(options, out, number), capture_output=True, check=True)
        equal = digest(out) == whole
        num_equal += equal
        print(f"kill {trial + 1}: after {num_parts} parts; resumed, {'equal' if equal else 'DIFFERENT'}", flush=True)
    if options.kills:
        print(f"{num_equal} of {options.kills} equal to the undisturbed run, byte for byte")
    return num_equal == options.kills


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3, help="of the rates; 0 leaves them out")
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extract", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        options.folder = options.folder or Path(scratch)
        if options.extract:
            extract(options)
            return 0
        store = make_store(options.folder / "store", options.hours)
        if options.rounds:
            rates(store, options)
        return 0 if memory_and_kills(options, Path(scratch)) else 1


if __name__ == "__main__":
    sys.exit(main())
