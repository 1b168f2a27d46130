"""Ego4D's canonical clips of a kitchen: which they are, and their files, cut from the videos.

A clip is an annotated interval of up to five minutes with 8 s more on either side, as far as the video goes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

import joblib
import numpy as np

from earmark.atomic import replacing
from earmark.kitchen.events import VideoFacts
from earmark.media import FrameReader, SoundReader, VideoWriter
from earmark.worker_processes import parallel

__all__ = ["CanonicalClip", "canonical_clips", "link_to", "named_uid", "video_uid", "write_clips"]

INTERVAL_SECONDS, PADDING_SECONDS = 300.0, 8.0
VERSIONS = ("v1", "v2")
CRF = 18  # of the official clips, too


@dataclass(frozen=True, slots=True)
class CanonicalClip:
    """A canonical clip.

    Attributes:
        number: Of the clip in its kitchen.
        uid: Its name.
        video: The video that it is cut from.
        video_uid: The video's name in Ego4D's form.
        interval: The annotated part of the video, in seconds.
    """

    number: int
    uid: str
    video: VideoFacts
    video_uid: str
    interval: tuple[float, float]

    @property
    def start(self) -> float:
        """Where it starts in its video, in seconds."""
        return max(0.0, self.interval[0] - PADDING_SECONDS)

    @property
    def stop(self) -> float:
        """Where it ends in its video, in seconds."""
        return min(self.video.duration_seconds, self.interval[1] + PADDING_SECONDS)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its video."""
        return self.start == 0 and self.stop == self.video.duration_seconds

    def holds(self, time_seconds: float) -> bool:
        """Return whether a time of the video is in the annotated part."""
        return self.interval[0] <= time_seconds < self.interval[1]


def canonical_clips(videos: Sequence[VideoFacts], seed: int) -> Iterator[CanonicalClip]:
    """Yield the clips of videos, in order."""
    numbers = count()
    for video in videos:
        for part in range(max(1, math.ceil(video.duration_seconds / INTERVAL_SECONDS - 1e-9))):
            interval = (part * INTERVAL_SECONDS, min((part + 1) * INTERVAL_SECONDS, video.duration_seconds))
            uid = str(named_uid(seed, f"{video.video_id}/clip{part}"))
            yield CanonicalClip(next(numbers), uid, video, video_uid(seed, video.video_id), interval)


def named_uid(seed: int, name: str) -> UUID:
    """Return the unique id of something in a kitchen."""
    return uuid5(NAMESPACE_URL, f"audible-kitchen:{seed}:{name}")


def video_uid(seed: int, video_id: str) -> str:
    """Return the unique id of a video in Ego4D's form.

    >>> video_uid(0, "P01_01")
    '7f5f48f0-f5ca-50c5-bb28-2d217dde7ad8'
    """
    return str(named_uid(seed, video_id))


def write_clips(out: Path, videos: Sequence[VideoFacts], *, seed: int, num_workers: int) -> None:
    """Write the file of each clip, for both versions of the download: a link to the video where it is all of it.

    Args:
        out: Folder of the kitchen, with its videos.
        videos: All videos, in order.
        seed: Of the kitchen.
        num_workers: Clips that are cut side by side.
    """
    clips = list(canonical_clips(videos, seed))
    for version in VERSIONS:
        (out / "ego4d" / version / "clips").mkdir(parents=True, exist_ok=True)
    to_cut = [clip for clip in clips if not clip.is_whole and not _path(out, clip, VERSIONS[0]).exists()]
    calls = [joblib.delayed(_cut)(out, clip) for clip in to_cut]
    for _ in parallel(min(num_workers, max(1, len(calls))), calls, return_as="generator_unordered"):
        pass
    for clip in clips:
        for version in VERSIONS:
            if clip.is_whole:
                link_to(_path(out, clip, version), _source(clip, above="../../.."))
            elif version != VERSIONS[0]:
                link_to(_path(out, clip, version), Path("../..", VERSIONS[0], "clips", f"{clip.uid}.mp4"))


def link_to(link: Path, target: Path) -> None:
    """Make a relative link in a folder that may not be there, in place of one that is."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _path(out: Path, clip: CanonicalClip, version: str) -> Path:
    return out / "ego4d" / version / "clips" / f"{clip.uid}.mp4"


def _source(clip: CanonicalClip, *, above: str | Path) -> Path:
    return Path(above, clip.video.participant_id, "videos", f"{clip.video.video_id}.MP4")


def _cut(out: Path, clip: CanonicalClip) -> None:
    """Cut a clip from its video: the frames from its first on, up to its last and without it, and their sound."""
    video, source = clip.video, _source(clip, above=out)
    first, stop = round(clip.start * video.fps), round(clip.stop * video.fps)
    sound = SoundReader(source)
    wave, rate = np.concatenate(list(sound)), sound.sample_rate
    begin = round(first / video.fps * rate)
    with (
        replacing(_path(out, clip, VERSIONS[0])) as temporary,
        VideoWriter(
            temporary, width=video.width, height=video.height, fps=video.fps, sample_rate=rate, crf=CRF
        ) as writer,
    ):
        pictures = FrameReader(source, fps=video.fps, num_threads=1, windows=[(first, stop)])
        for number, (_, picture) in enumerate(pictures):
            if number % video.fps == 0:  # a second of each in turn keeps the streams interleaved
                start = begin + number // video.fps * rate
                last = min(start + rate, round(stop / video.fps * rate))
                writer.write_sound(wave[start:last])
            writer.write_frame(picture)
