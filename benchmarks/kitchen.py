"""What Audible Kitchen claims, measured: speed, agreement of picture and sound with the truth, difficulty.

    python benchmarks/kitchen.py [PART ..] [--folder DIR] [--kitchens 20] [--videos 5] [--seconds 300] [--epochs 22]

Parts (all, where none is named): speed, onsets, idle, detector, anticipation, probes, supervised. `detector`, `probes`,
`supervised` and `idle` look at one kitchen of 228x128 pictures at 16 fps, which is made in the folder at first.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import nn

from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel
from earmark.datasets import Ego4D, Kitchen
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation.metrics import majority_accuracy, top_k_accuracy
from earmark.evaluation.probe import ProbeOptions, linear_probe
from earmark.kitchen import PRESETS, TRANSITIONS, VERBS, KitchenSize, make_kitchen
from earmark.kitchen.contact_sheet import scene
from earmark.kitchen.ego4d_clips import video_uid
from earmark.kitchen.picture import Picture
from earmark.kitchen.room import draw_room
from earmark.kitchen.script import Script
from earmark.kitchen.sound import render_sound
from earmark.kitchen.writing import draw_video
from earmark.media import FrameReader, SoundReader, VideoWriter
from earmark.moments import find_moments
from earmark.preparation import Transcoding, prepare

BATCH = 32
CLIP_FPS = 4.0  # of every task, so that an encoder can go on from one to the next
Array = npt.NDArray[Any]


def row(what: str, value: str, bar: str = "") -> None:
    print(f"| {what} | {value} | {bar} |", flush=True)


# --- speed ---


def speed(options: argparse.Namespace) -> None:
    """Time one video, rendered and encoded in one process on one thread."""
    for width, height, fps, bar in ((456, 256, 30, 2), (228, 128, 16, 8)):
        seconds = 30
        with tempfile.TemporaryDirectory() as folder:
            size = KitchenSize(1, 1, seconds, width=width, height=height, fps=fps)
            started = time.perf_counter()
            make_kitchen(Path(folder, "k"), preset="small", size=size, progress=False)
            ratio = seconds / (time.perf_counter() - started)
        row(f"speed, {width}x{height} {fps} fps, one core", f"{ratio:.1f} x real time", f"{bar} x")


# --- onsets ---


def encoded(script: Script, path: Path, seed: int, *, silent: bool) -> tuple[Array, Array]:
    """Render a scene, write it as a kitchen's videos are, and read it back: frames (T, H, W, 3), sound (S,)."""
    if silent:  # the same motion of head and hands and the same noise, but nothing is changed or heard
        (event,) = script.events
        still = replace(event, after=event.before, audible=False)
        script = Script(script.duration_seconds, script.initial, (still,))
    rng = np.random.default_rng(seed)
    room = draw_room(rng)
    of_picture, of_sound = rng.spawn(2)
    with VideoWriter(path, width=456, height=256, fps=30, sample_rate=48000) as writer:
        writer.write_sound(render_sound(room, script, of_sound, sample_rate=48000).wave)
        for frame in Picture(room, script, of_picture, width=456, height=256, fps=30).frames():
            writer.write_frame(frame)
    frames = np.stack([frame for _, frame in FrameReader(path, fps=30, short_side=128)])
    return frames, np.concatenate(list(SoundReader(path)))


