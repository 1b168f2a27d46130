"""The sound of many videos in one HDF5 file: what audio models of EPIC-KITCHENS read."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.cli.main import main
from earmark.datasets import VideoRecord
from earmark.media import SoundReader, VideoWriter
from earmark.preparation import audio_file
from earmark.preparation.audio_file import AudioFileError, write_audio_file
from tests.helpers.epic_files import CLASSES, HEADER, annotation

needs_h5py = pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="h5py is not installed")


def write_video(path: Path, *, seed: int = 0, seconds: int = 3, sound: bool = True) -> VideoRecord:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, width=64, height=48, fps=8, sample_rate=48000) as writer:
        for _ in range(8 * seconds):
            writer.write_frame(np.zeros((48, 64, 3), np.uint8))
        if sound:
            noise = np.random.default_rng(seed).normal(0, 0.1, 48000 * seconds)
            writer.write_sound(noise.astype(np.float32))
    return VideoRecord(path.stem, path, "train")


def read(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        assert all(data.attrs["sample_rate"] == 24000 for data in file.values())
        return {name: data[()] for name, data in file.items()}


@needs_h5py
def test_each_video_is_a_float32_data_set_of_its_own_name_at_24_khz(tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"P01_0{number}.MP4", seed=number) for number in (2, 1)]
    report = write_audio_file(videos, tmp_path / "EPIC_audio.hdf5")
    held = read(tmp_path / "EPIC_audio.hdf5")
    assert list(held) == ["P01_01", "P01_02"]
    for video in videos:
        expected = np.concatenate(list(SoundReader(video.path, sample_rate=24000)))
        assert held[video.video_id].dtype == np.float32
        assert held[video.video_id].shape == expected.shape
        assert np.abs(held[video.video_id] - expected).max() <= 0.5 / 32768 + 1e-7
        assert report.num_samples[video.video_id] == len(expected)
    assert not (tmp_path / "EPIC_audio.hdf5.parts").exists()


@needs_h5py
def test_what_cannot_be_read_is_named_and_stops_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "broken.MP4").write_bytes(b"no video" * 100)
    videos = [
        write_video(tmp_path / "mute.MP4", sound=False),
        VideoRecord("broken", tmp_path / "broken.MP4", "train"),
        VideoRecord("gone", tmp_path / "gone.MP4", "train"),
        write_video(tmp_path / "good.MP4"),
    ]
    report = write_audio_file(videos, tmp_path / "a.hdf5", num_workers=2)
    assert list(read(tmp_path / "a.hdf5")) == ["good"]
    assert sorted(report.left_out) == ["broken", "gone", "mute"]
    assert "no such file" in report.left_out["gone"]
    assert "broken.MP4" in report.left_out["broken"]
    with pytest.raises(AudioFileError, match="no video with sound: nothing is written"):
        write_audio_file(videos[:3], tmp_path / "b.hdf5")
    assert not (tmp_path / "b.hdf5").exists()


@needs_h5py
def test_a_split_without_its_csv_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "P01/videos").mkdir(parents=True)
    write_video(tmp_path / "P01/videos/P01_01.MP4")
    texts = CLASSES | {"EPIC_100_validation.csv": HEADER + annotation("P01_01_0"), "EPIC_100_Train.csv": HEADER}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    data = ["data=epic_10s_audiopeak", f"data.args.base_path={tmp_path}"]
    assert main(["audio", *data, "--out", str(tmp_path / "a.hdf5"), "--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert "EPIC_100_train.csv: not there, so there is no train split; EPIC_100_Train.csv lies there: misspelt?" in (
        captured.out + captured.err
    )


@needs_h5py
def test_killed_and_started_again_it_writes_the_same_bytes_and_decodes_the_rest_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "videos"
    for number in range(6):
        write_video(base / f"v{number}.MP4", seed=number)
    arguments = ["audio", "data=folder", f"data.args.base_path={base}", "--workers", "1"]
    assert main([*arguments, "--out", "whole.hdf5"]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "earmark", *arguments, "--out", "killed.hdf5"], stderr=subprocess.DEVNULL
    )
    parts = tmp_path / "killed.hdf5.parts"
    while process.poll() is None and len(list(parts.glob("[!.]*.pcm"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed.hdf5").exists()
    num_done = len(list(parts.glob("[!.]*.pcm")))
    assert num_done >= 2
    capsys.readouterr()
    assert main([*arguments, "--out", "killed.hdf5"]) == 0
    assert "6 videos" in capsys.readouterr().err
    assert (tmp_path / "killed.hdf5").read_bytes() == (tmp_path / "whole.hdf5").read_bytes()


@needs_h5py
def test_decoded_parts_are_used_again_unless_their_source_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [write_video(tmp_path / f"v{number}.MP4", seed=number) for number in range(3)]

    def stop(*_: Any) -> dict[str, int]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(audio_file, "_write_whole", stop)
        with pytest.raises(KeyboardInterrupt):
            write_audio_file(videos, tmp_path / "a.hdf5")
    write_video(videos[1].path, seed=9)
    os.utime(videos[1].path, ns=(1, 1))
    report = write_audio_file(videos, tmp_path / "a.hdf5")
    assert report.num_reused == 2
    expected = np.concatenate(list(SoundReader(videos[1].path, sample_rate=24000)))
    assert np.abs(read(tmp_path / "a.hdf5")["v1"] - expected).max() < 1e-4


def test_without_h5py_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "videos/a.MP4")
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "h5py" else known(name))
    monkeypatch.chdir(tmp_path)
    assert main(["audio", "data=folder", "data.args.base_path=videos", "--out", "a.hdf5"]) == 1
    assert "pip install 'earmark[hdf5]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.hdf5*"))
