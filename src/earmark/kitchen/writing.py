"""Writes a kitchen to a folder: presets, video after video in several processes, restart, tables.

Layout, as EPIC-KITCHENS-100 downloads::

    OUT/kitchen.json                      version, seed and options: what this folder is a pure function of
    OUT/P01/videos/P01_01.MP4             H.264 + AAC
    OUT/annotations/EPIC_100_train.csv    and validation, test, classes, tail classes, video info, unseen participants
    OUT/annotations/EPIC_Sounds_train.csv and validation, test: the sounds, as EPIC-SOUNDS
    OUT/ego4d/                            the same truth as Ego4D: v1/annotations, v1/full_scale
    OUT/events.parquet                    all that is known of every event
    OUT/sounds.parquet, idle_motions.parquet
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from earmark.atomic import replacing
from earmark.kitchen.epic_sounds_tables import sound_rows
from earmark.kitchen.events import VideoFacts, event_rows, idle_motion_rows
from earmark.kitchen.picture import Picture
from earmark.kitchen.room import Room, draw_room
from earmark.kitchen.script import Script, write_script
from earmark.kitchen.sound import render_sound
from earmark.kitchen.tables import write_tables
from earmark.media import VideoWriter

VERSION = 3  # of what a seed gives: raise it when the same seed gives other videos

_EASY = {"silent_share": 0.02, "off_screen_share": 0.02, "idle_motion_share": 0.0, "babble_share": 0.0}
_EASY |= {"plan_share": 0.2, "noise_db": 0.0}
_HARD = {"silent_share": 0.15, "off_screen_share": 0.3, "idle_motion_share": 0.4, "babble_share": 0.15}
_HARD |= {"plan_share": 0.9, "noise_db": 6.0}

PRESETS: dict[str, dict[str, float]] = {
    "demo": {
        **{"num_kitchens": 6, "videos_per_kitchen": 4, "video_seconds": 30},
        **{"width": 160, "height": 90, "fps": 16, "sample_rate": 16000},
        **_EASY,
    },
    "tiny": {"num_kitchens": 4, "videos_per_kitchen": 2, "video_seconds": 30, **_EASY},
    "small": {"num_kitchens": 6, "videos_per_kitchen": 5, "video_seconds": 120, **_HARD},
    "standard": {"num_kitchens": 12, "videos_per_kitchen": 10, "video_seconds": 300, **_HARD},
    "large": {"num_kitchens": 40, "videos_per_kitchen": 15, "video_seconds": 600, **_HARD},
}
"""Sizes and difficulty by name: about 12 minutes of small pictures (demo); 4 minutes, 1, 10, 100 hours of video."""

_DEFAULTS: dict[str, float] = {"width": 456, "height": 256, "fps": 30, "sample_rate": 48000, **_EASY}
_SAMPLE_RATES = (16000, 22050, 24000, 32000, 44100, 48000)


class KitchenError(ValueError):
    """A kitchen can't be made as asked; the message names the folder or the option and the reason."""


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
class _Options:
    """All that the content of a kitchen depends on."""

    seed: int
    num_kitchens: int
    videos_per_kitchen: int
    video_seconds: float
    width: int
    height: int
    fps: int
    sample_rate: int
    silent_share: float
    off_screen_share: float
    idle_motion_share: float
    babble_share: float
    plan_share: float
    noise_db: float
    test_split: bool

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            **{"seed": (0, 2**63), "num_kitchens": (1, 99), "videos_per_kitchen": (1, 999)},
            **{"video_seconds": (5, 3600), "width": (64, 4096), "height": (64, 4096), "fps": (4, 120)},
            **{"silent_share": (0, 1), "off_screen_share": (0, 1), "idle_motion_share": (0, 1)},
            **{"babble_share": (0, 0.95), "plan_share": (0, 1), "noise_db": (-60, 30)},
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise KitchenError(f"{name}={getattr(self, name)}: must be from {low} to {high}")
        for name in ("width", "height"):
            if getattr(self, name) % 2:
                raise KitchenError(f"{name}={getattr(self, name)}: H.264 needs an even size")
        if self.sample_rate not in _SAMPLE_RATES:
            raise KitchenError(f"sample_rate={self.sample_rate}: must be one of {', '.join(map(str, _SAMPLE_RATES))}")


