"""The sections of `gpu.py`, which starts this file once for each; see there.

Each writes its part of the results line by line: what was measured before a limit or a crash is kept.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earmark.clips.action_clips import ActionClips
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import load_batches
from earmark.clips.sampling import EpochBatches
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.datasets.records import ActionRecord
from earmark.encoders import new_encoder
from earmark.evaluation import FeatureOptions, ProbeOptions, extract_features, linear_probe

ROOT = Path(__file__).resolve().parents[1]
EPIC_SEGMENTS, EPIC_EPOCHS = 27_000, 100  # of 10 s, and of the published schedule
RATE_AIM, BATCH_AIM = 0.9, 256
# What `--cpu` takes in place of the full-size model.
SMALL_MODEL = (
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=4",
    "backbone.audio.args.width=4",
    "prepare.short_side=64",
    "data_augm.crop_size=48",
    "data_augm.min_short_side=48",
    "data_augm.max_short_side=64",
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured with.

    Attributes:
        part: The file of this section.
        folder: Of kitchen, prepared videos and runs.
        hours: Of kitchen.
        seconds: Of each run.
        batches: Sizes.
        workers: That load in runs and evaluation.
        cpu: In the smallest sizes on the CPU.
    """

    part: Path
    folder: Path
    hours: float
    seconds: float
    batches: tuple[int, ...]
    workers: int
    cpu: bool

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.cpu else "cuda")

    @property
    def kitchen(self) -> Path:
        return self.folder / ("kitchen-tiny" if self.cpu else f"kitchen-{self.hours:g}h")

    @property
    def store(self) -> Path:
        return self.kitchen.with_name(f"{self.kitchen.name}-prepared")

    @property
    def batch_size(self) -> int:
        return 2 if self.cpu else BATCH_AIM

    def write(self, *lines: str) -> None:
        """Add lines to the part, and show them."""
        with self.part.open("a", encoding="utf-8") as file:
            for line in lines:
                print(line, flush=True)
                file.write(line + "\n")

    def synchronize(self) -> None:
        """Wait for the device."""
        if not self.cpu:
            torch.cuda.synchronize()


def earmark(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "earmark", *arguments]


def rate(work: Callable[[], Any], amount: int, setting: Setting, *, seconds: float) -> float:
    """Return how much is done in a second; the first call warms up."""
    work()
    setting.synchronize()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(5):  # the device is not waited for each time
            work()
            done += amount
        setting.synchronize()
    return done / (time.perf_counter() - started)


# -- Sections ---------------------------------------------------------------------------------------------------------


def tests(setting: Setting) -> None:
    """Run the tests marked gpu; on the CPU, where they are left out, one file."""
    where = ["tests/test_gpu_tests.py"] if setting.cpu else []
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--run-slow", "-q", "-p", "no:cacheprovider", *where]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("FAILED", "ERROR")):
            setting.write(f"- {line.strip()}")
        last = line.strip() or last
    process.wait()
    setting.write(f"`pytest -m gpu --run-slow`: {last.strip('= ')}")
    ran = re.search(r"(\d+) passed", last) is not None
    if process.returncode or not (ran or setting.cpu):
        raise SystemExit("tests marked gpu failed, or none of them ran")


def step(setting: Setting) -> None:
    """Measure the step in every way of `train_step.py`."""
    import train_step

    for batch_size in setting.batches[: 1 if setting.cpu else None]:
        with _Lines(setting) as text, contextlib.redirect_stdout(text):
            if setting.cpu:
                train_step.measure_cpu(["plain", "default"], 2, num_steps=1, num_rounds=1, width=4)
            else:
                train_step.measure_gpu(batch_size, num_steps=10, num_rounds=5, width=64)


