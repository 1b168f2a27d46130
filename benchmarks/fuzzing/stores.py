"""Damaged stores: opened, read from end to end, verified.

A reading is right where frames, sound, moments, scores and parameters equal those of the undamaged store; else opening,
reading or verifying must name a fault. And where reading fails, verifying must not find the store in order.
"""

import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earmark.clips.store import PreparedStore
from earmark.datasets.records import VideoRecord
from earmark.preparation.options import Transcoding
from earmark.preparation.preparing import prepare
from earmark.preparation.verifying import verify
from fuzzing.made_media import make_clips
from fuzzing.mutations import NUMBERS, TEXTS, edited_bytes, edited_tree, flipped, json_text
from fuzzing.running import Input, Kind, WrongError

IDS = {"a": "h264_aac.mp4", "P01/b": "mpeg4_mp3.avi", "c": "vp8_opus.webm"}


class Stores(Kind):
    """A store of three videos and a refused one."""

    name = "store"

    def make(self, folder: Path) -> None:
        clips = folder / "clips"
        clips.mkdir()
        make_clips(clips)
        # Nothing in the store may depend on the place or the time, so that an input is the same again.
        os.chdir(folder)
        for path in clips.iterdir():
            os.utime(path, (0, 0))
        videos = [VideoRecord(video_id, Path("clips", name), "train", "P01") for video_id, name in IDS.items()]
        videos.append(VideoRecord("refused", Path("clips", "none.mp4"), "train"))
        self._root = folder / "store"
        prepare(
            videos, self._root, transcoding=Transcoding(short_side=32), num_workers=1, isolate=False, progress=False
        )
        shutil.rmtree(clips)
        self._held = readings(self._root)
        assert not verify(self._root, num_workers=1, progress=False).faults

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        root = folder / "store"
        shutil.copytree(self._root, root)
        damages = draw.choices(list(DAMAGES), weights=list(DAMAGES.values()), k=draw.choice((1, 1, 1, 2)))
        told = [damages[0](root, draw)]
        for damage in damages[1:]:
            try:
                told.append(damage(root, draw))
            except (OSError, ValueError, LookupError, ArithmeticError, MemoryError, RecursionError, zipfile.BadZipFile):
                # the first has left nothing to do it to
                break

        def attempt() -> None:
            error, found = None, None
            try:
                found = readings(root)
            except ValueError as caught:
                error = caught
            faults = verify(root, num_workers=1, progress=False).faults
            if faults and any(not fault.reason for fault in faults):
                raise WrongError("a fault without a reason")
            if error is not None:
                if not faults:
                    raise WrongError(f"verify finds nothing, reading says: {_shortened(error)}")
                raise error
            if found != self._held and not faults:
                assert found is not None
                keys = sorted(key for key in found.keys() | self._held.keys() if found.get(key) != self._held.get(key))
                raise WrongError(f"other {', '.join({key.partition(' ')[0]: 0 for key in keys})}, and no word of it")

        return Input("; ".join(told), attempt, (str(root),))


def readings(root: Path) -> dict[str, str]:
    """Return digests of all that a store says, by what it is."""
    store = PreparedStore(root)
    said: dict[str, str] = {"rates": f"{store.fps} {store.sample_rate}", "videos": str(sorted(store.videos))}
    said["refused"] = str(sorted(row.video_id for row in store.catalog if row.status == "refused"))
    for video_id, video in store.videos.items():
        said[f"moments {video_id}"] = _digest(store.moments[video_id])
        said[f"scores {video_id}"] = _digest(store.scores[video_id])
        said[f"row {video_id}"] = f"{video.duration_seconds} {video.num_frames} {video.num_samples}"
        times = np.arange(video.num_frames) / store.fps
        said[f"pictures {video_id}"] = _digest(store.frames(video_id, times))
        if video.has_audio:
            said[f"sound {video_id}"] = _digest(store.sound(video_id, 0.0, video.num_samples))
    return said


def _digest(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _shortened(error: Exception) -> str:
    return f"{type(error).__name__} {str(error).rpartition('/')[2][:50]}"


# --- damage ---


def _some(root: Path, pattern: str, draw: random.Random) -> Path:
    return draw.choice(sorted(root.rglob(pattern)))


def _bytes_of_any(root: Path, draw: random.Random) -> str:
    path = draw.choice(sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size))
    data, told = edited_bytes(path.read_bytes(), draw)
    path.write_bytes(data)
    return f"{path.relative_to(root)}: {told}"


def _pixels(root: Path, draw: random.Random) -> str:
    path = _some(root, "*.mov", draw)
    data = path.read_bytes()
    data, told = flipped(data, draw, range(len(data)))
    path.write_bytes(data)
    if draw.random() < 0.4:
        path.with_suffix(".index.npz").unlink(missing_ok=True)
        told += ", its index gone"
    return f"{path.relative_to(root)}: {told}"