def make_kitchen(
    out: str | Path,
    *,
    preset: str | None = "tiny",
    num_kitchens: int | None = None,
    videos_per_kitchen: int | None = None,
    video_seconds: float | None = None,
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    fps: int | None = None,
    sample_rate: int | None = None,
    silent_share: float | None = None,
    off_screen_share: float | None = None,
    idle_motion_share: float | None = None,
    babble_share: float | None = None,
    plan_share: float | None = None,
    noise_db: float | None = None,
    test_split: bool = True,
    num_workers: int = 1,
    progress: bool = True,
) -> KitchenSummary:
    """Make a kitchen, or finish one begun with the same seed and options.

    The same seed and options give the same frames and samples whatever the number of workers, and wherever an earlier
    call was cut off: each video depends on (seed, kitchen, video) alone.

    Args:
        out: Folder to write to: new, empty, or a kitchen made with the same seed and options.
        preset: Name in `PRESETS`, or None where all sizes are given; numbers given beside it override it.
        num_kitchens: Number of kitchens (participants P01, P02, ..). Of three on some are unseen in training: one in
            ten, at least one, for validation, and of four on as many for the test.
        videos_per_kitchen: Number of videos of each. Of each other kitchen one in five, at least one where there are
            several, is for validation, and of three on one in ten, at least one, for the test.
        video_seconds: Length of each video.
        seed: At least 0.
        width: Width of the pictures in pixels; 456 where neither given nor preset.
        height: Height of the pictures in pixels; 256.
        fps: Frames per second; 30.
        sample_rate: Samples per second of the sound; 48000.
        silent_share: Share of the actions that make no sound; this and the next five are the preset's where not
            given: low ones for demo and tiny and without a preset, 0.15, 0.3, 0.4, 0.15, 0.9 and 6 for the others.
        off_screen_share: Sounds with no visible cause, per action.
        idle_motion_share: Probability that hands move and change nothing, for each 3 s of a pause.
        babble_share: Share of the time in which somebody out of sight talks.
        plan_share: Share of the actions that follow from activities, with classes as unequal as in life; the others
            are chosen freely in favour of rare verbs.
        noise_db: Level of the background (room tone, fridge, outside) in decibels against the usual.
        test_split: Whether kitchens and videos are set aside for the test; else they are for training.
        num_workers: Number of processes.
        progress: Whether to show a progress bar.

    Returns:
        What was made.

    Raises:
        KitchenError: An option is out of bounds; or the folder holds something else, or a kitchen made with other
            options (the message names them).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sizes = dict(num_kitchens=1, videos_per_kitchen=1, video_seconds=5, width=64, height=64, fps=8)
    ...     summary = make_kitchen(folder, **sizes, progress=False)
    ...     (summary.path / "P01/videos/P01_01.MP4").exists()
    True
    """
    given = {
        **{"num_kitchens": num_kitchens, "videos_per_kitchen": videos_per_kitchen, "video_seconds": video_seconds},
        **{"width": width, "height": height, "fps": fps, "sample_rate": sample_rate},
        **{"silent_share": silent_share, "off_screen_share": off_screen_share},
        **{"idle_motion_share": idle_motion_share, "babble_share": babble_share},
        **{"plan_share": plan_share, "noise_db": noise_db},
    }
    options = _resolve(preset, given, seed=seed, test_split=test_split)
    if num_workers < 1:
        raise KitchenError(f"num_workers={num_workers}: must be at least 1")
    out = Path(out)
    _claim(out, options)
    jobs = [(k, v) for k in range(options.num_kitchens) for v in range(options.videos_per_kitchen)]
    finished = (out / "events.parquet").exists()
    pending = [
        job for job in jobs if not (_video_path(out, job).exists() and (finished or _events_path(out, job).exists()))
    ]
    _make_videos(out, options, pending, num_workers=num_workers, progress=progress)
    if not (out / "events.parquet").exists():  # else another run finished it meanwhile
        rows = [json.loads(_events_path(out, job).read_text()) for job in jobs]
        write_tables(
            out,
            [event for each in rows for event in each["events"]],
            [sound for each in rows for sound in each["sounds"]],
            [motion for each in rows for motion in each["idle_motions"]],
            [_facts(options, job) for job in jobs],
            seed=options.seed,
        )
    shutil.rmtree(out / ".events", ignore_errors=True)
    on_screen = pq.read_table(out / "events.parquet", columns=["on_screen"])["on_screen"].to_pylist()
    return KitchenSummary(
        out, options.num_kitchens, len(jobs), len(pending), sum(on_screen), len(jobs) * options.video_seconds
    )


def _resolve(preset: str | None, given: dict[str, Any], **others: Any) -> _Options:
    """Return the options: given numbers before the preset's before the defaults."""
    if preset is not None and preset not in PRESETS:
        raise KitchenError(f"preset={preset}: must be one of {', '.join(PRESETS)}")
    chosen: dict[str, Any] = {**_DEFAULTS, **(PRESETS[preset] if preset else {})}
    chosen |= {name: value for name, value in given.items() if value is not None}
    missing = [name for name in given if name not in chosen]
    if missing:
        raise KitchenError(f"without a preset these must be given: {', '.join(missing)}")
    return _Options(**chosen, **others)


def _claim(out: Path, options: _Options) -> None:
    """Make the folder a kitchen with these options, or check that it is."""
    description = {"version": VERSION, **asdict(options)}
    path = out / "kitchen.json"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            different = [name for name in description if found.get(name) != description[name]]
        except (ValueError, AttributeError) as error:
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
    _write_json(path, description)


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


