import contextlib
import gc
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg

from earmark.clips.store import (
    CATALOG_SCHEMA,
    MAX_INDEX_BYTES,
    STORE_VERSION,
    PacketIndex,
    PreparedStore,
    PreparedVideo,
    StoreError,
    prepared_name,
)
from earmark.moments import Moment, moments_table, write_moments
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store, number_of, sound_of


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    rows = [
        add_video(tmp_path, "P01/P01_01"),
        add_video(tmp_path, "short", num_frames=20, num_samples=30011),
        add_video(tmp_path, "mute", num_frames=10, has_audio=False),
        PreparedVideo("broken", "/videos/broken.mp4", status="refused", reason="not media"),
    ]
    finish_store(tmp_path, rows, {"P01/P01_01": [1.5, 4.25, 7.0], "short": [0.6]})
    return PreparedStore(tmp_path)


def _movie(store: PreparedStore, video_id: str = "P01/P01_01") -> Path:
    return store.root / store.videos[video_id].prepared_path


def _flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def _numbers(store: PreparedStore, times: list[float]) -> list[int]:
    return [number_of(frame) for frame in store.frames("P01/P01_01", times)]


def test_every_frame_is_found_at_its_time(store: PreparedStore) -> None:
    numbers = np.arange(100)
    assert _numbers(store, list(numbers / FPS)) == list(numbers)


def test_the_nearest_frame_is_taken_and_equal_steps_give_equal_steps(store: PreparedStore) -> None:
    assert _numbers(store, [3 / FPS + 0.03, 4 / FPS - 0.03]) == [3, 4]
    halfway = (np.arange(8) + 0.5) / FPS  # ties: rounding half to even would repeat some frames and skip others
    assert _numbers(store, list(halfway)) == list(range(1, 9))
    rounded = halfway + 1e-12 * (-1.0) ** np.arange(8)
    assert _numbers(store, list(rounded)) == list(range(1, 9))


def test_frames_are_returned_in_the_order_asked_for(store: PreparedStore) -> None:
    assert _numbers(store, [5.0, 0.0, 2.5, 0.0]) == [80, 0, 40, 0]


@pytest.mark.parametrize(("start", "count"), [(0, 160000), (1, 1), (22857, 2), (12345, 40000), (159999, 1)])
def test_sound_is_exact_to_the_sample(store: PreparedStore, start: int, count: int) -> None:
    sound = store.sound("P01/P01_01", start / SAMPLE_RATE, count)
    np.testing.assert_array_equal(sound, sound_of(160000)[start : start + count])


def test_sound_outside_the_recording_is_silence(store: PreparedStore) -> None:
    sound = store.sound("short", -0.25, 50000)
    np.testing.assert_array_equal(sound[:4000], 0)
    np.testing.assert_array_equal(sound[4000 : 4000 + 30011], sound_of(30011))
    np.testing.assert_array_equal(sound[34011:], 0)
    assert not store.sound("short", 100.0, 10).any()
    assert not store.sound("short", -100.0, 10).any()


def test_frames_and_sound_read_together_equal_those_read_apart(store: PreparedStore) -> None:
    times = [2.0, 2.0625, 8.9]
    frames, sound = store.read("P01/P01_01", times, sound_start_seconds=1.9, num_samples=3200)
    np.testing.assert_array_equal(frames, store.frames("P01/P01_01", times))
    np.testing.assert_array_equal(sound, store.sound("P01/P01_01", 1.9, 3200))


