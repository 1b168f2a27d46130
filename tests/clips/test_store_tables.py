"""What a store reads when it is opened: description, catalog, moments; and what that costs when it is large."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from earmark.clips.store import MAX_INDEX_BYTES, PreparedStore
from earmark.moments import Moment, moments_table, write_moments
from earmark.preparation.catalog import PreparedVideo, StoreError, prepared_name
from earmark.preparation.tables import write_catalog, write_description, write_moments_of_store
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store


def test_a_catalog_that_leads_outside_the_store_is_refused(store: PreparedStore) -> None:
    rows = [replace(row, prepared_path=f"../{row.prepared_path}") for row in store.videos.values()]
    finish_store(store.root, rows, {})
    with pytest.raises(StoreError, match=r"videos\.parquet: file of 'short' is '\.\./videos/short\.mov'"):
        PreparedStore(store.root).frames("short", [0.1])


def _large_store(root: Path, *, num_videos: int, minutes: int) -> None:
    """Write the tables of a large store, without its videos: ten moments a minute, twenty thousand hours at most."""
    video_ids = [f"P{k % 100:02}/P{k % 100:02}_{k:05}" for k in range(num_videos)]
    same = PreparedVideo(
        video_id="",
        path="",
        split="train",
        duration_seconds=60.0 * minutes,
        num_frames=960 * minutes,
        width=228,
        height=128,
        has_audio=True,
        num_samples=960000 * minutes,
        num_moments=10 * minutes,
        num_bytes=10**8,
    )
    videos = [
        replace(same, video_id=name, path=f"/data/full_scale/{name}.mp4", prepared_path=f"videos/{name}.mov")
        for name in video_ids
    ]
    parameters = {"fps": FPS, "audio_rate": SAMPLE_RATE, "segment_seconds": 10.0, "detector": "replai"}
    root.mkdir()
    write_catalog(root, videos, parameters, metadata={})
    table = moments_table({"": []}, detector="replai", parameters={})
    count = 10 * minutes
    times = np.sort(np.random.default_rng(0).uniform(0, 60 * minutes, (num_videos, count))).ravel()
    named = pa.DictionaryArray.from_arrays(np.repeat(np.arange(num_videos), count), video_ids).cast(pa.string())
    values = [named, times, np.ones(len(times)), np.ones(len(times)), (times // 10).astype(np.int64)]
    schema = table.schema
    arrays = [pa.array(value).cast(field.type) for value, field in zip(values, schema, strict=True)]
    write_moments_of_store(root, pa.table(arrays, schema=schema))
    write_description(root, parameters)


MAX_CALLS_PER_VIDEO = 5  # 2 when this was written: a record, and its place by id
LARGE_STORE = """
import pickle, sys
from earmark.clips.dataset import MomentClips
from earmark.moments import read_moments
from earmark.clips.store import PreparedStore
import pyarrow.dataset, torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

counts = {"call": 0, "c_call": 0, "open": 0}
watching = False

def count_calls(frame, event, argument):
    if event in counts:
        counts[event] += 1

def count_opened(event, arguments):
    if watching and event == "open":
        counts["open"] += 1

if sys.argv[2] == "open":
    PreparedStore(sys.argv[1])  # what is imported at first use is there
    sys.addaudithook(count_opened)
    watching = True
    sys.setprofile(count_calls)
    store = PreparedStore(sys.argv[1])
    sys.setprofile(None)
    watching = False
    print(counts["call"] + counts["c_call"], counts["open"], len(store.videos), sum(map(len, store.moments.values())))
    open(sys.argv[3], "wb").write(pickle.dumps(MomentClips(store)))
else:
    before = resident()
    clips = pickle.load(open(sys.argv[3], "rb"))
    print(resident() - before, len(clips), clips.num_moments)
