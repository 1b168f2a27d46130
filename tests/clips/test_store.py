import contextlib
import gc
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from earmark.clips.packets import MAX_RUN_BYTES
from earmark.clips.store import PreparedStore
from earmark.media import MediaError, PacketIndex
from earmark.preparation.catalog import StoreError
from earmark.preparation.record import digest_of_file
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store, number_of, sound_of


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
    with pytest.raises(MediaError, match=r"x\.index\.npz: not a packet index"):
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


def test_a_wrong_index_is_made_anew_and_never_read_by(store: PreparedStore) -> None:
    """Wrong in any way, even where it is a possible index: it is not the one that was written with the video."""
    path = _movie(store).with_suffix(".index.npz")
    good = PacketIndex.load(path)
    swapped = np.arange(len(good.frame_offsets))
    swapped[[40, 41]] = 41, 40
    for changes in (
        {"frame_offsets": good.frame_offsets + 5},
        {"frame_offsets": good.frame_offsets * 1000},
        {"frame_offsets": good.frame_offsets - 10**9},
        {"frame_sizes": good.frame_sizes // 2},
        {"frame_sizes": 0 * good.frame_sizes},
        {name: getattr(good, name)[swapped] for name in ("frame_offsets", "frame_sizes", "frame_checksums")},
        {"sound_offsets": good.sound_offsets[::-1], "sound_checksums": good.sound_checksums[::-1]},
    ):
        _save_index(store, **changes)
        frames, sound = PreparedStore(store.root).read("P01/P01_01", [2.5], sound_start_seconds=0.5, num_samples=9000)
        assert number_of(frames[0]) == 40
        np.testing.assert_array_equal(sound, sound_of(17000)[8000:])
        assert PacketIndex.load(path).digest == good.digest


@pytest.mark.parametrize("column", ["frame_sizes", "sound_offsets", "frame_checksums", "sound_checksums", "windows"])
def test_an_index_whose_columns_do_not_go_together_is_made_anew(store: PreparedStore, column: str) -> None:
    path = _movie(store).with_suffix(".index.npz")
    good = PacketIndex.load(path)
    _save_index(store, **{column: getattr(good, column)[:-1]})
    with pytest.raises(MediaError, match=r"P01_01\.index\.npz: not a packet index"):
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
    assert _numbers(again, [6.0]) == [96]
    np.testing.assert_array_equal(again.sound("P01/P01_01", 0.0, 4), sound_of(4))


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
    index = PacketIndex.of_file(path)
    index.save(path.with_suffix(".index.npz"))
    written = {"index_digest": index.digest, "file_digest": digest_of_file(path)}  # as if it had been so from the start
    rows = [replace(row, **written) if row.video_id == "P01/P01_01" else row for row in store.catalog]
    finish_store(store.root, rows, {})
    with pytest.raises(StoreError, match=r"frame 40 of P01/P01_01 \(2\.500 s\) .* 16 x 16"):
        PreparedStore(store.root).frames("P01/P01_01", [2.5])


def test_a_video_that_was_damaged_before_its_index_was_made_anew_is_an_error(store: PreparedStore) -> None:
    path = _movie(store)
    index_path = path.with_suffix(".index.npz")
    index = PacketIndex.load(index_path)
    for at in (index.frame_offsets[40], index.frame_offsets[40] + 300, index.sound_offsets[2] + 1, 4):
        _flip_byte(path, int(at))
        index_path.unlink(missing_ok=True)
        with pytest.raises(StoreError, match=r"P01_01\.mov: has changed since it was written, and its index cannot"):
            PreparedStore(store.root).frames("P01/P01_01", [9.0])
        assert not index_path.exists()
        _flip_byte(path, int(at))
    assert _numbers(PreparedStore(store.root), [9.0]) == [144 - 120]


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


def test_a_flipped_byte_of_sound_is_an_error_even_where_its_run_is_read_in_part(store: PreparedStore) -> None:
    path = _movie(store)
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    starts = np.append(0, np.cumsum(index.sound_sizes // 2))
    chunk = int(np.searchsorted(starts, 5 * SAMPLE_RATE, side="right")) - 1
    before, first, after = (int(start) for start in starts[chunk - 1 : chunk + 2])
    _flip_byte(path, int(index.sound_offsets[chunk]) + 100)
    told = rf"P01_01\.mov: sound of P01/P01_01 \({first / SAMPLE_RATE:.3f} s\) is damaged"
    with pytest.raises(StoreError, match=told):
        store.sound("P01/P01_01", before / SAMPLE_RATE, after - before)
    sound = store.sound("P01/P01_01", before / SAMPLE_RATE, first - before)  # the run before it is well
    np.testing.assert_array_equal(sound, sound_of(160000)[before:first])
    for begin, end in ((before, first + 60), (first + 40, first + 60), (first + 50, after + 7), (first, first + 1)):
        with pytest.raises(StoreError, match=r"P01_01\.mov: sound of P01/P01_01 \(\d\.\d+ s\) is damaged"):
            store.sound("P01/P01_01", begin / SAMPLE_RATE, end - begin)


def test_a_long_run_of_sound_is_compared_once_and_read_in_part(store: PreparedStore, tmp_path: Path) -> None:
    """As behind the last picture: there the sound of the rest of a recording lies in one piece."""
    rows = [add_video(tmp_path / "long", "long", num_frames=4, num_samples=20 * SAMPLE_RATE)]
    finish_store(tmp_path / "long", rows, {})
    path = tmp_path / "long/videos/long.mov"
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    assert index.sound_sizes.max() > 4 * MAX_RUN_BYTES
    whole = PreparedStore(tmp_path / "long")
    for start in (0.1, 5.0, 11.7):
        found = whole.sound("long", start, 3000)
        np.testing.assert_array_equal(found, sound_of(320000)[round(start * SAMPLE_RATE) :][:3000])
    longest = int(index.sound_sizes.argmax())
    assert whole._open["long"].proven_runs == {longest}
    _flip_byte(path, int(index.sound_offsets[longest]) + 200_000)
    with pytest.raises(StoreError, match=r"long\.mov: the sound from byte \d+ to \d+ is not as it was written .*11\.7"):
        PreparedStore(tmp_path / "long").sound("long", 11.7, 3000)


def test_a_movie_that_shrinks_while_it_is_open_is_an_error(store: PreparedStore) -> None:
    assert _numbers(store, [1.0]) == [16]
    os.truncate(_movie(store), 1000)
    with pytest.raises(StoreError, match=r"P01_01\.mov: ends before byte .* truncated .* P01/P01_01 from 9\.000 s"):
        store.frames("P01/P01_01", [9.0])