def test_a_deleted_index_is_rebuilt_from_the_movie(store: PreparedStore) -> None:
    path = _movie(store).with_suffix(".index.npz")
    before = PacketIndex.load(path)
    path.unlink()
    assert _numbers(store, [6.0]) == [96]
    after = PacketIndex.load(path)
    for name in ("frame_offsets", "frame_sizes", "sound_offsets", "sound_sizes"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.file_size == before.file_size == _movie(store).stat().st_size


def test_a_damaged_or_stale_index_is_rebuilt(store: PreparedStore) -> None:
    path = _movie(store).with_suffix(".index.npz")
    good = PacketIndex.load(path)
    path.write_bytes(path.read_bytes()[:100])
    assert _numbers(PreparedStore(store.root), [6.0]) == [96]
    replace(good, file_size=good.file_size + 1, frame_offsets=good.frame_offsets + 7).save(path)
    assert _numbers(PreparedStore(store.root), [6.0]) == [96]
    np.testing.assert_array_equal(PacketIndex.load(path).frame_offsets, good.frame_offsets)


def test_an_index_that_needs_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.index.npz"
    np.savez(path, frame_offsets=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"x\.index\.npz: not a packet index"):
        PacketIndex.load(path)


def test_a_store_without_any_moment_can_be_read(tmp_path: Path) -> None:
    finish_store(tmp_path, [add_video(tmp_path, "quiet", num_frames=10)], {})
    assert PreparedStore(tmp_path).moments["quiet"].shape == (0,)


@pytest.mark.parametrize("name", ["videos.parquet", "moments.parquet"])
def test_a_damaged_table_is_an_error_that_names_the_file(store: PreparedStore, name: str) -> None:
    content = (store.root / name).read_bytes()
    reasons = []
    for at in range(8, len(content), len(content) // 40):
        (store.root / name).write_bytes(content[:at] + bytes(8) + content[at + 8 :])
        try:
            PreparedStore(store.root)  # not all damage is seen: some bytes are values
        except StoreError as error:
            reasons.append(str(error))
    assert len(reasons) >= 5
    assert all(name in reason for reason in reasons)


def test_a_truncated_movie_is_an_error_that_names_the_file(store: PreparedStore) -> None:
    path = _movie(store)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(StoreError, match=r"P01_01\.mov: .* truncated .* \(asked for P01/P01_01 from 0\.000 s\)"):
        store.frames("P01/P01_01", [0.0])


def test_a_damaged_frame_is_an_error_that_names_video_time_and_file(store: PreparedStore) -> None:
    path = _movie(store)
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    content = bytearray(path.read_bytes())
    offset = int(index.frame_offsets[40])
    content[offset : offset + 4] = b"\0\0\0\0"
    path.write_bytes(content)
    assert _numbers(store, [2.4375]) == [39]
    with pytest.raises(StoreError, match=r"P01_01\.mov: frame 40 of P01/P01_01 \(2\.500 s\) is damaged"):
        store.frames("P01/P01_01", [2.5])


def test_a_missing_movie_is_an_error_that_names_it(store: PreparedStore) -> None:
    _movie(store).unlink()
    with pytest.raises(StoreError, match=r"P01_01\.mov: .* cannot be opened.* \(asked for P01/P01_01 from 0\.000 s\)"):
        store.frames("P01/P01_01", [0.0])


def test_unknown_refused_and_mute_videos_are_told_apart(store: PreparedStore) -> None:
    with pytest.raises(StoreError, match="'nobody' is not in this store"):
        store.frames("nobody", [0.0])
    with pytest.raises(StoreError, match="'broken' was refused: not media"):
        store.frames("broken", [0.0])
    with pytest.raises(StoreError, match="'mute' has no sound"):
        store.sound("mute", 0.0, 10)
    assert number_of(store.frames("mute", [0.5])[0]) == 8


@pytest.mark.parametrize("time", [-0.04, 10.01, float("nan"), float("inf")])
def test_times_outside_the_video_are_refused(store: PreparedStore, time: float) -> None:
    with pytest.raises(StoreError, match=r"lies outside video 'P01/P01_01' \(0 to 10\.000 s\)"):
        store.frames("P01/P01_01", [1.0, time])


def test_moments_come_sorted_and_by_video(store: PreparedStore) -> None:
    np.testing.assert_array_equal(store.moments["P01/P01_01"], [1.5, 4.25, 7.0])
    np.testing.assert_array_equal(store.moments["short"], [0.6])
    assert store.moments["mute"].size == 0
    assert "broken" not in store.videos
    assert [video.video_id for video in store.catalog][-1] == "broken"


def _read_in_other_process(pickled: bytes) -> list[int]:
    return _numbers(pickle.loads(pickled), [1.0, 9.0])  # a test of our own object, made a line above


def test_a_store_with_open_files_can_be_sent_to_another_process(store: PreparedStore) -> None:
    assert _numbers(store, [1.0]) == [16]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_read_in_other_process, pickle.dumps(store)).result(60) == [16, 144 - 120]


def test_many_videos_share_a_bounded_number_of_handles(store: PreparedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.clips.store.MAX_OPEN_VIDEOS", 1)
    for _ in range(3):
        assert _numbers(store, [1.0]) == [16]
        assert number_of(store.frames("short", [0.5])[0]) == 8
    assert list(store._open) == ["short"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts handles in /proc")
def test_evicted_videos_give_their_handles_back(store: PreparedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.clips.store.MAX_OPEN_VIDEOS", 2)
    gc.collect()  # the files of other tests' stores, which expected errors may still hold
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        for video_id in ("P01/P01_01", "short", "mute"):
            store.frames(video_id, [0.1])
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2


def test_indexes_share_a_bounded_memory(store: PreparedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.clips.store.MAX_INDEX_BYTES", 1000)  # the index of 100 frames alone is larger
    for _ in range(2):
        for video_id in ("mute", "short", "P01/P01_01"):
            store.frames(video_id, [0.1])
    assert list(store._open) == ["P01/P01_01"]  # the one in use stays, however large
    assert store._index_bytes == store._open["P01/P01_01"].num_bytes > 1000


def test_threads_read_side_by_side(store: PreparedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.clips.store.MAX_OPEN_VIDEOS", 1)  # so that they close each other's files, too

    def read(number: int) -> tuple[int, bool]:
        video_id, times = ("P01/P01_01", [number % 100 / FPS]) if number % 2 else ("short", [number % 20 / FPS])
        frames, sound = store.read(video_id, times, sound_start_seconds=0.01 * (number % 50), num_samples=3000)
        first = round(0.01 * (number % 50) * SAMPLE_RATE)
        same = np.array_equal(sound, sound_of(160000)[first : first + 3000])
        return number_of(frames[0]), same

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(400)))
    assert found == [(number % 100 if number % 2 else number % 20, True) for number in range(400)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_reads_although_another_thread_held_the_lock(store: PreparedStore) -> None:
    assert _numbers(store, [1.0]) == [16]
    results = get_context("fork").SimpleQueue()
    process = get_context("fork").Process(target=lambda: results.put((len(store._open), _numbers(store, [9.0]))))
    with store._lock:  # what a fork in the middle of another thread's read leaves behind
        process.start()
    process.join(30)
    assert process.exitcode == 0
    assert results.get() == (0, [24])
    assert _numbers(store, [1.0]) == [16]


def test_frames_and_sound_are_read_into_given_arrays(store: PreparedStore) -> None:
    batch = np.zeros((2, 3, 32, 48, 3), np.uint8)
    sound = np.full(6000, 7, np.int16)
    times = [1.0, 2.0, 3.0]
    store.read_into(list(batch[1]), sound, "P01/P01_01", times, sound_start_seconds=-0.1)
    np.testing.assert_array_equal(batch[1], store.frames("P01/P01_01", times))
    assert not batch[0].any()
    np.testing.assert_array_equal(sound, store.sound("P01/P01_01", -0.1, 6000))


def test_two_clips_and_their_sound_are_read_by_one_call(store: PreparedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    read = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(len(buffers[0]))
        return read(descriptor, buffers, offset)

    monkeypatch.setattr("os.preadv", counted)
    times = np.concatenate([4.4 + np.arange(8) / 16, 5.1 + np.arange(8) / 16])
    frames, sound = store.read("P01/P01_01", times, sound_start_seconds=4.0, num_samples=2 * SAMPLE_RATE)
    assert len(calls) == 1
    monkeypatch.setattr("earmark.clips.packets.MAX_GAP_BYTES", -1)  # each range by a call of its own
    apart = store.read("P01/P01_01", times, sound_start_seconds=4.0, num_samples=2 * SAMPLE_RATE)
    assert len(calls) > 20
    np.testing.assert_array_equal(frames, apart[0])
    np.testing.assert_array_equal(sound, apart[1])


def _save_index(store: PreparedStore, **changes: np.ndarray) -> None:
    path = _movie(store).with_suffix(".index.npz")
    replace(PacketIndex.load(path), **changes).save(path)


def test_a_wrong_index_is_an_error_that_names_video_time_and_file(store: PreparedStore) -> None:
    good = PacketIndex.load(_movie(store).with_suffix(".index.npz"))
    _save_index(store, frame_offsets=good.frame_offsets + 5)
    with pytest.raises(StoreError, match=r"P01_01\.mov: frame 40 of P01/P01_01 \(2\.500 s\) .* the index is wrong"):
        PreparedStore(store.root).frames("P01/P01_01", [2.5])
    for wrong in (good.frame_offsets * 1000, good.frame_offsets - 10**9):
        _save_index(store, frame_offsets=wrong)
        with pytest.raises(StoreError, match=r"P01_01\.mov: its index points outside .* P01/P01_01 from 2\.500 s"):
            PreparedStore(store.root).frames("P01/P01_01", [2.5])
    _save_index(store, frame_offsets=good.frame_offsets, frame_sizes=good.frame_sizes // 2)
    with pytest.raises(StoreError, match=r"P01_01\.mov: frame 40 of P01/P01_01 \(2\.500 s\)"):
        PreparedStore(store.root).frames("P01/P01_01", [2.5])
    _save_index(store, frame_sizes=0 * good.frame_sizes)
    with pytest.raises(StoreError, match=r"P01_01\.mov: its index points outside .* P01/P01_01 from 2\.500 s"):
        PreparedStore(store.root).frames("P01/P01_01", [2.5])


@pytest.mark.parametrize("column", ["frame_sizes", "sound_offsets", "frame_checksums", "sound_checksums", "windows"])
def test_an_index_whose_columns_do_not_go_together_is_made_anew(store: PreparedStore, column: str) -> None:
    path = _movie(store).with_suffix(".index.npz")
    good = PacketIndex.load(path)
    _save_index(store, **{column: getattr(good, column)[:-1]})
    with pytest.raises(StoreError, match=r"P01_01\.index\.npz: not a packet index"):
        PacketIndex.load(path)
    assert _numbers(PreparedStore(store.root), [6.0]) == [96]
    np.testing.assert_array_equal(getattr(PacketIndex.load(path), column), getattr(good, column))


def test_an_index_of_an_older_version_is_made_anew(store: PreparedStore) -> None:
    path = _movie(store).with_suffix(".index.npz")
    good = PacketIndex.load(path)
    old = ("frame_offsets", "frame_sizes", "sound_offsets", "sound_sizes", "file_size")
    np.savez(path, **{name: getattr(good, name) for name in old})
    assert _numbers(store, [6.0]) == [96]
    assert PacketIndex.load(path).windows.tolist() == [[0, 160, 0, 160000]]


@pytest.mark.parametrize(
    "window", [[5, 160, 0, 160000], [0, 160, 5, 160000], [0, 100, 0, 160000], [0, 161, -1, 160000]]
)
def test_a_window_that_is_not_the_recording_gives_no_wrong_picture(store: PreparedStore, window: list[int]) -> None:
    path = _movie(store).with_suffix(".index.npz")
    replace(PacketIndex.load(path), windows=np.array([window])).save(path)
    again = PreparedStore(store.root)
    if window[0] or window[2] > 0:
        with pytest.raises(StoreError, match=r"P01_01\.mov: .*windows"):
            again.read("P01/P01_01", [0.0], sound_start_seconds=0.0, num_samples=4)
    else:  # it does not fit the file: the index was made anew
        assert _numbers(again, [6.0]) == [96]


def test_the_memory_of_an_index_counts_all_its_columns(store: PreparedStore) -> None:
    store.frames("P01/P01_01", [0.0])
    opened = store._open["P01/P01_01"]
    num_chunks = len(opened.index.sound_offsets)
    assert opened.num_bytes == 160 * (8 + 8 + 4) + num_chunks * (8 + 8 + 4) + 32 + 8 * (num_chunks + 1) + 16


def test_a_picture_of_another_size_is_an_error(store: PreparedStore) -> None:
    path = _movie(store)
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    smaller = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8), quality=30)
    offset, size = int(index.frame_offsets[40]), int(index.frame_sizes[40])
    assert len(smaller) <= size
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = smaller.ljust(size, b"\0")
    path.write_bytes(content)
    PacketIndex.of_file(path).save(path.with_suffix(".index.npz"))
    with pytest.raises(StoreError, match=r"frame 40 of P01/P01_01 \(2\.500 s\) .* 16 x 16"):
        store.frames("P01/P01_01", [2.5])


def test_a_picture_that_was_damaged_before_its_index_was_made_is_an_error(store: PreparedStore) -> None:
    path = _movie(store)
    index_path = path.with_suffix(".index.npz")
    _flip_byte(path, int(PacketIndex.load(index_path).frame_offsets[40]))
    index_path.unlink()
    with pytest.raises(StoreError, match=r"P01_01\.mov: frame 40 of P01/P01_01 \(2\.500 s\) is damaged"):
        store.frames("P01/P01_01", [2.5])


def test_a_flipped_byte_that_still_decodes_is_an_error_that_names_video_time_and_file(store: PreparedStore) -> None:
    path = _movie(store)
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    whole = store.frames("P01/P01_01", [2.5])[0]
    offset, size = int(index.frame_offsets[40]), int(index.frame_sizes[40])
    decoded_anyway = 0
    for at in range(offset + size // 2, offset + size, 11):
        _flip_byte(path, at)
        picture = path.read_bytes()[offset : offset + size]
        with contextlib.suppress(ValueError):
            decoded_anyway += simplejpeg.decode_jpeg(picture).shape == whole.shape
        with pytest.raises(StoreError, match=r"P01_01\.mov: frame 40 of P01/P01_01 \(2\.500 s\) is damaged"):
            store.frames("P01/P01_01", [2.0, 2.5])
        _flip_byte(path, at)
    assert decoded_anyway > 3
    np.testing.assert_array_equal(store.frames("P01/P01_01", [2.5])[0], whole)


def test_a_flipped_byte_of_a_run_of_sound_that_is_read_whole_is_an_error(store: PreparedStore) -> None:
    path = _movie(store)
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    starts = np.append(0, np.cumsum(index.sound_sizes // 2))
    chunk = int(np.searchsorted(starts, 5 * SAMPLE_RATE, side="right")) - 1
    before, first, after = (int(start) for start in starts[chunk - 1 : chunk + 2])
    _flip_byte(path, int(index.sound_offsets[chunk]) + 100)
    told = rf"P01_01\.mov: sound of P01/P01_01 \({first / SAMPLE_RATE:.3f} s\) is damaged"
    with pytest.raises(StoreError, match=told):
        store.sound("P01/P01_01", before / SAMPLE_RATE, after - before)
    store.sound("P01/P01_01", before / SAMPLE_RATE, first - before)  # the run before it is well
    part = store.sound("P01/P01_01", first / SAMPLE_RATE, after - first - 1)  # a part has no checksum
    assert (part != sound_of(160000)[first : after - 1]).sum() == 1


def test_a_movie_that_shrinks_while_it_is_open_is_an_error(store: PreparedStore) -> None:
    assert _numbers(store, [1.0]) == [16]
    os.truncate(_movie(store), 1000)
    with pytest.raises(StoreError, match=r"P01_01\.mov: ends before byte .* truncated .* P01/P01_01 from 9\.000 s"):
        store.frames("P01/P01_01", [9.0])


def test_a_catalog_that_leads_outside_the_store_is_refused(store: PreparedStore) -> None:
    rows = [replace(row, prepared_path=f"../{row.prepared_path}") for row in store.catalog]
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
        num_bytes=10**8,
    )
    columns = {name: [value] * num_videos for name, value in asdict(same).items()}
    columns |= {"video_id": video_ids, "path": [f"/data/full_scale/{name}.mp4" for name in video_ids]}
    columns["prepared_path"] = [f"videos/{name}.mov" for name in video_ids]
    root.mkdir()
    pq.write_table(pa.table(columns, schema=CATALOG_SCHEMA), root / "videos.parquet")
    table = moments_table({"": []}, detector="replai", parameters={})
    count = 10 * minutes
    times = np.sort(np.random.default_rng(0).uniform(0, 60 * minutes, (num_videos, count))).ravel()
    named = pa.DictionaryArray.from_arrays(np.repeat(np.arange(num_videos), count), video_ids).cast(pa.string())
    values = [named, times, np.ones(len(times)), np.ones(len(times)), (times // 10).astype(np.int64)]
    schema = table.schema
    arrays = [pa.array(value).cast(field.type) for value, field in zip(values, schema, strict=True)]
    write_moments(root / "moments.parquet", pa.table(arrays, schema=schema))
    parameters = {"fps": FPS, "audio_rate": SAMPLE_RATE, "segment_seconds": 10.0}
    content = {"format_version": STORE_VERSION, "parameters": parameters}
    (root / "store.json").write_text(json.dumps(content))


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
    found = {"P01/P01_01": [1.5, 4.25, 7.0], "short": [0.6], "gone": [2.0]}
    table = moments_table(
        {name: [Moment(t, t + 1, 1.0, 0) for t in times] for name, times in found.items()}, detector="x", parameters={}
    )
    shuffled = table.take([3, 2, 4, 0, 1])
    write_moments(store.root / "moments.parquet", shuffled)
    again = PreparedStore(store.root)
    for name in ("P01/P01_01", "short"):
        np.testing.assert_array_equal(again.moments[name], found[name])
        np.testing.assert_array_equal(again.scores[name], np.array(found[name]) + 1)
    assert again.moments["mute"].size == 0
    assert "gone" not in again.moments


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