def onsets(options: argparse.Namespace) -> None:
    """Compare scenes with the same scenes in which nothing happens: what differs, differs from the onset on.

    In the picture only switches have a frame of their own: doors move slowly, the hand hides what is taken or put.
    """
    in_sound, in_picture = [], []
    steps = [(thing, step) for thing, ring in TRANSITIONS.items() for step in ring]
    switches = [(thing, step) for thing, step in steps if step.verb in ("turn-on", "turn-off")]
    chosen = steps[:: max(1, len(steps) // options.scenes)] + 2 * switches
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number, (thing, step) in enumerate(chosen):
            contact = round(float(rng.uniform(1.3, 1.4)), 3)
            script = scene(thing, step, contact_seconds=contact, stop_seconds=2.5)
            frames, sound = encoded(script, Path(folder, "a.mp4"), number, silent=False)
            still, silence = encoded(script, Path(folder, "b.mp4"), number, silent=True)
            power = np.convolve((sound - silence) ** 2, np.ones(48) / 48, "same")
            near = slice(round((contact - 0.1) * 48000), round((contact + 0.1) * 48000))
            in_sound.append((np.argmax(power[near] > 0.2 * power[near].max()) - 4800) / 48)
            if (thing, step) not in switches:
                continue
            difference = np.array([cv2.absdiff(a, b).max(axis=2) > 40 for a, b in zip(frames, still, strict=True)])
            changed = difference.reshape(len(frames), -1).sum(axis=1)
            if changed.max() >= 8:  # else it is out of view
                first = int(np.argmax(changed >= 0.3 * changed.max()))
                in_picture.append(first - 0.5 - contact * 30)  # it happened between the frame before and this one
    row(f"onset in encoded sound, {len(in_sound)} scenes", spread(in_sound, "ms"), "10 ms")
    row(f"onset in encoded picture, {len(in_picture)} scenes", spread(in_picture, "frames"), "half a frame")


def spread(errors: Iterable[float], unit: str) -> str:
    sizes = np.abs(list(errors))
    return f"median {np.median(sizes):.2f}, 95 % {np.percentile(sizes, 95):.2f}, largest {sizes.max():.2f} {unit}"


# --- the kitchen that the others look at ---


@dataclass(frozen=True)
class World:
    """A made kitchen and its events."""

    path: Path
    events: list[dict[str, Any]]
    description: dict[str, Any]

    def prepared(self) -> PreparedStore:
        """Prepare it for small encoders."""
        prepare(
            Kitchen(self.path).videos(),
            self.path.with_name("prepared"),
            transcoding=Transcoding(short_side=72),
            num_workers=2,
        )
        return PreparedStore(self.path.with_name("prepared"))


def world(options: argparse.Namespace) -> World:
    path = options.folder / "kitchen"
    picture = {"width": 228, "height": 128, "fps": 16, "sample_rate": 16000}
    make_kitchen(
        path,
        preset=options.preset,
        seed=options.seed,
        num_workers=options.workers,
        test_split=False,
        size=KitchenSize(options.kitchens, options.videos, options.seconds, **picture),
    )
    events = pq.read_table(path / "events.parquet").to_pylist()
    return World(path, events, json.loads((path / "kitchen.json").read_text()))


def idle(options: argparse.Namespace) -> None:
    """Count the time in which nothing happens, and how unequal the classes are."""
    events = [event for event in world(options).events if event["on_screen"]]
    busy: dict[str, float] = defaultdict(float)
    for event in events:
        busy[event["video_id"]] += event["offset_seconds"] - event["onset_seconds"]
    shares = np.array([1 - seconds / options.seconds for seconds in busy.values()]) * 100
    row("time without action", f"{shares.mean():.0f} % ({shares.min():.0f} to {shares.max():.0f})", "40 to 60 %")
    for kind in ("verb", "noun"):
        counts = Counter(event[kind] for event in events).most_common()
        row(f"{len(counts)} {kind}s", f"{counts[0][0]} {counts[0][1]} .. {counts[-1][0]} {counts[-1][1]}")


def detector(options: argparse.Namespace) -> None:
    """Hold the original's detector against the truth: 100 ms."""
    place = world(options)
    of_video = defaultdict(list)
    for event in place.events:
        of_video[event["video_id"]].append(event)
    found = wanted = right = told = 0
    for video_id, events in of_video.items():
        sound = np.concatenate(list(SoundReader(place.path / video_id[:3] / f"videos/{video_id}.MP4")))
        moments = np.array(
            [m.time_seconds for m in find_moments(sound, place.description["sample_rate"], detector="replai")]
        )
        heard = np.array([e["point_of_no_return_seconds"] for e in events if e["audible"]])
        seen = np.array([e["point_of_no_return_seconds"] for e in events if e["audible"] and e["on_screen"]])
        near = np.abs(moments[:, None] - heard[None]) <= 0.1
        right, told = right + int(near.any(axis=1).sum()), told + len(moments)
        found += int((np.abs(moments[:, None] - seen[None]) <= 0.1).any(axis=0).sum())
        wanted += len(seen)
    row("detector, recall of audible actions at 100 ms", f"{100 * found / wanted:.1f} % of {wanted}")
    row("detector, precision", f"{100 * right / told:.1f} % of {told} moments")


# --- anticipation ---


def anticipation(options: argparse.Namespace) -> None:
    """Predict the next action from the last: 400 scripts to learn from, 100 of other kitchens to judge by."""
    difficulty = PRESETS[options.preset].difficulty
    scripts = []
    for number in range(500):
        _, script, _, _ = draw_video(options.seed, number, 0, duration_seconds=300.0, difficulty=difficulty)
        scripts.append([(event.verb, event.noun) for event in script.events if event.on_screen])
    for name, part in (("verb", lambda a: a[0]), ("noun", lambda a: a[1]), ("action", lambda a: a)):
        sequences = [[part(action) for action in script] for script in scripts]
        follow: dict[Any, Counter[Any]] = defaultdict(Counter)
        for sequence in sequences[:400]:
            for last, following in pairwise(sequence):
                follow[last][following] += 1
        overall = sum(follow.values(), Counter()).most_common(1)[0][0]
        pairs = [pair for sequence in sequences[400:] for pair in pairwise(sequence)]
        guesses: dict[str, Callable[[Any], Any]] = {
            "bigram": lambda last, follow=follow: follow[last].most_common(1)[0][0] if follow[last] else None,
            "repeat the last": lambda last: last,
            "most frequent": lambda last, overall=overall: overall,
        }
        scores = {who: 100 * np.mean([guess(last) == true for last, true in pairs]) for who, guess in guesses.items()}
        text = ", ".join(f"{who} {score:.1f} %" for who, score in scores.items())
        row(f"next {name}, {len(pairs)} actions", text, "bigram over repeat")


# --- what a network sees ---


@dataclass(frozen=True)
class Task:
    """What is told from clips of one length; frames are loaded twice as often as they are used."""

    clip_seconds: float
    num_classes: int
    reversible: bool  # played backwards, a clip is one of the same class
    probe_bar: str

    @property
    def num_frames(self) -> int:
        """T, of a clip as it is used."""
        return round(self.clip_seconds * CLIP_FPS)


TASKS = {
    "verb": Task(2.0, len(VERBS), False, "under 45 %"),
    "state change": Task(8.0, 2, True, "near 50 %"),  # of two classes chance is more than half of 90 %
}


@dataclass(frozen=True)
class Clips:
    """Pictures uint8 (N, 2 T, H, W, 3), sound int16 (N, S), labels int64 (N,)."""

    pictures: torch.Tensor
    sound: torch.Tensor
    labels: torch.Tensor


def load(place: World, store: PreparedStore, name: str, split: str) -> Clips:
    """Read 2 s about the middle of each action, or Ego4D's clips with and without a change, with their sound."""
    task = TASKS[name]
    if name == "verb":
        spans = [
            (a.video_id, (a.start_seconds + a.stop_seconds) / 2, a.labels["verb"])
            for a in Kitchen(place.path).actions(split)
        ]
    else:
        names = {video_uid(place.description["seed"], video_id): video_id for video_id in store.videos}
        spans = [
            (names[c.video_id], (c.start_seconds + c.stop_seconds) / 2, int(c.state_change))
            for c in Ego4D(place.path / "ego4d").state_changes(split)
            if c.state_change is not None
        ]
    offsets = (np.arange(2 * task.num_frames) + 0.5) / (2 * CLIP_FPS) - task.clip_seconds / 2
    pictures, sounds = [], []
    for video_id, middle, _ in spans:
        last = store.videos[video_id].duration_seconds - 1 / store.fps
        pictures.append(store.frames(video_id, np.clip(middle + offsets, 0.0, last)))
        sounds.append(store.sound(video_id, middle - task.clip_seconds / 2, round(task.clip_seconds * 16000)))
    labels = torch.tensor([label for _, _, label in spans])
    return Clips(torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(sounds)), labels)


def probes(options: argparse.Namespace) -> None:
    """Fit linear classifiers to mean colours and to tiny pictures."""
    place = world(options)
    store = place.prepared()
    for name in options.tasks:
        sets = [load(place, store, name, split) for split in ("train", "validation")]
        labels = [clips.labels.numpy() for clips in sets]
        for what, size in (("mean colour", (1, 1)), ("raw pixels, 16 x 9", (16, 9))):
            features = [np.stack([pixels(clip, size) for clip in clips.pictures[:, ::2].numpy()]) for clips in sets]
            scores = linear_probe(
                features[0][:, None],
                {"label": labels[0]},
                features[1][:, None],
                num_classes={"label": TASKS[name].num_classes},
                options=ProbeOptions(lr=0.01),
            )["label"]
            value = top_k_accuracy(scores, labels[1], 1)
            majority = majority_accuracy(labels[0], labels[1])
            text = f"{value:.1f} % of {len(labels[1])} (majority {majority:.1f})"
            row(f"{name} from {what}", text, TASKS[name].probe_bar)


def pixels(video: Array, size: tuple[int, int]) -> Array:
    """Return the frames of a clip (T, H, W, 3) at a tiny size, float32 (T * h * w * 3,)."""
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video]
    return (np.stack(small).astype(np.float32) / 255).ravel()