def _split(options: _Options, job: tuple[int, int]) -> str:
    """Return the split of a video.

    The last kitchens are unseen in training: one in ten, at least one, for validation where there are three, and as
    many for the test where there are four. Of each other kitchen the last videos are held out: one in five, at least
    one, for validation where there are two, and one in ten, at least one, for the test where there are three. Without
    a test split its part is for training.
    """
    kitchens, videos = options.num_kitchens, options.videos_per_kitchen
    for number, total, one_in, least in ((job[0], kitchens, (10, 10), (3, 4)), (job[1], videos, (5, 10), (2, 3))):
        of_validation, of_test = (
            max(1, round(total / part)) if total >= minimum else 0 for part, minimum in zip(one_in, least, strict=True)
        )
        of_test *= options.test_split
        if number >= total - of_test:
            return "test"
        if number >= total - of_test - of_validation:
            return "validation"
    return "train"


def _facts(options: _Options, job: tuple[int, int]) -> VideoFacts:
    return VideoFacts(
        video_id=_video_id(job),
        participant_id=_participant_id(job[0]),
        split=_split(options, job),
        num_frames=round(options.video_seconds * options.fps),
        fps=options.fps,
        width=options.width,
        height=options.height,
        sample_rate=options.sample_rate,
    )


def _make_videos(
    out: Path, options: _Options, jobs: Sequence[tuple[int, int]], *, num_workers: int, progress: bool
) -> None:
    """Render the videos that are missing."""
    columns = (TextColumn("kitchen"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress or not jobs) as bar:
        task = bar.add_task("videos", total=len(jobs))
        parallel = joblib.Parallel(min(num_workers, max(1, len(jobs))), return_as="generator_unordered")
        for _ in parallel(joblib.delayed(_make_video)(out, options, job) for job in jobs):
            bar.advance(task)


def draw_video(
    seed: int,
    kitchen: int,
    video: int,
    *,
    duration_seconds: float,
    silent_share: float,
    off_screen_share: float,
    idle_motion_share: float = 0.0,
    babble_share: float = 0.0,
    plan_share: float = 0.2,
) -> tuple[Room, Script, np.random.Generator, np.random.Generator]:
    """Return the room and the script of one video, and the generators of its picture and its sound.

    A pure function of its arguments; the room depends on (seed, kitchen) alone.
    """
    room = draw_room(np.random.default_rng(np.random.SeedSequence((seed, kitchen, 0))))
    sequences = np.random.SeedSequence((seed, kitchen, video + 1)).spawn(3)  # 0 is the room's
    of_script, of_picture, of_sound = (np.random.default_rng(sequence) for sequence in sequences)
    script = write_script(
        of_script,
        duration_seconds=duration_seconds,
        silent_share=silent_share,
        off_screen_share=off_screen_share,
        idle_motion_share=idle_motion_share,
        babble_share=babble_share,
        plan_share=plan_share,
    )
    return room, script, of_picture, of_sound


def _make_video(out: Path, options: _Options, job: tuple[int, int]) -> None:
    """Render one video, whole or not at all, then note its events."""
    room, script, of_picture, of_sound = draw_video(
        options.seed,
        *job,
        duration_seconds=options.video_seconds,
        silent_share=options.silent_share,
        off_screen_share=options.off_screen_share,
        idle_motion_share=options.idle_motion_share,
        babble_share=options.babble_share,
        plan_share=options.plan_share,
    )
    path = _video_path(out, job)
    _events_path(out, job).parent.mkdir(exist_ok=True)
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # videos are rendered side by side; more threads would only get in each other's way
    try:
        sound = render_sound(room, script, of_sound, sample_rate=options.sample_rate, noise_db=options.noise_db)
        width, height, fps = options.width, options.height, options.fps
        picture = Picture(room, script, of_picture, width=width, height=height, fps=fps)
        with (
            replacing(path) as temporary,  # a name of its own: two runs may make the same kitchen at once
            VideoWriter(temporary, width=width, height=height, fps=fps, sample_rate=options.sample_rate) as writer,
        ):
            for number, frame in enumerate(picture.frames()):
                if number % fps == 0:  # a second of each in turn keeps the streams interleaved
                    first = number // fps * options.sample_rate
                    writer.write_sound(sound.wave[first : first + options.sample_rate])
                writer.write_frame(frame)
    finally:
        cv2.setNumThreads(num_threads)
    names = {"video_id": _video_id(job), "participant_id": _participant_id(job[0])}
    events = event_rows(script, room, sound.loudness_db, **names)
    sounds = sound_rows(script, events, sound.wave, sample_rate=options.sample_rate, **names)
    motions = idle_motion_rows(script, **names)
    _write_json(_events_path(out, job), {"events": events, "sounds": sounds, "idle_motions": motions})
