"""Whether a store that is as large as the largest scale of the crops changes what is learned, and what it costs.

Crops are cut from pictures whose short side is scaled to a random length, of 128 to 180 pixels in the paper. A store of
128 only enlarges for that; a store of 180 is scaled down, as the paper's sources of 360 were. Parts (all, where none is
named):

sharpness  Mean square gradient of what a store gives at a scale, over that of the source's own pictures scaled there
           by the same filter, as the original does. Real clips of --media; the kitchen where none is named.
cost       Samples and bytes a second of the loader with crops, and the size of the store.
probes     Pretrains small encoders on one kitchen prepared in both sizes, with the same seeds, clips and crops, and
           probes them; differences are paired by seed. How well features tell the scale of the crop is measured, too.

    python benchmarks/store_size.py [PART ..] [--folder DIR] [--media DIR] [--crop 112] [--seeds 6] [--steps 150]
"""

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import scipy.stats
import torch
from torch import nn

from earmark.clips.action_clips import ActionClips
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import load_batches
from earmark.clips.sampling import EpochBatches
from earmark.clips.splitmix64 import random_integers
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.datasets import Folder, Kitchen
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation.features import FeatureOptions, extract_features
from earmark.evaluation.metrics import majority_accuracy, top_k_accuracy
from earmark.evaluation.probe import ProbeOptions, linear_probe
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.media import read_frames
from earmark.methods import Supervised
from earmark.methods.replai import AudioVisualModel
from earmark.preparation import Transcoding, prepare
from earmark.training.optim import one_cycle, sgd
from earmark.training.speed import use_channels_last

BATCH_SIZE = 32
CPU = torch.device("cpu")
Array = npt.NDArray[Any]


def row(what: str, *values: str) -> None:
    print(f"| {what} | {' | '.join(values)} |", flush=True)


def scales(crop_size: int) -> tuple[int, int]:
    """Return the smallest and the largest short side before the crop, in the paper's proportion to it."""
    return round(crop_size * 128 / 112), 2 * round(crop_size * 180 / 112 / 2)


def kitchen_at(folder: Path, options: argparse.Namespace) -> Path:
    make_kitchen(
        folder / "kitchen",
        preset="small",
        size=KitchenSize(options.kitchens, 5, 60.0, fps=16, sample_rate=16000),
        test_split=False,
        num_workers=options.workers,
    )
    return folder / "kitchen"


def kitchen_store(folder: Path, short_side: int, options: argparse.Namespace) -> PreparedStore:
    videos = Kitchen(kitchen_at(folder, options)).videos()
    prepare(
        videos,
        folder / f"prepared{short_side}",
        transcoding=Transcoding(short_side=short_side),
        num_workers=options.workers,
    )
    return PreparedStore(folder / f"prepared{short_side}")


# --- sharpness ---


def gradient_energy(frames: Array) -> float:
    """Return the mean square difference of neighbouring pixels' grey values, of frames (T, H, W, 3)."""
    grey = frames.astype(np.float64) @ [0.299, 0.587, 0.114]
    return float(np.square(np.diff(grey, axis=1)).mean() + np.square(np.diff(grey, axis=2)).mean())


def shown_at(frames: Array, short_side: int, *, crop_size: int) -> Array:
    """Return what an encoder is shown of the centre of frames (T, H, W, 3) at a scale, from 0 to 255."""
    crop = VideoCrop(crop_size=crop_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), random=False)
    crop.min_short_side = crop.max_short_side = short_side
    shown = crop(torch.from_numpy(frames)[None], torch.zeros(1, dtype=torch.int64))[0] * 255
    return np.asarray(shown.permute(1, 2, 3, 0).numpy())


