"""Writes a kitchen to a folder: videos in several processes, restarts, tables.

Layout, as EPIC-KITCHENS-100 downloads::

    OUT/kitchen.json                      version, seed and options: what this folder is a pure function of
    OUT/P01/videos/P01_01.MP4             H.264 + AAC
    OUT/annotations/EPIC_100_train.csv    and validation, test, classes, tail classes, video info, unseen participants
    OUT/annotations/EPIC_Sounds_train.csv and validation, test: the sounds, as EPIC-SOUNDS
    OUT/ego4d/                            the same ground truth as Ego4D: annotations, full_scale and clips of v1 and v2
    OUT/events.parquet                    all that is known of every event
    OUT/sounds.parquet, idle_motions.parquet
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from earmark.atomic import remove_abandoned, replacing
from earmark.console import new_console
from earmark.datasets.kitchen import KitchenPreset
from earmark.kitchen.ego4d_clips import write_clips
from earmark.kitchen.epic_sounds_tables import sound_rows
from earmark.kitchen.events import VideoFacts, event_rows, idle_motion_rows
from earmark.kitchen.picture import Picture
from earmark.kitchen.presets import PRESETS, Difficulty, KitchenError, KitchenSize, check_bounds
from earmark.kitchen.room import Room, draw_room
from earmark.kitchen.script import Script, write_script
from earmark.kitchen.sound import render_sound
from earmark.kitchen.tables import write_tables
from earmark.media import VideoWriter
from earmark.worker_processes import parallel

FRAMES_TO_WARM_UP, FRAMES_TIMED = 8, 30
SECONDS_TO_PLAIN_LINE, SECONDS_BETWEEN_PLAIN_LINES = 10.0, 30.0
VERSION = 3  # raise it when the same seed gives other videos
LATER_OPTIONS = {"idle_share": Difficulty().idle_share}  # what kitchens were made with before there was the option


@dataclass(frozen=True, slots=True)
class KitchenSummary:
    """What was made.

    Attributes:
        path: Folder of the kitchen.
        num_kitchens: Number of kitchens, which are the participants.
        num_videos: Number of videos in the folder.
        num_new_videos: Number of those rendered by this call; the others had been finished before.
        num_events: Number of actions on screen.
        duration_seconds: Length of all videos together.
    """

    path: Path
    num_kitchens: int
    num_videos: int
    num_new_videos: int
    num_events: int
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that the content of a kitchen depends on."""

    seed: int
    size: KitchenSize
    difficulty: Difficulty
    test_split: bool

    def __post_init__(self) -> None:
        check_bounds(self, {"seed": (0, 2**63)})

    def description(self) -> dict[str, Any]:
        """Return it as plain data."""
        size, difficulty = asdict(self.size), asdict(self.difficulty)
        return {"version": VERSION, "seed": self.seed, **size, **difficulty, "test_split": self.test_split}

    def written(self) -> dict[str, Any]:
        """Return the content of ``kitchen.json``: later options only where they are not what was before there were."""
        return {name: value for name, value in self.description().items() if LATER_OPTIONS.get(name, ...) != value}


def make_kitchen(
    out: str | Path,
    *,
    preset: KitchenPreset = "tiny",
    size: KitchenSize | None = None,
    difficulty: Difficulty | None = None,
    seed: int = 0,
    test_split: bool = True,
    num_workers: int = 1,
    progress: bool = True,
) -> KitchenSummary:
    """Make a kitchen, or finish one begun with the same seed and options.

    The same seed and options give the same frames and samples whatever the number of workers, and wherever an earlier
    call was cut off: each video depends on (seed, kitchen, video) alone.

    Args:
        out: Folder to write to: new, empty, or a kitchen made with the same seed and options.
        preset: Name in `PRESETS`.
        size: How many videos of what size; None for the preset's.
        difficulty: How hard to learn from; None for the preset's.
        seed: At least 0.
        test_split: Whether kitchens and videos are set aside for the test; else they are for training.
        num_workers: Number of processes.
        progress: Whether to show a progress bar.

    Returns:
        What was made.

    Raises:
        KitchenError: If an option is out of bounds; or the folder holds something else, or a kitchen made with other
            options (the message names them).

    Example:
        >>> import tempfile
        >>> size = KitchenSize(num_kitchens=1, videos_per_kitchen=1, video_seconds=5, width=64, height=64, fps=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     summary = make_kitchen(folder, size=size, progress=False)
        ...     (summary.path / "P01/videos/P01_01.MP4").exists()
        True
    """
    if preset not in PRESETS:
        raise KitchenError(f"preset={preset}: must be one of {', '.join(PRESETS)}")
    size, difficulty = size or PRESETS[preset].size, difficulty or PRESETS[preset].difficulty
    plan = _Plan(seed, size, difficulty, test_split)
    if num_workers < 1:
        raise KitchenError(f"num_workers={num_workers}: must be at least 1")
    out = Path(out)
    _claim(out, plan)
    remove_abandoned(out, recursive=True)
    jobs = [(k, v) for k in range(size.num_kitchens) for v in range(size.videos_per_kitchen)]
    finished = (out / "events.parquet").exists()
    pending = [
        job for job in jobs if not (_video_path(out, job).exists() and (finished or _events_path(out, job).exists()))
    ]
    _make_videos(out, plan, pending, num_workers=num_workers, progress=progress)
    if not (out / "events.parquet").exists():  # unless another run has finished it meanwhile
        rows = [json.loads(_events_path(out, job).read_text()) for job in jobs]
        facts = [_facts(plan, job) for job in jobs]
        write_clips(out, facts, seed=plan.seed, num_workers=num_workers)
        write_tables(
            out,
            [event for each in rows for event in each["events"]],
            [sound for each in rows for sound in each["sounds"]],
            [motion for each in rows for motion in each["idle_motions"]],
            facts,
            seed=plan.seed,
        )
    shutil.rmtree(out / ".events", ignore_errors=True)
    on_screen = pq.read_table(out / "events.parquet", columns=["on_screen"])["on_screen"].to_pylist()
    return KitchenSummary(
        out, size.num_kitchens, len(jobs), len(pending), sum(on_screen), len(jobs) * size.video_seconds
    )


