"""Stores whose every frame and sample says which one it is, made without a source video."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from earmark.media import PacketIndex, write_prepared
from earmark.moments import Moment, detector_parameters, moments_table
from earmark.preparation.catalog import PreparedVideo
from earmark.preparation.record import Record, digest_of_file, save_record
from earmark.preparation.tables import write_catalog, write_description, write_moments_of_store

FPS = 16
SAMPLE_RATE = 16000


def frame_of(number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A frame whose grey level is its number: levels 2 apart, so that JPEG cannot blur one into the next."""
    return np.full((height, width, 3), 10 + 2 * (number % 120), np.uint8)


def number_of(frame: npt.NDArray[np.uint8]) -> int:
    """The number (modulo 120) of a frame made by `frame_of`."""
    return round((float(frame.mean()) - 10) / 2)


def sound_of(num_samples: int) -> npt.NDArray[np.int16]:
    """Sound whose every sample is told from its neighbours: a ramp that wraps."""
    return (np.arange(num_samples) % 30011 - 15000).astype(np.int16)


def add_video(
    root: Path,
    video_id: str,
    *,
    num_frames: int = 160,
    width: int = 48,
    height: int = 32,
    num_samples: int | None = None,
    split: str = "train",
    has_audio: bool = True,
    quality: int = 95,
) -> PreparedVideo:
    """Write one prepared video into a store folder and return its catalog row."""
    num_samples = num_frames * SAMPLE_RATE // FPS if num_samples is None else num_samples
    path = root / "videos" / f"{video_id}.mov"
    path.parent.mkdir(parents=True, exist_ok=True)
    jpegs = (simplejpeg.encode_jpeg(frame_of(k, width, height), quality=quality) for k in range(num_frames))
    sound = np.array_split(sound_of(num_samples), 7) if has_audio else None
    write_prepared(path, jpegs, fps=FPS, size=(width, height), sound=sound, sample_rate=SAMPLE_RATE)
    index = PacketIndex.of_file(path)
    index.save(path.with_suffix(".index.npz"))
    return PreparedVideo(
        video_id=video_id,
        path=f"/videos/{video_id}.mp4",
        prepared_path=f"videos/{video_id}.mov",
        split=split,
        duration_seconds=num_frames / FPS,
        num_frames=num_frames,
        width=width,
        height=height,
        has_audio=has_audio,
        num_samples=num_samples if has_audio else 0,
        num_bytes=index.file_size,
        index_digest=index.digest,
        file_digest=digest_of_file(path),
    )


def finish_store(root: Path, rows: Sequence[PreparedVideo], moments: dict[str, list[float]], **more: int) -> None:
    """Write the records, the catalog, the moments and the description of a store, with ``more`` parameters."""
    rows = [replace(row, num_moments=len(moments.get(row.video_id, []))) for row in rows]
    found = {row.video_id: [Moment(t, 2.0, 1.0, int(t // 10)) for t in moments.get(row.video_id, [])] for row in rows}
    searched = detector_parameters()
    parameters = {"fps": FPS, "audio_rate": SAMPLE_RATE, **searched, **more}
    for row in rows:
        index = root / "videos" / f"{row.video_id}.index.npz"
        checksum = PacketIndex.load(index).checksum if index.exists() else None
        save_record(root, Record(row, tuple(found[row.video_id]), parameters, "", checksum))
    table = moments_table(found, detector="earmark", parameters=searched)
    write_catalog(root, rows, parameters, metadata=table.schema.metadata)
    write_moments_of_store(root, table)
    write_description(root, parameters)