"""


def _in_own_process(*arguments: str | Path) -> list[float]:
    command = [sys.executable, "-c", LARGE_STORE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_opening_a_large_store_does_no_work_per_moment_and_little_per_video(tmp_path: Path) -> None:
    """Counted in calls of functions, Python's and built in, and in files opened: no clock is asked."""
    for name, num_videos, minutes in (("few", 100, 10), ("long", 100, 1000), ("many", 10_000, 10)):
        _large_store(tmp_path / name, num_videos=num_videos, minutes=minutes)
    few, long, many = (_in_own_process(tmp_path / name, "open", tmp_path / "clips") for name in ("few", "long", "many"))
    assert [(found[2], found[3]) for found in (few, long, many)] == [(100, 1e4), (100, 1e6), (10_000, 1e6)]
    assert long[0] == few[0]
    assert (many[0] - few[0]) / (10_000 - 100) < MAX_CALLS_PER_VIDEO
    assert many[1] == few[1] == long[1]  # no video's own file is opened


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory in /proc")
def test_a_store_of_ten_thousand_videos_is_light_in_a_worker(tmp_path: Path) -> None:
    _large_store(tmp_path / "large", num_videos=10_000, minutes=10)
    _in_own_process(tmp_path / "large", "open", tmp_path / "clips")
    megabytes, num_segments, num_usable = _in_own_process(tmp_path / "large", "work", tmp_path / "clips")
    assert num_segments > 300_000
    assert num_usable > 900_000
    assert megabytes + MAX_INDEX_BYTES / 1e6 < 200


def test_moments_in_any_order_come_sorted_and_by_video(store: PreparedStore) -> None:
    found = {"P01/P01_01": [1.5, 4.25, 7.0], "short": [0.6]}
    table = moments_table(
        {name: [Moment(t, t + 1, 1.0, 0) for t in times] for name, times in found.items()}, detector="x", parameters={}
    )
    shuffled = table.take([3, 2, 0, 1])
    write_moments(store.root / "moments.parquet", shuffled)
    again = PreparedStore(store.root)
    for name in ("P01/P01_01", "short"):
        np.testing.assert_array_equal(again.moments[name], found[name])
        np.testing.assert_array_equal(again.scores[name], np.array(found[name]) + 1)
    assert again.moments["mute"].size == 0


@pytest.mark.parametrize("video_id", ["../x", "/etc/x", "a/../../x", "", "a//b", "a\\b", "C:x", ".", "a\0b", "x" * 300])
def test_ids_that_would_leave_the_store_are_refused(video_id: str) -> None:
    with pytest.raises(StoreError, match="cannot be a file name"):
        prepared_name(video_id)


def test_the_fingerprint_depends_on_content_not_on_place(store: PreparedStore, tmp_path: Path) -> None:
    moved = store.root.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert PreparedStore(moved).fingerprint == store.fingerprint
    finish_store(moved, store.catalog, {"P01/P01_01": [1.5, 4.25, 7.1], "short": [0.6]})
    assert PreparedStore(moved).fingerprint != store.fingerprint


def test_other_pictures_of_the_same_length_have_another_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for quality in (95, 60):
        finish_store(tmp_path, [add_video(tmp_path, "one", num_frames=10, quality=quality)], {"one": [0.3]})
        prints.add(PreparedStore(tmp_path).fingerprint)
    assert len(prints) == 2


def test_folders_that_are_no_store_are_refused(tmp_path: Path, store: PreparedStore) -> None:
    with pytest.raises(StoreError, match=r"not a prepared store \(no store\.json\)"):
        PreparedStore(tmp_path / "nothing")
    description = store.root / "store.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(StoreError, match="written by a newer Earmark"):
        PreparedStore(store.root)
    description.write_text("{")
    with pytest.raises(StoreError, match="not the description"):
        PreparedStore(store.root)
    description.write_text(json.dumps(content))
    moments = (store.root / "moments.parquet").read_bytes()
    (store.root / "moments.parquet").write_bytes(b"no table")
    with pytest.raises(StoreError, match="not a moments table"):
        PreparedStore(store.root)
    (store.root / "moments.parquet").unlink()
    with pytest.raises(StoreError, match=r"moments\.parquet: is missing"):
        PreparedStore(store.root)
    (store.root / "moments.parquet").write_bytes(moments)
    (store.root / "videos.parquet").write_bytes(b"no table")
    with pytest.raises(StoreError, match="not a catalog"):
        PreparedStore(store.root)
    (store.root / "videos.parquet").unlink()
    with pytest.raises(StoreError, match="catalog is missing"):
        PreparedStore(store.root)
