"""A store as it was written, damage of it, and what is asked of readers, of verifying and of repairing."""

import json
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.preparation import Fault, StoreError, prepare, repair, verify
from tests.helpers.clicking import make_video

Change = Callable[[Path], object]  # of the store in a folder


@dataclass(frozen=True)
class Truth:
    """A store as it was written, and what it holds."""

    sources: Path
    root: Path
    moments: dict[str, npt.NDArray[np.float64]]
    scores: dict[str, npt.NDArray[np.float64]]
    pictures: dict[str, npt.NDArray[np.uint8]]
    sound: dict[str, npt.NDArray[np.int16]]


def make_truth(folder: Path) -> Truth:
    """Write sources and prepare them."""
    sources, root = folder / "sources", folder / "store"
    make_video(sources / "a.mp4", seconds=3.0, times=(0.8, 2.0))
    make_video(sources / "sub" / "b.mp4", seconds=4.0, times=(1.0, 2.5))
    make_video(sources / "mute.mp4", seconds=1.0, times=(), sound=False)
    (sources / "text.mp4").write_text("not a video")
    prepare(Folder(sources).videos(), root, progress=False)
    store = PreparedStore(root)
    assert {name: len(times) for name, times in store.moments.items()} == {"a": 2, "mute": 0, "sub/b": 2}
    return Truth(
        sources,
        root,
        store.moments,
        store.scores,
        {name: pictures_of(store, name) for name in store.videos},
        {name: sound_of_video(store, name) for name in store.videos if store.videos[name].has_audio},
    )


def pictures_of(store: PreparedStore, video_id: str) -> npt.NDArray[np.uint8]:
    """Return the pictures of the recording's seconds, by the clock of the source and not by the store's word."""
    seconds = {"a": 3.0, "sub/b": 4.0, "mute": 1.0}[video_id]
    return store.frames(video_id, np.arange(0.0, seconds, 1 / 16))


def sound_of_video(store: PreparedStore, video_id: str) -> npt.NDArray[np.int16]:
    """Return three seconds of sound, so that no run of it is asked for in part."""
    return store.sound(video_id, 0.0, 3 * 16000)


def assert_refused_or_right(root: Path, truth: Truth) -> int:
    """Return how often the store was refused: once if it cannot be opened, else once for each video."""
    try:
        store = PreparedStore(root)
    except StoreError as error:
        _names_the_store(error, root)
        return 1
    assert store.videos.keys() == truth.moments.keys()
    num_refused = 0
    for video_id in store.videos:
        try:
            pictures = pictures_of(store, video_id)
            sound = sound_of_video(store, video_id) if store.videos[video_id].has_audio else None
        except StoreError as error:
            _names_the_store(error, root)
            num_refused += 1
            continue
        np.testing.assert_array_equal(pictures, truth.pictures[video_id])
        if sound is not None or video_id in truth.sound:
            np.testing.assert_array_equal(sound, truth.sound[video_id])
        np.testing.assert_array_equal(store.moments[video_id], truth.moments[video_id])
        np.testing.assert_array_equal(store.scores[video_id], truth.scores[video_id])
    return num_refused


def _names_the_store(error: StoreError, root: Path) -> None:
    assert str(root) in str(error)


def assert_repaired(root: Path, truth: Truth, *, again: AbstractSet[str] = frozenset()) -> None:
    """Repair the store and compare it with the whole one; of the videos only some may have been made again."""
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.mov")}
    repair(verify(root, progress=False))
    prepare(Folder(truth.sources).videos(), root, progress=False)
    assert verify(root, progress=False).faults == ()
    assert assert_refused_or_right(root, truth) == 0
    for path in truth.root.rglob("*"):
        name = path.relative_to(truth.root)
        if path.is_file() and path.suffix in (".mov", ".npz", ".json", ".parquet"):
            assert (root / name).read_bytes() == path.read_bytes(), name
    made = {path.relative_to(root / "videos").as_posix() for path in root.rglob("*.mov")}
    kept = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns == stamp}
    assert made - {path.relative_to(root / "videos").as_posix() for path in kept} == {f"{name}.mov" for name in again}


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], *, keep_metadata: bool) -> None:
    """Write a table anew with other rows; without its metadata it is one that says nothing of how it was written."""
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata if keep_metadata else None), path)


def with_column(name: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    """Return a change of a column's values."""

    def changed(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        column = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(place, name, column)

    return changed


def with_value(name: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Return a change of one value of a column."""
    return with_column(name, lambda values: [value if number == row else old for number, old in enumerate(values)])


def with_parameters(**changes: Any) -> Change:
    """Return a change of the parameters in ``store.json``; None removes one."""

    def change(root: Path) -> None:
        path = root / "store.json"
        content = json.loads(path.read_text())
        parameters = {**content["parameters"], **changes}
        content["parameters"] = {name: value for name, value in parameters.items() if value is not None}
        path.write_text(json.dumps(content))

    return change


def assert_named(faults: Iterable[Fault], expected: str) -> None:
    """Assert that one of the reasons holds what a pattern says."""
    assert any(re.search(expected, fault.reason) for fault in faults), faults