def _claim(out: Path, plan: _Plan) -> None:
    """Make the folder a kitchen with these options, or check that it is."""
    description = plan.description()
    path = out / "kitchen.json"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            found = LATER_OPTIONS | found
            different = [name for name in description if found.get(name) != description[name]]
        except (ValueError, TypeError) as error:
            raise KitchenError(f"{path}: not the description of a kitchen ({error})") from error
        if different:
            differences = ", ".join(f"{name} is {found.get(name)}, not {description[name]}" for name in different)
            raise KitchenError(f"{out}: holds a kitchen made with other options: {differences}")
        return
    if out.exists() and not out.is_dir():
        raise KitchenError(f"{out}: not a folder")
    if out.exists() and any(not entry.name.startswith(".kitchen.") for entry in out.iterdir()):
        raise KitchenError(f"{out}: not empty, and not a kitchen (it has no kitchen.json)")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(path, plan.written())


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _participant_id(kitchen: int) -> str:
    return f"P{kitchen + 1:02d}"


def _video_id(job: tuple[int, int]) -> str:
    return f"{_participant_id(job[0])}_{job[1] + 1:02d}"


def _video_path(out: Path, job: tuple[int, int]) -> Path:
    return out / _participant_id(job[0]) / "videos" / f"{_video_id(job)}.MP4"


def _events_path(out: Path, job: tuple[int, int]) -> Path:
    return out / ".events" / f"{_video_id(job)}.json"


def _split(plan: _Plan, job: tuple[int, int]) -> str:
    """Return the split of a video.

    The last kitchens are unseen in training: one in ten, at least one, for validation where there are three, and as
    many for the test where there are four. Of each other kitchen the last videos are held out: one in five, at least
    one, for validation where there are two, and one in ten, at least one, for the test where there are three. Without
    a test split its part is for training.
    """
    kitchens, videos = plan.size.num_kitchens, plan.size.videos_per_kitchen
    for number, total, one_in, least in ((job[0], kitchens, (10, 10), (3, 4)), (job[1], videos, (5, 10), (2, 3))):
        of_validation, of_test = (
            max(1, round(total / part)) if total >= minimum else 0 for part, minimum in zip(one_in, least, strict=True)
        )
        of_test *= plan.test_split
        if number >= total - of_test:
            return "test"
        if number >= total - of_test - of_validation:
            return "validation"
    return "train"


def _facts(plan: _Plan, job: tuple[int, int]) -> VideoFacts:
    size = plan.size
    return VideoFacts(
        video_id=_video_id(job),
        participant_id=_participant_id(job[0]),
        split=_split(plan, job),
        num_frames=round(size.video_seconds * size.fps),
        fps=size.fps,
        width=size.width,
        height=size.height,
        sample_rate=size.sample_rate,
    )