def _index(root: Path, draw: random.Random) -> str:
    path = _some(root, "*.npz", draw)
    with np.load(path) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    name = draw.choice(sorted(columns))
    values = columns[name]
    how = draw.choice(("number", "number", "missing", "shape", "type", "short", "swapped"))
    if how == "missing":
        del columns[name]
    elif how == "shape":
        columns[name] = values.reshape(1, -1)
    elif how == "type":
        columns[name] = values.astype(draw.choice((np.float64, np.complex64, np.bool_, "U8", np.int8)))
    elif how == "short" and values.ndim:
        columns[name] = values[: draw.randrange(len(values) + 1)]
    elif how == "swapped" and values.ndim:
        columns[name] = values[::-1]
    else:
        number = draw.choice((0, -1, 1, 2**31, 2**40, 2**62, -(2**62), 17))
        changed = values.astype(np.int64).reshape(-1).copy()
        if len(changed):
            place = draw.randrange(len(changed))
            changed[place] = number if draw.random() < 0.5 else changed[place] + draw.choice((-1, 1, 2))
        columns[name] = changed.reshape(values.shape)
    with path.open("wb") as file:
        np.savez(file, **columns)
    return f"{path.relative_to(root)}: {name} {how}"


def _claimed_index(root: Path, draw: random.Random) -> str:
    """An index whose array claims more than the file has."""
    path = _some(root, "*.npz", draw)
    shape = draw.choice(((2**40,), (2**31,), (-1,), (2**20, 2**20), (10**30,)))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(members))
    members[name] = header.getvalue() + b"\0" * 64
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if draw.random() < 0.3 else zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return f"{path.relative_to(root)}: {name} claims {shape}"


def _json_tree(root: Path, draw: random.Random) -> str:
    path = draw.choice((root / "store.json", _some(root / "videos", "*.json", draw)))
    tree, told = edited_tree(json.loads(path.read_text()), draw)
    path.write_text(json_text(tree))
    return f"{path.relative_to(root)}: {told}"


def _table(root: Path, draw: random.Random) -> str:
    path = draw.choice((root / "videos.parquet", root / "moments.parquet"))
    table = pq.read_table(path)
    how = draw.choice(("value", "value", "value", "shift", "drop", "double", "order", "column", "type", "empty"))
    name = draw.choice(table.column_names)
    rows = table.to_pylist()
    number = draw.randrange(len(rows)) if rows else 0
    place = table.column_names.index(name)
    told = f"{path.name}: {name} of row {number}, {how}"
    if how == "drop":
        rows.pop(number)
    elif how == "double":
        rows.insert(number, rows[number])
    elif how == "order":
        draw.shuffle(rows)
    elif how == "empty":
        rows = []
    elif how == "value":
        kind = table.schema.field(name).type
        values = [None, *(NUMBERS if not pa.types.is_string(kind) else (*TEXTS, *IDS, "ok", "degraded", "refused"))]
        rows[number][name] = draw.choice(values)
        told += f" {str(rows[number][name])[:30]!r}"
    if how == "column":
        changed = table.drop_columns([name])
    elif how == "type":
        kind = draw.choice((pa.string(), pa.float32(), pa.int8(), pa.bool_(), pa.large_string()))
        try:
            changed = table.set_column(place, name, table[name].cast(kind, safe=False))
        except pa.ArrowException:
            changed = table.drop_columns([name])
        told += f" {kind}"
    elif how == "shift" and pa.types.is_floating(table.schema.field(name).type):
        shifted = pa.array([row[name] + draw.choice((0.5, -0.25, 10.0)) for row in rows], table.schema.field(name).type)
        changed = table.set_column(place, name, shifted)
    else:
        try:
            changed = pa.Table.from_pylist(rows, schema=table.schema)
        except (pa.ArrowException, OverflowError, ValueError):  # the column cannot hold it: one of its own type, then
            rows[number][name] = None
            changed = pa.Table.from_pylist(rows, schema=table.schema)
            told += " (as null)"
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    return told


def _gone(root: Path, draw: random.Random) -> str:
    path = draw.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    path.unlink()
    return f"{path.relative_to(root)} gone"


def _exchanged(root: Path, draw: random.Random) -> str:
    suffix = draw.choice(("*.mov", "*.npz", "*.json"))
    one, other = draw.sample(sorted((root / "videos").rglob(suffix)), 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    if draw.random() < 0.5:
        other.write_bytes(first)
    return f"{other.relative_to(root)} in place of {one.relative_to(root)}"


DAMAGES: dict[Callable[[Path, random.Random], str], int] = {
    _bytes_of_any: 4,
    _pixels: 4,
    _index: 4,
    _claimed_index: 1,
    _json_tree: 4,
    _table: 6,
    _gone: 1,
    _exchanged: 2,
}
KIND = Stores()
