import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from earmark.cli.build import describe_store
from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.datasets.records import VideoRecord
from earmark.media import SoundReader, VideoWriter, read_frames
from earmark.moments import DETECTORS, detector_parameters, moments_of_file, read_moments
from earmark.moments.onsets import OnsetDetector
from earmark.preparation import MomentSearch, PrepareError, Transcoding, prepare, store_parameters
from earmark.preparation.catalog import STORE_VERSION
from earmark.preparation.verifying import invalidate
from tests.helpers.clicking import RATE, make_video, without_sound
from tests.helpers.media_clips import click_track, grey_ramp, write_clip

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


@pytest.mark.parametrize("detector", [None, *DETECTORS])
def test_moments_are_those_of_the_sound_at_its_own_rate(folder: Path, tmp_path: Path, detector: str | None) -> None:
    chosen = {} if detector is None else {"detector": detector}
    search = MomentSearch(**chosen)  # type: ignore[arg-type]
    prepare(Folder(folder).videos(), tmp_path / "store", search=search, progress=False)
    expected, _ = moments_of_file(folder / "one.mp4", **chosen)  # type: ignore[arg-type]
    store = PreparedStore(tmp_path / "store")
    np.testing.assert_array_equal(store.moments["one"], [moment.time_seconds for moment in expected])
    for at in (1.52, 3.0, 4.24):
        assert np.abs(store.moments["one"] - at).min() < 0.02
    table = read_moments(tmp_path / "store" / "moments.parquet")
    said = detector_parameters(detector or "earmark")
    assert {name: store.parameters[name] for name in said} == said
    catalog = pq.read_schema(tmp_path / "store" / "videos.parquet")
    for metadata in (table.schema.metadata, catalog.metadata):
        assert {"detector": metadata[b"detector"].decode(), **json.loads(metadata[b"parameters"])} == said


def _as_of_before(root: Path) -> None:
    """Make a store one of before there was a choice of detectors: nothing of it names its own."""
    for path in (root / "store.json", *(root / "videos").rglob("*.json")):
        content = json.loads(path.read_text())
        assert content["parameters"].pop("detector") == "replai"
        content.pop("digest", None)
        path.write_text(json.dumps(content))


def test_a_store_that_names_no_detector_is_one_of_replai_and_goes_on_as_that(folder: Path, tmp_path: Path) -> None:
    records, root = Folder(folder).videos(), tmp_path / "store"
    prepare(records, root, search=MomentSearch("replai"), progress=False)
    fingerprint = PreparedStore(root).fingerprint
    _as_of_before(root)
    assert PreparedStore(root).parameters["detector"] == "replai"
    assert PreparedStore(root).fingerprint == fingerprint  # a run that was trained on it goes on
    report = prepare(records, root, search=MomentSearch("replai"), progress=False)
    assert report.num_reused == len(records) - 1  # what was refused is tried again
    with pytest.raises(PrepareError, match=r"made with detector=replai, .*; asked for detector=earmark, "):
        prepare(records, root, progress=False)


def test_a_store_of_the_detectors_first_version_is_read_named_and_finished_with_it(
    folder: Path, tmp_path: Path
) -> None:
    records, root = Folder(folder).videos(), tmp_path / "store"
    prepare(records, root, progress=False)
    for path in (root / "store.json", *(root / "videos").rglob("*.json")):  # as it was before there was a second one
        content = json.loads(path.read_text())
        assert content["parameters"].pop("detector_version") == 2
        content.pop("digest", None)
        path.write_text(json.dumps(content))
    (root / "videos.parquet").unlink()
    invalidate(root, ["one"])
    report = prepare(records, root, progress=False)
    assert report.detector == "earmark (version 1)"
    store = PreparedStore(root)
    assert "detector_version" not in store.parameters
    assert "by the detector earmark (version 1) in segments" in describe_store(store)
    sound = SoundReader(folder / "one.mp4")
    first = OnsetDetector(sound.sample_rate, version=1)
    found = [moment for block in sound for moment in first.feed(block)] + first.finish()
    assert store.moments["one"].tolist() == [moment.time_seconds for moment in found]
    with pytest.raises(PrepareError, match=r"made with min_score=3\.0; asked for min_score=4\.0\. Choose"):
        prepare(records, root, search=MomentSearch(min_score=4.0), progress=False)


def test_a_store_of_a_newer_version_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    prepare(Folder(folder).videos()[:1], tmp_path / "store", progress=False)
    description = tmp_path / "store" / "store.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"format_version": STORE_VERSION + 1}))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.*")}
    with pytest.raises(PrepareError, match=r"store\.json: written by a newer Earmark \(format 2, "):
        prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.*")} == before