def _make_videos(out: Path, plan: _Plan, jobs: Sequence[tuple[int, int]], *, num_workers: int, progress: bool) -> None:
    """Render the videos that are missing."""
    columns = (TextColumn("kitchen"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console, started = new_console(stderr=True), time.monotonic()
    next_line = started + SECONDS_TO_PLAIN_LINE
    with Progress(*columns, console=console, disable=not progress or not jobs) as bar:
        task = bar.add_task("videos", total=len(jobs))
        calls = [joblib.delayed(_make_video)(out, plan, job) for job in jobs]
        made = parallel(min(num_workers, max(1, len(jobs))), calls, return_as="generator_unordered")
        for number, _ in enumerate(made, 1):
            bar.advance(task)
            now = time.monotonic()
            if progress and not console.is_terminal and now >= next_line and number < len(jobs):
                next_line = now + SECONDS_BETWEEN_PLAIN_LINES
                left = timedelta(seconds=round((now - started) / number * (len(jobs) - number)))
                print(f"kitchen: {number}/{len(jobs)} videos, {left} left", file=sys.stderr, flush=True)


def seconds_to_make(preset: KitchenPreset, *, num_videos: int, num_workers: int) -> float:
    """Return about how long making videos of a preset will take here, by making a second of one of them.

    Args:
        preset: Name in `PRESETS`.
        num_videos: How many are missing.
        num_workers: Number of processes.

    Example:
        >>> seconds_to_make("tiny", num_videos=8, num_workers=2) > 0
        True
    """
    size, difficulty = PRESETS[preset]
    room, script, of_picture, _ = draw_video(0, 0, 0, duration_seconds=size.video_seconds, difficulty=difficulty)
    frames = Picture(room, script, of_picture, width=size.width, height=size.height, fps=size.fps).frames()
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            VideoWriter(
                Path(folder) / "second.MP4",
                width=size.width,
                height=size.height,
                fps=size.fps,
                sample_rate=size.sample_rate,
            ) as writer,
        ):
            for _ in range(FRAMES_TO_WARM_UP):
                writer.write_frame(next(frames))
            started = time.perf_counter()
            for _ in range(FRAMES_TIMED):
                writer.write_frame(next(frames))
            seconds_per_frame = (time.perf_counter() - started) / FRAMES_TIMED
    finally:
        cv2.setNumThreads(num_threads)
    videos_in_turn = -(-num_videos // num_workers)  # of the worker with most
    return seconds_per_frame * round(size.video_seconds * size.fps) * videos_in_turn


def draw_video(
    seed: int, kitchen: int, video: int, *, duration_seconds: float, difficulty: Difficulty
) -> tuple[Room, Script, np.random.Generator, np.random.Generator]:
    """Return the room and the script of one video, and the generators of its picture and its sound.

    A pure function of its arguments; the room depends on (seed, kitchen) alone.
    """
    room = draw_room(np.random.default_rng(np.random.SeedSequence((seed, kitchen, 0))))
    sequences = np.random.SeedSequence((seed, kitchen, video + 1)).spawn(3)  # 0 is the room's
    of_script, of_picture, of_sound = (np.random.default_rng(sequence) for sequence in sequences)
    script = write_script(of_script, duration_seconds=duration_seconds, difficulty=difficulty)
    return room, script, of_picture, of_sound


def _make_video(out: Path, plan: _Plan, job: tuple[int, int]) -> None:
    """Render one video, whole or not at all, then note its events."""
    size, difficulty = plan.size, plan.difficulty
    width, height, fps, sample_rate = size.width, size.height, size.fps, size.sample_rate
    room, script, of_picture, of_sound = draw_video(
        plan.seed, *job, duration_seconds=size.video_seconds, difficulty=difficulty
    )
    path = _video_path(out, job)
    _events_path(out, job).parent.mkdir(exist_ok=True)
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # videos are rendered side by side; more threads would only get in each other's way
    try:
        sound = render_sound(room, script, of_sound, sample_rate=sample_rate, noise_db=difficulty.noise_db)
        picture = Picture(room, script, of_picture, width=width, height=height, fps=fps)
        with (
            replacing(path) as temporary,  # a name of its own: two runs may make the same kitchen at once
            VideoWriter(temporary, width=width, height=height, fps=fps, sample_rate=sample_rate) as writer,
        ):
            for number, frame in enumerate(picture.frames()):
                if number % fps == 0:  # a second of each in turn keeps the streams interleaved
                    first = number // fps * sample_rate
                    writer.write_sound(sound.wave[first : first + sample_rate])
                writer.write_frame(frame)
    finally:
        cv2.setNumThreads(num_threads)
    names = {"video_id": _video_id(job), "participant_id": _participant_id(job[0])}
    events = event_rows(script, room, sound.loudness_db, **names)
    sounds = sound_rows(script, events, sound.wave, sample_rate=sample_rate, **names)
    motions = idle_motion_rows(script, **names)
    _write_json(_events_path(out, job), {"events": events, "sounds": sounds, "idle_motions": motions})