def sharpness(folder: Path, options: argparse.Namespace) -> None:
    """Compare what stores give at five scales with the source scaled there."""
    sources = Folder(options.media or kitchen_at(folder, options)).videos()
    small, large = scales(options.crop)
    # at its own size a store is shown unfiltered, one draw in fifty: so its neighbours are looked at, too
    looked_at = (small, small + 4, (small + large) // 2, large - 4, large)
    found: dict[tuple[int, int], list[float]] = {}
    num_used = 0
    stores = {}
    for short_side in (small, large):
        prepare(
            sources,
            folder / f"clips{short_side}",
            transcoding=Transcoding(short_side=short_side),
            num_workers=options.workers,
        )
        stores[short_side] = PreparedStore(folder / f"clips{short_side}")
    for source in sources[:: max(1, len(sources) // 20)]:
        video = stores[small].videos.get(source.video_id)
        if video is None or min(video.source_width, video.source_height) < large:
            continue
        num_used += 1
        times = np.round((np.arange(8) + 0.5) / 8 * (video.duration_seconds - 0.2) * 16) / 16
        true = read_frames(source.path, times)
        for scale in looked_at:
            energy = gradient_energy(shown_at(true, scale, crop_size=options.crop))
            for short_side, store in stores.items():
                stored = shown_at(store.frames(video.video_id, times), scale, crop_size=options.crop)
                found.setdefault((short_side, scale), []).append(gradient_energy(stored) / energy)
    for short_side in stores:
        cells = [
            f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            for scale in looked_at
            for ratios in [found[short_side, scale]]
        ]
        row(f"store of {short_side}, {num_used} videos, at {', '.join(map(str, looked_at))}", *cells)


# --- cost ---


def cost(folder: Path, options: argparse.Namespace) -> None:
    """Time the loader with crops in one thread, both stores in turns, by the process's own time."""
    small, large = scales(options.crop)
    stores = {side: kitchen_store(folder, side, options) for side in (small, large)}
    rates: dict[tuple[int, str], list[float]] = {}
    crop = VideoCrop(crop_size=options.crop, min_short_side=small, max_short_side=large)
    for turn in range(5):
        for side, store in stores.items():
            clips = MomentClips(store, splits=["train"])
            batches = list(EpochBatches(len(clips), BATCH_SIZE, seed=0, epoch=turn))[:4]
            for what in ("read", "read and cropped"):
                num_samples, started = 0, time.process_time()
                for batch in load_batches(clips, batches, collate_fn=collate, num_workers=0, device=CPU):
                    num_samples += len(batch["seed"])
                    if what != "read":
                        for stream, name in enumerate(("video_before", "video_after")):
                            crop(batch[name], batch["seed"], batch["video_size"], stream=stream)
                rates.setdefault((side, what), []).append(num_samples / (time.process_time() - started))
    for side, store in stores.items():
        num_bytes = sum(video.num_bytes for video in store.catalog)
        hours = sum(video.duration_seconds for video in store.catalog) / 3600
        frame = sum(video.num_frames * video.width * video.height for video in store.catalog) / sum(
            video.num_frames for video in store.catalog
        )
        row(
            f"store of {side}",
            *(f"{statistics.median(rates[side, what]):.0f} samples/s {what}" for what in ("read", "read and cropped")),
            f"{num_bytes / hours / 1e9:.2f} GB an hour",
            f"{16 * frame * 3 / 1e6:.2f} MB a sample to the device",
        )


# --- probes ---


def pretrained(store: PreparedStore, actions: Any, num_classes: dict[str, int], seed: int, options: Any) -> nn.Module:
    """Train on the store's training split for the given steps; return the video encoder."""
    torch.manual_seed(seed)
    video, audio = R2Plus1D(10, width=options.width), SpecCNN9(width=options.width)
    video.initialise()
    audio.initialise()
    supervised = options.criterion == "supervised"
    model = Supervised(video, num_classes=num_classes) if supervised else AudioVisualModel(video, audio)
    use_channels_last(model)
    small, large = scales(options.crop)
    clips = MomentClips(store, splits=["train"], actions=actions if supervised else ())
    crop, log_mel = VideoCrop(crop_size=options.crop, min_short_side=small, max_short_side=large), LogMel()
    optimizer = sgd(model.parameters(), lr=options.lr)
    cycle = one_cycle(optimizer, max_lr=options.lr, total_steps=options.steps, first_step=0)
    batches: list[Any] = []
    for epoch in itertools.count():
        if len(batches) >= options.steps:
            break
        batches += EpochBatches(len(clips), BATCH_SIZE, seed=seed, epoch=epoch)
    for batch in load_batches(clips, batches[: options.steps], collate_fn=collate, num_workers=0, device=CPU):
        before, after = (
            crop(batch[name], batch["seed"], batch["video_size"], stream=stream)
            for stream, name in enumerate(("video_before", "video_after"))
        )
        labels = {name.removeprefix("label_"): batch[name] for name in batch if name.startswith("label_")}
        loss = model(before, after, log_mel(batch["audio"]), index=batch["index"], labels=labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    return video


@torch.inference_mode()
def scale_told(encoder: nn.Module, clips: ActionClips, options: argparse.Namespace) -> float:
    """Return R^2 of a ridge regression of the crop's scale on the features, judged on the half it was not fitted to."""
    small, large = scales(options.crop)
    crop = VideoCrop(crop_size=options.crop, min_short_side=small, max_short_side=large)
    encoder.eval()
    features, told = [], []
    keys = [(index, 1000 + index) for index in range(len(clips))]
    parts = [keys[start : start + BATCH_SIZE] for start in range(0, len(keys), BATCH_SIZE)]
    for batch in load_batches(clips, parts, collate_fn=collate, num_workers=0, device=CPU):
        features.append(encoder(crop(batch["video"], batch["seed"], batch["video_size"])))
        told.append(small + (random_integers(batch["seed"], num_draws=1)[:, 0] * (large - small + 1) >> 31))
    x, y = torch.cat(features).double().numpy(), torch.cat(told).double().numpy()
    half = len(x) // 2
    mean, std = x[:half].mean(axis=0), x[:half].std(axis=0) + 1e-6
    x = np.column_stack([(x - mean) / std, np.ones(len(x))])
    ridge = np.eye(x.shape[1]) * 0.1 * half
    ridge[-1, -1] = 0
    weights = np.linalg.solve(x[:half].T @ x[:half] + ridge, x[:half].T @ y[:half])
    return float(1 - np.square(y[half:] - x[half:] @ weights).mean() / y[half:].var())


def judged(folder: Path, short_side: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Pretrain and probe once; a result that is there already is taken."""
    name = f"{options.criterion}-crop{options.crop}-width{options.width}-steps{options.steps}-{short_side}-{seed}.json"
    path = folder / "results" / name
    if path.exists():
        return dict(json.loads(path.read_text()))
    torch.set_num_threads(1)
    store, dataset = PreparedStore(folder / f"prepared{short_side}"), Kitchen(folder / "kitchen")
    num_classes = {column: len(names) for column, names in dataset.classes.items()}
    encoder = pretrained(store, dataset.actions("train"), num_classes, seed, options)
    sets = [ActionClips(store, dataset.actions(split), num_clips=2) for split in ("train", "validation")]
    transform = VideoCrop(crop_size=options.crop, random=False)
    batches = FeatureOptions(batch_size=BATCH_SIZE)
    features = [extract_features(encoder, clips, transform=transform, options=batches) for clips in sets]
    probe = ProbeOptions(lr=0.1)
    scores = linear_probe(features[0], sets[0].labels, features[1], num_classes=num_classes, options=probe, seed=seed)
    result: dict[str, Any] = {
        column: top_k_accuracy(scores[column], sets[1].labels[column], 1) for column in num_classes
    }
    result["scale"] = 100 * scale_told(encoder, sets[0], options)
    result["num_actions"] = len(sets[1].actions)
    result["majority"] = {
        column: majority_accuracy(sets[0].labels[column], sets[1].labels[column]) for column in num_classes
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result))
    return result


def interval(values: list[float]) -> str:
    """Return the mean with its 95 % t-interval."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.mean(values)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def probes(folder: Path, options: argparse.Namespace) -> None:
    """Pretrain on both stores with each seed; print means and paired differences."""
    small, large = scales(options.crop)
    for side in (small, large):
        kitchen_store(folder, side, options)
    jobs = [(side, seed) for seed in range(options.seeds) for side in (small, large)]
    parallel = joblib.Parallel(options.workers, backend="multiprocessing")
    done = parallel(joblib.delayed(judged)(folder, *job, options) for job in jobs)
    results = dict(zip(jobs, done, strict=True))
    first = results[small, 0]
    for what in ("verb", "noun", "scale"):
        values = {side: [results[side, seed][what] for seed in range(options.seeds)] for side in (small, large)}
        majority = f" (majority {first['majority'][what]:.1f})" if what != "scale" else ""
        label = f"top-1 {what}{majority}, %" if majority else "variance of the scale that features tell, %"
        row(
            f"{options.criterion}, crop {options.crop}, {options.seeds} seeds x {options.steps} steps, {label}",
            *(f"{statistics.mean(values[side]):.1f}" for side in (small, large)),
            interval([b - a for a, b in zip(values[small], values[large], strict=True)]),
        )
    print(f"{first['num_actions']} actions judged")


PARTS = {"sharpness": sharpness, "cost": cost, "probes": probes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="keep the generated files here, and go on with them")
    parser.add_argument("--media", type=Path, help="a folder of real clips, for sharpness")
    parser.add_argument("--kitchens", type=int, default=12)
    parser.add_argument("--crop", type=int, default=112, help="pixels; the stores are 8/7 and 45/28 of it")
    parser.add_argument("--criterion", choices=["replai", "supervised"], default="replai")
    parser.add_argument("--width", type=int, default=8, help="of both encoders")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for name in options.parts or PARTS:
            PARTS[name](folder, options)


if __name__ == "__main__":
    main()
