import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from clicking import RATE, make_video, without_sound
from clips import write_clip
from earmark.datasets import Folder
from earmark.datasets.records import VideoRecord
from earmark.media import read_frames
from earmark.moments import moments_of_file, read_moments
from earmark.prepare import PrepareError, prepare
from earmark.store import PreparedStore

AAC_FRAME_SECONDS = 1024 / RATE  # the encoder fills its last frame with silence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sources = tmp_path / "sources"
    make_video(sources / "one.mp4")
    make_video(sources / "sub" / "two.mp4", seconds=11.0, times=(2.0, 5.0, 8.48))
    without_sound(sources / "one.mp4", sources / "mute.mp4")
    (sources / "text.mp4").write_text("not a movie")
    return sources


def _content(root: Path) -> dict[str, bytes]:
    """Return all finished prepared files; names with a dot in front are what a killed run left behind."""
    files = [path for path in sorted(root.rglob("*")) if path.suffix in (".mov", ".npz") and path.name[0] != "."]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_usable_degraded_and_refused_sources_are_all_in_the_catalog(folder: Path, tmp_path: Path) -> None:
    report = prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    rows = {video.video_id: video for video in report.videos}
    assert {name: row.status for name, row in rows.items()} == {
        "mute": "degraded",
        "one": "ok",
        "sub/two": "ok",
        "text": "refused",
    }
    assert rows["mute"].reason == "no sound stream: left out of pretraining"
    assert rows["text"].reason
    assert str(folder) not in rows["text"].reason  # the reason stands beside the path
    assert (rows["one"].num_frames, rows["one"].width, rows["one"].height) == (96, 228, 128)
    assert 96000 <= rows["one"].num_samples < 96000 + AAC_FRAME_SECONDS * 16000
    assert rows["one"].source_audio_rate == RATE
    saved = pq.read_table(tmp_path / "store" / "videos.parquet").to_pylist()
    assert [row["video_id"] for row in saved] == [video.video_id for video in report.videos]
    assert sorted(PreparedStore(tmp_path / "store").videos) == ["mute", "one", "sub/two"]


def test_picture_and_sound_of_a_prepared_video_share_the_clock_of_the_source(folder: Path, tmp_path: Path) -> None:
    prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    store = PreparedStore(tmp_path / "store")
    for video_id, times in (("one", (1.52, 3.0, 4.24)), ("sub/two", (2.0, 5.0, 8.48))):
        video = store.videos[video_id]
        brightness = store.frames(video_id, np.arange(video.num_frames) / 16).mean(axis=(1, 2, 3))
        lit = np.flatnonzero((brightness[1:] > 130) & (brightness[:-1] <= 130)) + 1
        np.testing.assert_allclose(lit / 16, times, atol=0.5 / 16 + 0.5 / 25)  # half a frame of each of the two rates
        sound = np.abs(store.sound(video_id, 0.0, video.num_samples).astype(float))
        for at in times:
            window = sound[int((at - 0.2) * 16000) : int((at + 0.2) * 16000)]
            assert np.flatnonzero(window > 2000)[0] / 16000 - 0.2 == pytest.approx(0, abs=0.003)


def test_moments_are_those_of_the_sound_at_its_own_rate(folder: Path, tmp_path: Path) -> None:
    prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    expected, _ = moments_of_file(folder / "one.mp4")
    store = PreparedStore(tmp_path / "store")
    np.testing.assert_array_equal(store.moments["one"], [moment.time_seconds for moment in expected])
    for at in (1.52, 3.0, 4.24):
        assert np.abs(store.moments["one"] - at).min() < 0.02
    table = read_moments(tmp_path / "store" / "moments.parquet")
    assert json.loads(table.schema.metadata[b"parameters"])["segment_seconds"] == 10.0


def test_a_prepared_video_is_an_ordinary_movie(folder: Path, tmp_path: Path) -> None:
    prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    path = tmp_path / "store" / "videos" / "one.mov"
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == ("mjpeg", "pcm_s16le")
        assert (picture.average_rate, sound.rate) == (16, 16000)
        assert 6.0 <= container.duration / 1e6 < 6.0 + AAC_FRAME_SECONDS
        assert all(packet.is_keyframe for packet in container.demux(picture) if packet.size)
    frames = read_frames(path, [0.0, 1.6])
    np.testing.assert_allclose(frames, PreparedStore(tmp_path / "store").frames("one", [0.0, 1.6]), atol=4)