class Classifier(nn.Module):
    """A small encoder of pictures or of sound and a linear layer."""

    def __init__(self, modality: str, task: Task) -> None:
        super().__init__()
        self.encoder = R2Plus1D(10, width=16) if modality == "pictures" else SpecCNN9(width=16)
        self.encoder.initialise()
        self.norm = nn.BatchNorm1d(self.encoder.output_dim)
        self.last = nn.Linear(self.encoder.output_dim, task.num_classes)
        self.log_mel = LogMel()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return scores (B, classes) of pictures (B, T, H, W, 3), uint8 or float of that range, or of sound (B, S)."""
        if inputs.ndim == 5:
            features = inputs.permute(0, 4, 1, 2, 3).float().sub(110).div(64)
            features = features.contiguous(memory_format=torch.channels_last_3d)
        else:
            features = self.log_mel(inputs)
        return self.last(self.norm(self.encoder(features)))


def augmented(pictures: torch.Tensor, rng: torch.Generator, *, reversible: bool) -> torch.Tensor:
    """Return every second frame from either phase on, flipped, shifted and tinted a little, maybe played backwards."""
    phase, down, across = (
        int(torch.randint(low, high, (1,), generator=rng)) for low, high in ((0, 2), (-4, 5), (-8, 9))
    )
    chosen = torch.roll(pictures[:, phase::2], (down, across), (2, 3))
    flipped = torch.rand(len(chosen), generator=rng) < 0.5
    chosen[flipped] = chosen[flipped].flip(3)
    if reversible:
        backwards = torch.rand(len(chosen), generator=rng) < 0.5
        chosen[backwards] = chosen[backwards].flip(1)
    return chosen * (0.9 + 0.2 * torch.rand(len(chosen), 1, 1, 1, 3, generator=rng))


SUPERVISED_BARS = {"sound": "well over chance, well under both", "pictures": "90 %"}


def supervised(options: argparse.Namespace) -> None:
    """Train a small encoder of sound and one of pictures with labels, and add up their log probabilities.

    Where several tasks are asked for, each encoder goes on from the one before: there are few clips of state changes.
    """
    place = world(options)
    store = place.prepared()
    encoders: dict[str, nn.Module] = {}
    for name in options.tasks:
        train, test = (load(place, store, name, split) for split in ("train", "validation"))
        scores = {}
        for modality in options.modalities:
            scores[modality], encoders[modality] = fit(modality, name, train, test, encoders.get(modality), options)
        if len(scores) == 2:
            scores["sound and pictures"] = scores["sound"] + scores["pictures"]
        for modality, each in scores.items():
            value = f"{top_k_accuracy(each, test.labels.numpy(), 1):.1f} % of {len(test.labels)}"
            bar = SUPERVISED_BARS.get(modality, "")
            row(f"{name}, supervised, {modality}", f"{value} ({len(train.labels)} to learn)", bar)


def fit(
    modality: str, name: str, train: Clips, test: Clips, start: nn.Module | None, options: argparse.Namespace
) -> tuple[Array, nn.Module]:
    """Train for the given epochs under a cosine schedule; return log probabilities of the test clips, the encoder."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = TASKS[name]
    model = Classifier(modality, task).to(device)
    if start is not None:
        model.encoder.load_state_dict(start.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
    num_batches = len(train.labels) // BATCH
    if not num_batches:
        sys.exit(
            f"{name}: {len(train.labels)} clips to learn from are less than a batch of {BATCH}: more videos needed"
        )
    total = options.epochs * num_batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / total))
    )
    for epoch in range(options.epochs):
        started, losses = time.perf_counter(), []
        for chosen in torch.randperm(len(train.labels), generator=rng)[: num_batches * BATCH].split(BATCH):
            if modality == "pictures":
                inputs = augmented(train.pictures[chosen], rng, reversible=task.reversible)
            else:
                inputs = train.sound[chosen]
            scores = model(inputs.to(device))
            loss = nn.functional.cross_entropy(scores, train.labels[chosen].to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        rate = num_batches * BATCH / (time.perf_counter() - started)
        print(f"{name}, {modality}: epoch {epoch + 1}, loss {np.mean(losses):.3f}, {rate:.0f} clips/s", file=sys.stderr)
    model.eval()
    inputs = test.pictures[:, ::2] if modality == "pictures" else test.sound
    with torch.inference_mode():
        scores = torch.cat([model(part.to(device)).log_softmax(1).cpu() for part in inputs.split(BATCH)])
    return scores.numpy(), model.encoder


PARTS = {
    **{"speed": speed, "onsets": onsets, "idle": idle, "detector": detector, "anticipation": anticipation},
    **{"probes": probes, "supervised": supervised},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="keep the kitchen here")
    parser.add_argument("--preset", default="small", help="whose difficulty (default: %(default)s)")
    parser.add_argument("--kitchens", type=int, default=20)
    parser.add_argument("--videos", type=int, default=5, help="of each kitchen")
    parser.add_argument("--seconds", type=float, default=300.0, help="of each video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=24, help="of the onsets (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="of probes and supervised")
    parser.add_argument("--modalities", nargs="+", default=["sound", "pictures"], choices=["sound", "pictures"])
    parser.add_argument("--epochs", type=int, default=22, help="of training, each encoder (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        options.folder = options.folder or Path(scratch)
        for name in options.parts or PARTS:
            PARTS[name](options)


if __name__ == "__main__":
    main()