class _Lines(io.TextIOBase):
    """Standard output that goes to the part line by line; what is no table is fenced, and shown as it is."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.rest, self.fenced = setting, "", False

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._put(line)
        return len(text)

    def _put(self, line: str) -> None:
        is_text = not line.startswith("|")
        if is_text and not self.fenced and not line.strip():
            return
        with contextlib.redirect_stdout(sys.__stdout__):
            if is_text != self.fenced:
                self.setting.write(*(("", "```") if is_text else ("```", "")))
                self.fenced = is_text
            self.setting.write(line)

    def close(self) -> None:
        if not self.closed and (self.rest or self.fenced):
            self._put(self.rest)
            with contextlib.redirect_stdout(sys.__stdout__):
                self.setting.write(*(("```",) if self.fenced else ()))
        super().close()


def transforms(setting: Setting) -> None:
    """Measure crops of both clips and the log-mel of a sample."""
    size, frames = (2, 2) if setting.cpu else (BATCH_AIM, 8)
    crop, log_mel = VideoCrop().to(setting.device), LogMel().to(setting.device)
    clips = torch.randint(0, 256, (2, size, frames, 128, 228, 3), dtype=torch.uint8, device=setting.device)
    sound = torch.randint(-9999, 9999, (size, 32000), dtype=torch.int16, device=setting.device)
    seed = torch.arange(size, device=setting.device)
    shown = torch.tensor([[128, 228]], device=setting.device).repeat(size, 1)

    def both() -> None:
        for number, clip in enumerate(clips):
            crop(clip, seed, shown, stream=number)
        log_mel(sound)

    speed = rate(both, size, setting, seconds=0.2 if setting.cpu else 5)
    setting.write("| transforms, batch | samples/s |", "|---|---|", f"| {size} | {speed:.0f} |")


def kitchen(setting: Setting) -> None:
    """Generate a kitchen and prepare it, unless both are there."""
    size = ["--preset", "standard", "--videos", str(max(1, round(setting.hours)))]  # of 12 kitchens, 5 minutes each
    if setting.cpu:
        size = [
            "--kitchens",
            "2",
            "--videos",
            "1",
            "--seconds",
            "30",
            "--width",
            "128",
            "--height",
            "96",
            "--fps",
            "16",
        ]
    for name, done, command in (
        ("generate", setting.kitchen, earmark("kitchen", str(setting.kitchen), *size)),
        ("prepare", setting.store / "videos.parquet", earmark("prepare", *data_of(setting))),
    ):
        if name == "generate" and (setting.kitchen / "annotations").is_dir():
            setting.write(f"- {name}: found in {done.name}")
            continue
        started = time.perf_counter()
        subprocess.run(command, check=True)
        setting.write(f"- {name}: {time.perf_counter() - started:.0f} s")
    store = PreparedStore(setting.store)
    hours = sum(video.duration_seconds for video in store.videos.values()) / 3600
    setting.write(f"- {hours:.2f} hours, {len(MomentClips(store))} segments")


def data_of(setting: Setting) -> list[str]:
    """Return what a command needs to find the videos."""
    small = SMALL_MODEL[3:4] if setting.cpu else ()
    return [
        f"data.args.base_path={setting.kitchen}",
        f"data.store={setting.store}",
        f"environment.data_dir={setting.folder}",
        *small,
    ]


class ReadByThreads:
    """Clips that are read batch by batch and not row by row, which `load_batches` does by threads."""

    def __init__(self, clips: MomentClips) -> None:
        self.clips = clips

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return self.clips[key]

    def read_batch(self, keys: list[tuple[int, int]], **options: Any) -> dict[str, torch.Tensor]:
        return self.clips.read_batch(keys, **options)


def endless(num_clips: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    for epoch in count():
        yield from EpochBatches(num_clips, min(batch_size, num_clips), seed=0, epoch=epoch)


def loader_rate(clips: Any, num_clips: int, num_workers: int, setting: Setting, *, seconds: float) -> float:
    """Return samples a second on the device, once the workers are there."""
    batches = endless(num_clips, setting.batch_size)
    loaded = load_batches(clips, batches, collate_fn=collate, num_workers=num_workers, device=setting.device)
    with contextlib.closing(loaded):
        for _ in range(4):  # the workers start, and what is read ahead is not counted
            next(loaded)
        setting.synchronize()
        started, samples = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            samples += len(next(loaded)["index"])
        setting.synchronize()
        return samples / (time.perf_counter() - started)


def loader(setting: Setting) -> None:
    """Measure loading by numbers of threads and of processes."""
    clips = MomentClips(PreparedStore(setting.store))
    numbers = [1, 2] if setting.cpu else [number for number in (1, 2, 4, 8, 12, 16, 32) if number <= setting.workers]
    setting.write("| workers | threads, samples/s | processes, samples/s |", "|---|---|---|")
    for number in numbers:
        speeds = [
            loader_rate(some, len(clips), number, setting, seconds=0.3 if setting.cpu else 6)
            for some in (ReadByThreads(clips), clips)
        ]
        setting.write(f"| {number} | {speeds[0]:.0f} | {speeds[1]:.0f} |")


def features(setting: Setting) -> None:
    """Measure features of labelled clips, the loader of the same clips alone, and the probe."""
    store = PreparedStore(setting.store)
    actions = [
        ActionRecord(f"{video_id}_{number}", video_id, float(t), float(t) + 1, "P01", {"verb": number % 3})
        for video_id in store.videos
        for number, t in enumerate(store.moments[video_id])
        if t + 1.1 < store.videos[video_id].duration_seconds
    ]
    wanted = 8 if setting.cpu else 40_000
    clips = ActionClips(store, actions, num_clips=max(1, round(wanted / len(actions))))
    name, width, crop_size = ("avid_r2plus1d_10", 4, 48) if setting.cpu else ("avid_r2plus1d_18", 64, 112)
    encoder, crop = new_encoder(name, width=width), VideoCrop(crop_size=crop_size, random=False)
    options = FeatureOptions(num_workers=setting.workers)
    some = ActionClips(store, actions[:200])
    extract_features(encoder, some, transform=crop, options=options, device=setting.device)  # warms up
    started = time.perf_counter()
    found = extract_features(encoder, clips, transform=crop, options=options, device=setting.device)
    speed = len(clips) / (time.perf_counter() - started)
    alone = loader_rate(clips, len(clips), setting.workers, setting, seconds=0.3 if setting.cpu else 6)
    setting.write(
        f"| {name}, {len(clips)} clips, {setting.workers} workers | clips/s |",
        "|---|---|",
        f"| features, workers' start included | {speed:.0f} |",
        f"| the loader alone, batches of {setting.batch_size} | {alone:.0f} |",
        f"| ratio | {speed / alone:.2f} |",
        f"| 100,000 clips, extrapolated | {100_000 / speed:.0f} s |",
    )
    num_actions, epochs = (50, 1) if setting.cpu else (100_000, 3)
    rng = np.random.default_rng(0)
    frozen = rng.normal(size=(num_actions, 1, found.shape[2])).astype(np.float32)
    classes = {"verb": 97, "noun": 300}
    labels = {column: rng.integers(0, number, num_actions) for column, number in classes.items()}
    probing = ProbeOptions(epochs=epochs, milestones=())
    started = time.perf_counter()
    linear_probe(frozen, labels, frozen[:9668], num_classes=classes, options=probing, device=setting.device)
    seconds = (time.perf_counter() - started) / epochs
    setting.write(f"| an epoch of the probe, {num_actions} actions, verbs and nouns | {seconds:.1f} s |")


# -- End to end -------------------------------------------------------------------------------------------------------

RUNS = {
    "as it is by default": (),
    "float32, not compiled": ("environment.precision=32-true", "model.compile=false"),
}


def end_to_end(setting: Setting) -> None:
    """Measure `earmark pretrain` by what it writes down, and say what 100 epochs at EPIC's size would take."""
    num_clips = len(MomentClips(PreparedStore(setting.store)))
    sizes = [2] if setting.cpu else sorted({min(batch, num_clips) for batch in setting.batches if batch >= BATCH_AIM})
    setting.write(
        f"{setting.workers} workers, {num_clips} segments, each run {setting.seconds:.0f} s long once it is warm.",
        "",
        "| run | batch | samples/s | as the run says | busy | waits for data | for the host | start, s |",
        "|---|---|---|---|---|---|---|---|",
    )
    best = 0.0
    for batch_size in sizes:
        for name, overrides in RUNS.items():
            if name != next(iter(RUNS)) and batch_size != sizes[0]:
                continue
            measured = measure_run(setting, batch_size, overrides)
            best = max(best, measured.samples_per_second)
            setting.write(f"| {name} | {batch_size} | {measured} |")
    hours = EPIC_SEGMENTS * EPIC_EPOCHS / best / 3600
    setting.write(
        "",
        f"{EPIC_EPOCHS} epochs of EPIC-KITCHENS-100 ({EPIC_SEGMENTS:,} segments of 10 s) would take {hours:.2f} hours "
        f"at {best:.0f} samples/s: extrapolated from the fastest run above, without probes.",
    )
    for section in ("loader", "step"):
        fastest = best_of(setting.part.with_name(f"{section}.md"))
        if fastest is not None:
            setting.write(f"End to end / {section} alone: {best:.0f} / {fastest:.0f} = {best / fastest:.2f}.")
    setting.write(f"The bar is {RATE_AIM} of the smaller of both, and less than 5 % of the time waiting for data.")