def test_the_parameters_of_a_store_are_written_as_ever() -> None:
    assert store_parameters(Transcoding(), MomentSearch()) == {
        "fps": 16,
        "short_side": 128,
        "quality": 90,
        "audio_rate": 16000,
        "detector": "earmark",
        "segment_seconds": 10.0,
        "min_score": 3.0,
        "min_distance_seconds": 0.05,
        "detector_version": 2,
    }
    sparse = store_parameters(Transcoding(audio_stream=1, around="moments"), MomentSearch("replai", min_distance=5))
    assert sparse == {
        "fps": 16,
        "short_side": 128,
        "quality": 90,
        "audio_rate": 16000,
        "detector": "replai",
        "segment_seconds": 10.0,
        "min_prominence": 1.0,
        "min_distance": 5,
        "audio_stream": 1,
        "around": "moments",
        "around_seconds": 1.0,
    }


def test_a_detector_takes_no_options_of_another() -> None:
    with pytest.raises(ValueError, match="min_prominence is not an option of the detector earmark"):
        MomentSearch(min_prominence=1.0)
    with pytest.raises(ValueError, match="min_score is not an option of the detector replai"):
        MomentSearch("replai", min_score=1.0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fps": 0}, "fps must be at least 1, got 0"),
        ({"short_side": 14}, "short_side must be at least 16, got 14"),
        ({"short_side": 127}, "short_side must be even, got 127"),
        ({"quality": 0}, "quality must be at least 1, got 0"),
        ({"quality": 101}, "quality must be at most 100, got 101"),
        ({"audio_rate": 3999}, "audio_rate must be at least 4000, got 3999"),
        ({"audio_stream": -1}, "audio_stream must be at least 0, got -1"),
        ({"around": "actions"}, "around must be 'moments' or None, got 'actions'"),
        ({"around_seconds": 0.0}, "around_seconds must be above 0, got 0.0"),
    ],
)
def test_what_is_out_of_range_is_said_by_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Transcoding(**options)
    with pytest.raises(ValueError, match=r"segment_seconds must be at least 1, got 0\.5"):
        MomentSearch(segment_seconds=0.5)


def test_a_sound_track_can_be_chosen_and_one_that_is_not_there_leaves_the_picture(tmp_path: Path) -> None:
    waves = [click_track(144000, round(48000 * time)) for time in (0.7, 2.1)]
    sources, root = tmp_path / "sources", tmp_path / "store"
    sources.mkdir()
    write_clip(sources / "two.mkv", frames=grey_ramp(30), fps=10, waves=waves)
    write_clip(sources / "one.mkv", frames=grey_ramp(30), fps=10, waves=waves[:1])
    report = prepare(Folder(sources).videos(), root, transcoding=Transcoding(audio_stream=1), progress=False)
    rows = {video.video_id: video for video in report.videos}
    store = PreparedStore(root)
    assert store.moments["two"] == pytest.approx([2.1], abs=0.02)
    loudest = np.abs(store.sound("two", 0.0, rows["two"].num_samples).astype(int)).argmax()
    assert loudest / 16000 == pytest.approx(2.1, abs=0.01)
    assert (rows["one"].status, rows["one"].has_audio) == ("degraded", False)
    assert rows["one"].reason == "sound: no audio stream 1, it has 1: left out of pretraining"
    with pytest.raises(PrepareError, match=r"made with audio_stream=1; asked for audio_stream=None"):
        prepare(Folder(sources).videos(), root, progress=False)


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
        prepare(records, tmp_path / "store", transcoding=Transcoding(fps=8), progress=False)
    with pytest.raises(PrepareError, match="not empty and not a prepared store"):
        prepare(records, folder, progress=False)
    with pytest.raises(PrepareError, match="given twice"):
        prepare([*records, records[0]], tmp_path / "other", progress=False)
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
    assert "the picture claims 8192 x 8 pixels" in report.videos[0].reason
    assert report.videos[1].reason == "File name too long"


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


PREPARE = (
    "import sys; from earmark.datasets import Folder; from earmark.preparation import prepare\n"
    "prepare(Folder(sys.argv[1]).videos(), sys.argv[2], num_workers=2, progress=False)"
)