def test_a_second_run_does_nothing_again_unless_the_source_changed(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    records = Folder(folder).videos()
    first = prepare(records, root, progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.mov")}
    second = prepare(records, root, progress=False)
    assert second.num_reused == len(records) - 1  # what was refused is tried again
    assert second.videos == first.videos
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.mov")} == stamps
    make_video(folder / "one.mp4", seconds=4.0, times=(1.0, 2.5))
    third = prepare(records, root, progress=False)
    assert third.num_reused == len(records) - 2
    assert {video.video_id: video.num_frames for video in third.videos}["one"] == 64


def test_a_finished_video_outlives_its_source(folder: Path, tmp_path: Path) -> None:
    records = Folder(folder).videos()
    first = prepare(records, tmp_path / "store", progress=False)
    (folder / "one.mp4").unlink()
    assert prepare(records, tmp_path / "store", progress=False).videos == first.videos
    assert "one" in PreparedStore(tmp_path / "store").videos


def test_a_lost_or_cut_movie_is_made_again(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    records = Folder(folder).videos()
    prepare(records, root, progress=False)
    whole = _content(root)
    (root / "videos" / "one.mov").write_bytes(b"cut")
    (root / "videos" / "sub" / "two.mov").unlink()
    assert prepare(records, root, progress=False).num_reused == 1
    assert _content(root) == whole


def test_two_processes_make_the_same_store_as_one(folder: Path, tmp_path: Path) -> None:
    records = Folder(folder).videos()
    prepare(records, tmp_path / "one", progress=False)
    prepare(records, tmp_path / "two", num_workers=2, progress=False)
    assert _content(tmp_path / "one") == _content(tmp_path / "two")
    assert PreparedStore(tmp_path / "one").fingerprint == PreparedStore(tmp_path / "two").fingerprint


def test_other_parameters_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    records = Folder(folder).videos()
    prepare(records, tmp_path / "store", progress=False)
    with pytest.raises(PrepareError, match="was made with fps=16; asked for fps=8"):
        prepare(records, tmp_path / "store", fps=8, progress=False)
    with pytest.raises(PrepareError, match="not empty and not a prepared store"):
        prepare(records, folder, progress=False)
    with pytest.raises(PrepareError, match="given twice"):
        prepare([*records, records[0]], tmp_path / "other", progress=False)
    with pytest.raises(PrepareError, match="quality must be at most 100"):
        prepare(records, tmp_path / "other", quality=101, progress=False)
    with pytest.raises(PrepareError, match="no videos"):
        prepare([], tmp_path / "other", progress=False)
    assert not (tmp_path / "other").exists()


def test_ids_that_leave_the_store_and_missing_files_are_refused_rows(folder: Path, tmp_path: Path) -> None:
    records = [
        VideoRecord("../outside", folder / "one.mp4", "train"),
        VideoRecord("gone", folder / "gone.mp4", "train"),
        VideoRecord("one", folder / "one.mp4", "train"),
    ]
    report = prepare(records, tmp_path / "deep" / "store", progress=False)
    assert [video.status for video in report.videos] == ["refused", "refused", "ok"]
    assert "cannot be a file name" in report.videos[0].reason
    assert not list((tmp_path / "deep").glob("*.mov"))
    assert not list(tmp_path.glob("outside*"))


def test_pictures_and_names_that_a_library_cannot_take_stop_no_other_video(folder: Path, tmp_path: Path) -> None:
    write_clip(folder / "strip.mkv", frames=[np.zeros((8, 8192, 3), np.uint8)] * 4, video_codec="ffv1")
    records = [
        VideoRecord("strip", folder / "strip.mkv", "train"),
        VideoRecord("long", folder / ("x" * 300), "train"),
        VideoRecord("one", folder / "one.mp4", "train"),
    ]
    report = prepare(records, tmp_path / "store", progress=False)
    assert [video.status for video in report.videos] == ["refused", "refused", "ok"]
    assert "65500 pixels" in report.videos[0].reason
    assert report.videos[1].reason == "File name too long"


class FatalPath(type(Path())):  # type: ignore[misc]
    """A source that kills the worker process that reads it."""

    def stat(self, **options: bool) -> os.stat_result:
        if os.environ.get("READER") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().stat(**options)


def test_a_video_that_kills_its_process_stops_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READER", str(os.getpid()))
    records = [VideoRecord("fatal", FatalPath(folder / "one.mp4"), "train"), *Folder(folder).videos()]
    report = prepare(records, tmp_path / "store", num_workers=2, progress=False)
    rows = {video.video_id: video.status for video in report.videos}
    assert rows == {"fatal": "refused", "mute": "degraded", "one": "ok", "sub/two": "ok", "text": "refused"}
    assert "was killed" in report.videos[0].reason
    again = [VideoRecord("fatal", folder / "one.mp4", "train"), *Folder(folder).videos()]
    assert prepare(again, tmp_path / "store", progress=False).videos[0].status == "ok"


def test_the_report_shows_names_as_they_are(tmp_path: Path) -> None:
    records = [VideoRecord(name, tmp_path / "gone.mp4", "train") for name in ("drill [dQw4w9WgXcQ]", "a[/b]")]
    report = prepare(records, tmp_path / "store", progress=False)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert "drill [dQw4w9WgXcQ]: no such file" in text
    assert "a[/b]: no such file" in text


def test_names_that_are_not_utf_8_are_prepared_and_spelt_out(tmp_path: Path) -> None:
    sources = tmp_path / os.fsdecode(b"k\xfcche")
    make_video(sources / os.fsdecode(b"caf\xe9.mp4"), seconds=1.0, times=())
    (sources / os.fsdecode(b"caf\xe8.mp4")).touch()
    report = prepare(Folder(sources).videos(), tmp_path / "store", progress=False)
    rows = {video.video_id: video for video in report.videos}
    assert {name: row.status for name, row in rows.items()} == {"caf%E8": "refused", "caf%E9": "ok"}
    assert rows["caf%E9"].path.endswith("k%FCche/caf%E9.mp4")
    assert PreparedStore(tmp_path / "store").frames("caf%E9", [0.5]).shape == (1, 128, 228, 3)


def test_split_and_participant_follow_the_records_of_the_last_run(folder: Path, tmp_path: Path) -> None:
    records = Folder(folder).videos()
    prepare(records, tmp_path / "store", progress=False)
    moved = [replace(record, split="validation", participant_id="P09") for record in records]
    assert prepare(moved, tmp_path / "store", progress=False).num_reused == len(records) - 1  # one is refused
    store = PreparedStore(tmp_path / "store")
    assert {(video.split, video.participant_id) for video in store.catalog} == {("validation", "P09")}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for number in range(6):
        make_video(sources / f"{number}.mp4", seconds=20.0, times=tuple(np.arange(1.0, 19.0, 2.3) + number / 10))
    code = (
        "import sys; from earmark.datasets import Folder; from earmark.prepare import prepare\n"
        "prepare(Folder(sys.argv[1]).videos(), sys.argv[2], progress=False)"
    )
    command = [sys.executable, "-c", code, str(sources), str(tmp_path / "killed")]
    for _ in range(4):
        process = subprocess.Popen(command)
        time.sleep(1.2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    prepare(Folder(sources).videos(), tmp_path / "whole", progress=False)
    assert _content(tmp_path / "killed") == _content(tmp_path / "whole")
    assert PreparedStore(tmp_path / "killed").fingerprint == PreparedStore(tmp_path / "whole").fingerprint


def test_every_real_clip_is_prepared_degraded_or_refused_with_its_reason(media: Path, tmp_path: Path) -> None:
    report = prepare(Folder(media).videos(), tmp_path / "store", num_workers=2, progress=False)
    rows = {video.video_id: video for video in report.videos}
    assert len(rows) == 21
    for name in ("tennis_no_audio", "hmdb_no_audio"):
        assert (rows[name].status, rows[name].has_audio) == ("degraded", False)
        assert "no sound" in rows[name].reason
    assert "silence" in rows["ego_silent_track"].reason
    # failing_audio made other decoders fail; FFmpeg reads it whole (silent in its second half): nothing is wrong
    for name in (
        "chopping",
        "failing_audio",
        "hitting_bag",
        "epic_sounds.mp4",
        "epic_sounds.webm",
        "pancake",
        "weightlifting_vfr",
    ):
        assert rows[name].status == "ok", rows[name].reason
        assert rows[name].num_moments > 0
    assert rows["odd_fps"].source_fps < 60
    store = PreparedStore(tmp_path / "store")
    for video in store.videos.values():
        frame = store.frames(video.video_id, [video.duration_seconds - 1 / 16])[0]
        assert frame.shape == (video.height, video.width, 3)
        assert min(video.height, video.width) == 128