def best_of(part: Path) -> float | None:
    """Return the highest samples a second in the table of another section; None if it was not run.

    They are the last column of the loader's table, and the third of the step's.
    """
    if not part.exists():
        return None
    found = []
    for line in part.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        with contextlib.suppress(ValueError, IndexError):
            found.append(float(cells[2]))
    return max(found, default=None)


@dataclass(frozen=True)
class Measured:
    """What was seen of a run; shares in [0, 1], None where it does not say."""

    samples_per_second: float
    said: float
    busy: float | None
    data_wait: float | None
    host_wait: float | None
    start_seconds: float

    def __str__(self) -> str:
        shares = ["" if share is None else f"{share:.1%}" for share in (self.busy, self.data_wait, self.host_wait)]
        return " | ".join([f"{self.samples_per_second:.0f}", f"{self.said:.0f}", *shares, f"{self.start_seconds:.0f}"])


def measure_run(setting: Setting, batch_size: int, overrides: tuple[str, ...]) -> Measured:
    """Start a run, let it warm up, watch it for some time and stop it as a scheduler would."""
    name = "gpu_benchmark"
    run_dir = setting.folder / "outputs" / name
    shutil.rmtree(run_dir, ignore_errors=True)
    settings = [f"logging.name={name}", f"optim.batch_size={batch_size}", f"environment.workers={setting.workers}"]
    settings += ["optim.epochs=100000", "logging.print_freq=2", *overrides, *(SMALL_MODEL if setting.cpu else ())]
    command = earmark("pretrain", *(word for word in data_of(setting) if word not in SMALL_MODEL), *settings)
    warm_steps, seconds = 2 if setting.cpu else 10, setting.seconds
    started = time.monotonic()
    process = subprocess.Popen(command)
    try:
        first = last = None
        while last is None or first is None or last[0] - first[0] < seconds:
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself, with exit code {process.returncode}")
            time.sleep(0.1)
            lines = step_lines(run_dir / "metrics.jsonl")
            if not lines or lines[-1]["step"] < warm_steps:
                continue
            now = time.monotonic(), lines[-1]["step"]
            first = first or now
            last = now if last is None or now[1] > last[1] else last
            if time.monotonic() - first[0] > 3 * seconds + 120:
                raise SystemExit("the run stands still")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it saves and leaves
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    seen = [line for line in lines if first[1] < line["step"] <= last[1]]

    def mean(key: str) -> float | None:
        values = [line[key] for line in seen if line.get(key) is not None]
        return statistics.fmean(values) if values else None

    return Measured(
        samples_per_second=batch_size * (last[1] - first[1]) / (last[0] - first[0]),
        said=statistics.harmonic_mean([line["samples_per_second"] for line in seen]),
        busy=mean("device_busy_share"),
        data_wait=mean("data_wait_share"),
        host_wait=mean("host_wait_share"),
        start_seconds=first[0] - started,
    )


def step_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of steps; the last one may not be whole yet."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith('{"kind": "step"') and line.endswith("\n")]


SECTIONS: dict[str, Callable[[Setting], None]] = {
    "tests": tests,
    "step": step,
    "transforms": transforms,
    "kitchen": kitchen,
    "loader": loader,
    "features": features,
    "end_to_end": end_to_end,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--part", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batches", nargs="+", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        part=options.part / f"{options.section}.md",
        folder=options.folder,
        hours=options.hours,
        seconds=options.seconds,
        batches=tuple(options.batches),
        workers=options.workers,
        cpu=options.cpu,
    )
    SECTIONS[options.section](setting)


if __name__ == "__main__":
    main()