@pytest.mark.slow
def test_a_run_killed_at_20_random_points_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for number in range(12):
        make_video(sources / f"{number}.mp4", seconds=40.0, times=tuple(np.arange(1.0, 39.0, 2.3) + number / 10))
    # two processes, as users run it: its own group, so that all of it dies at once
    command = [sys.executable, "-c", PREPARE, str(sources), str(tmp_path / "killed")]
    started = time.monotonic()
    subprocess.run([*command[:-1], str(tmp_path / "whole")], check=True)
    whole_seconds = time.monotonic() - started
    rng = np.random.default_rng(0)
    num_done = []
    for _ in range(20):
        process = subprocess.Popen(command, start_new_session=True)
        # each run starts anew (imports) and gets on a little: so the points lie all over the work
        time.sleep(rng.uniform(0.2, 1.0) * max(3.0, whole_seconds / 4))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = len(list((tmp_path / "killed/videos").glob("[0-9]*.json")))
        assert done >= (num_done[-1] if num_done else 0)
        num_done.append(done)
        for record in (tmp_path / "killed/videos").glob("[0-9]*.json"):  # what counts is whole
            movie = record.with_suffix(".mov")
            assert movie.read_bytes() == (tmp_path / "whole/videos" / movie.name).read_bytes()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.mov") if path.name[0] != "."}
    finished = {path: when for path, when in finished.items() if path.with_suffix(".json").exists()}
    subprocess.run(command, check=True)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # nothing is done twice
    assert _content(tmp_path / "killed") == _content(tmp_path / "whole")
    for table in ("videos.parquet", "moments.parquet"):
        assert (tmp_path / "killed" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()
    assert not list((tmp_path / "killed/videos").rglob(".*"))
    assert PreparedStore(tmp_path / "killed").fingerprint == PreparedStore(tmp_path / "whole").fingerprint


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_full_disk_stops_the_run_by_name_and_keeps_what_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    for name in ("y_large", "z_large"):
        make_noise(folder / f"{name}.mp4", seconds=4.0)
    records = [record for record in Folder(folder).videos() if record.video_id != "text"]
    prepare(records, tmp_path / "whole", progress=False)
    whole = _content(tmp_path / "whole")
    small = tmp_path / "small"
    small.mkdir()
    num_bytes = sum(map(len, whole.values())) - len(whole["videos/z_large.mov"]) // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    monkeypatch.setattr(
        "earmark.preparation.preparing.free_bytes", lambda root: 1 << 40
    )  # the estimate does not see it coming
    try:
        prepare(records[:-2], small / "store", progress=False)
        with pytest.raises(PrepareError, match=r"the disk is full .*kept: [34] of 5 videos") as caught:
            prepare(records, small / "store", num_workers=num_workers, progress=False)
        assert "No space left on device" in str(caught.value)
        for path, content in _content(small / "store").items():
            assert content == whole[path]
        subprocess.run(["mount", "-o", f"remount,size={2 * num_bytes}", str(small)], check=True)
        report = prepare(records, small / "store", progress=False)
        assert report.num_reused in (3, 4)
        assert _content(small / "store") == whole
        assert not list((small / "store").rglob(".*.tmp.*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def make_noise(path: Path, *, seconds: float) -> None:
    """Write pictures of noise: their JPEGs are many times larger than the estimate for real ones."""
    rng = np.random.default_rng(0)
    with VideoWriter(path, width=192, height=108, fps=16, sample_rate=RATE, crf=10) as writer:
        for _ in range(round(seconds * 16)):
            writer.write_frame(rng.integers(0, 255, (108, 192, 3), np.uint8))


def test_a_disk_without_room_is_refused_before_anything_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark.preparation.preparing.free_bytes", lambda root: 1000)
    with pytest.raises(PrepareError, match=r"h of video will take about .* MB; 0.0 MB are free"):
        prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    assert not list((tmp_path / "store").rglob("*.mov"))
    monkeypatch.undo()
    prepare(Folder(folder).videos(), tmp_path / "store", progress=False)
    monkeypatch.setattr("earmark.preparation.preparing.free_bytes", lambda root: 1000)
    records = [record for record in Folder(folder).videos() if record.video_id != "text"]
    assert prepare(records, tmp_path / "store", progress=False).num_reused == 3  # what is there needs no room


def test_half_written_files_of_dead_runs_are_removed(folder: Path, tmp_path: Path) -> None:
    records = Folder(folder).videos()
    prepare(records, tmp_path / "store", progress=False)
    whole = _content(tmp_path / "store")
    for name in ("videos/sub/.two.123-0123abcd.tmp.mov", "videos/.one.index.4-0123abcd.tmp.npz", "videos/.keep"):
        (tmp_path / "store" / name).write_bytes(b"half")
    prepare(records, tmp_path / "store", progress=False)
    assert _content(tmp_path / "store") == whole
    assert [path.name for path in (tmp_path / "store/videos").rglob(".*")] == [".keep"]


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


def test_a_source_smaller_than_the_store_is_enlarged_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    write_clip(tmp_path / "sources/small.mp4", frames=[np.full((96, 170, 3), 90, np.uint8)] * 16)
    write_clip(tmp_path / "sources/whole.mp4", frames=[np.full((128, 228, 3), 90, np.uint8)] * 16)
    report = prepare(Folder(tmp_path / "sources").videos(), tmp_path / "store", progress=False)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table())
    assert "smaller pictures than is stored in 1 of the sources: small" in console.export_text()
    assert report.stretched == {"smaller pictures": ["small"]}
    store = PreparedStore(tmp_path / "store")
    small = store.videos["small"]
    assert (small.width, small.height, small.source_width, small.source_height) == (226, 128, 170, 96)
    line = describe_store(store)
    assert line == (
        "prepared videos: 16 frames per second of short side 128, sound at 16000 Hz, moments by the detector earmark "
        "in segments of 10 s; smaller pictures than that in 1 of 2 sources"
    )
