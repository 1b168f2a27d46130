"""What ``ego4d.json`` says of Ego4D's videos and of the clips that are cut from them.

Of a row that can be a hundred times as long, only what is used is kept.
"""

from pathlib import Path
from typing import Any, NamedTuple

from earmark.datasets.annotation_files import (
    MAX_VIDEO_SECONDS,
    RowError,
    RowFaults,
    checked_file_name,
    checked_id,
    checked_number,
    checked_span,
    json_rows,
)

__all__ = ["MAX_FPS", "ManifestClip", "ManifestVideo", "checked_fps", "read_manifest_clips", "read_manifest_videos"]

MAX_FPS = 1000.0  # the cameras of Ego4D take 24 to 60 frames per second
SPLITS = {"train": "train", "val": "validation", "test": "test", "multi": "mixed"}
OTHER_BENCHMARKS = ("split_em", "split_av")  # episodic memory, audio-visual diarization


class ManifestVideo(NamedTuple):
    """What is kept of a video.

    Attributes:
        video_uid: Its name.
        split: ``train``, ``validation`` or ``test`` by ``split_fho``; ``mixed`` where its clips are in several;
            ``all`` where it is in none.
        participant_id: Who wore the camera; empty where unknown.
        fps: Frames per second as they stand there; checked where they are used.
        seconds: How long it lasts; None where that is not said.
        has_audio: Whether it has sound; None where that is not said.
        held_out: Fields by which other benchmarks keep it, or a part of it, for validation or test.
    """

    video_uid: str
    split: str
    participant_id: str
    fps: Any
    seconds: float | None
    has_audio: bool | None
    held_out: tuple[str, ...]


class ManifestClip(NamedTuple):
    """What is kept of a clip that the download has as a file of its own.

    Attributes:
        clip_uid: Its name.
        video_uid: The video that it is cut from.
        start_seconds: Where it starts in the video.
        stop_seconds: Where it ends.
        fps: As `ManifestVideo.fps`.
        has_audio: As `ManifestVideo.has_audio`.
    """

    clip_uid: str
    video_uid: str
    start_seconds: float
    stop_seconds: float
    fps: Any
    has_audio: bool | None


def read_manifest_videos(path: Path) -> tuple[dict[str, ManifestVideo], tuple[str, ...], tuple[str, ...]]:
    """Read the videos of ``ego4d.json``.

    Returns:
        By name in the order of the file; a line for each row that is left out; and one for each length that is none,
        with which the video is read all the same.

    Raises:
        DatasetError: If the file is damaged, or all its rows are.
    """
    videos: dict[str, ManifestVideo] = {}
    faults, doubts = RowFaults(path), RowFaults(path)
    for place, row in json_rows(path, "videos", faults):
        try:
            video_uid = checked_file_name("video", checked_id("video_uid", row.get("video_uid")))
            if video_uid in videos:
                raise RowError(f"video {video_uid} is listed twice")
            videos[video_uid] = _video(video_uid, row)
        except RowError as error:
            faults.add(place, error)
            continue
        if videos[video_uid].seconds is None and row.get("duration_sec") is not None:
            doubts.add(place, f"the duration_sec of video {video_uid} is no length, and is not compared")
    faults.require_rows(len(videos))
    return videos, faults.lines(), doubts.lines()


def read_manifest_clips(path: Path) -> tuple[dict[str, ManifestClip], tuple[str, ...]]:
    """Read the clips of ``ego4d.json``, those of all benchmarks.

    Returns:
        By name in the order of the file, and a line for each row that is left out.

    Raises:
        DatasetError: If the file is damaged, or all its rows are.
    """
    clips: dict[str, ManifestClip] = {}
    faults = RowFaults(path)
    for place, row in json_rows(path, "clips", faults):
        try:
            clip_uid = checked_file_name("clip", checked_id("clip_uid", row.get("clip_uid")))
            if clip_uid in clips:
                raise RowError(f"clip {clip_uid} is listed twice")
            span = (
                checked_number(name, row.get(name), least=0, most=MAX_VIDEO_SECONDS)
                for name in ("video_start_sec", "video_end_sec")
            )
            metadata = _object(row.get("clip_metadata"))
            clips[clip_uid] = ManifestClip(
                clip_uid,
                checked_id("video_uid", row.get("video_uid")),
                *checked_span("the clip", *span),
                fps=metadata.get("fps"),
                has_audio=_has_audio(metadata),
            )
        except RowError as error:
            faults.add(place, error)
    faults.require_rows(len(clips))
    return clips, faults.lines()


def checked_fps(value: object) -> float:
    """Return frames per second.

    Raises:
        RowError: If they are no number that a camera could have.
    """
    return float(checked_number("fps", value, least=1e-3, most=MAX_FPS))


def _video(video_uid: str, row: dict[str, Any]) -> ManifestVideo:
    participant = row.get("fb_participant_id")
    if isinstance(participant, int | float):  # the official file numbers them
        participant = str(participant)
    metadata = _object(row.get("video_metadata"))
    return ManifestVideo(
        video_uid,
        split=_split(row.get("split_fho")),
        participant_id="" if participant in (None, "") else checked_id("fb_participant_id", participant),
        fps=metadata.get("fps"),
        seconds=_seconds(row.get("duration_sec")),
        has_audio=_has_audio(metadata),
        held_out=tuple(
            f"{split} by {name}"
            for name in OTHER_BENCHMARKS
            if (split := _split(row.get(name))) in ("validation", "test", "mixed")
        ),
    )


def _split(value: object) -> str:
    return SPLITS.get(value, "all") if isinstance(value, str) else "all"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: object) -> float | None:
    try:
        return checked_number("duration_sec", value, least=1e-3, most=MAX_VIDEO_SECONDS)
    except RowError:
        return None


def _has_audio(metadata: dict[str, Any]) -> bool | None:
    """Return whether there is sound: by the time base of its stream, or by a list of streams as ffprobe writes it."""
    if "audio_base_denominator" in metadata:
        return metadata["audio_base_denominator"] is not None
    streams = metadata.get("streams")
    if isinstance(streams, list):
        return any(_object(stream).get("codec_type") == "audio" for stream in streams)
    return None
