"""`earmark features`: which videos, which model, what is written, and what is said of the rest."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark.cli.main import main
from earmark.encoders import new_encoder, save_encoder
from earmark.evaluation.feature_files import load_features
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.training.checkpoint import save_checkpoint
from tests.helpers.clicking import make_video

SMALL = ["prepare.short_side=32", "prepare.workers=1"]
MODEL = ["--model", "avid_r2plus1d_10", "--random", "0", "--width", "4", "--crop", "32"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def index(out: str) -> Any:
    return json.loads((Path(out) / "features.json").read_text())


def features(*arguments: str, workers: str = "0") -> int:
    return main(["features", *SMALL, "--workers", workers, *arguments])


def checkpoint(path: Path, **config: Any) -> None:
    """Write a checkpoint of ours that was trained with a configuration."""
    torch.manual_seed(3)
    weights, described = {}, {}
    for kind, name in (("video", "avid_r2plus1d_10"), ("audio", "avid_spec_cnn_9")):
        encoder = new_encoder(name, width=4)
        weights |= {f"backbone.{kind}.{key}": value for key, value in encoder.state_dict().items()}
        described[kind] = {"name": name, "args": {"pretrained": False, "weights": None, "width": 4}}
    position = {"epoch": 0, "batch": 0, "step": 0}
    save_checkpoint(path, {"model": weights, "position": position, "config": {"backbone": described, **config}})


def test_files_give_a_file_each_and_a_second_run_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "in/a.mp4", seconds=3.0, times=(1.5,))
    make_video(tmp_path / "in/sub/b.mp4", seconds=2.0, times=())
    make_video(tmp_path / "in/sub/b.mkv", seconds=1.0, times=())
    (tmp_path / "in/text.mp4").write_text("not a video")
    given = ["in/a.mp4", "in/sub/b.*", "in/text.mp4", "in/gone.mp4"]
    assert features(*given, *MODEL, "--out", "out", "--stride", "0.25") == 0
    told = capsys.readouterr().err
    assert "left out: text: refused: " in told
    assert "left out: gone: refused: " in told
    assert "out: wrote 3 files (21 rows); 2 videos left out" in told
    found = load_features("out/a.npz")
    assert found.features["video"].shape == (11, 32)
    assert found.metadata["source"] == str(tmp_path / "in/a.mp4")
    assert found.metadata["encoders"]["video"]["model"] == "avid_r2plus1d_10 of width 4, random weights of seed 0"
    assert found.metadata["prepared"]["short_side"] == 32
    written = index("out")
    assert {name: entry["num_rows"] for name, entry in written["videos"].items()} == {
        "a": 11,
        "sub/b.mkv": 3,
        "sub/b.mp4": 7,
    }
    assert written["left_out"].keys() == {"gone", "text"}
    assert features(*given, *MODEL, "--out", "out", "--stride", "0.25") == 0
    assert "out: nothing to do; 3 files there already; 2 videos left out" in capsys.readouterr().err
    assert features(*given, *MODEL, "--out", "out", "--stride", "0.5") == 1
    assert "stride_seconds 0.25, not 0.5. Choose another folder" in capsys.readouterr().err
    assert features("in/text.mp4", *MODEL, "--out", "none") == 1
    assert features("in/*.avi", *MODEL, "--out", "none") == 2
    assert "in/*.avi: no file matches this pattern" in capsys.readouterr().err


def test_a_folder_is_the_data_set_folder_and_its_store_is_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "in/a.mp4", seconds=2.0, times=(1.0,))
    assert main(["prepare", "data=folder", "data.args.base_path=in", *SMALL]) == 0
    capsys.readouterr()
    assert features("in", *MODEL, "--out", "out") == 0
    assert "preparing" not in capsys.readouterr().err
    assert len(list((tmp_path / "earmark_data/prepared").iterdir())) == 1
    assert features("in", "data=kitchen", *MODEL, "--out", "out") == 2
    assert "data=kitchen: a data set and in are both given" in capsys.readouterr().err


def test_a_checkpoint_says_what_its_encoders_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "a.mp4", seconds=4.0, times=(1.5, 2.5))
    path = tmp_path / "earmark_data/outputs/mine/checkpoints/checkpoint_0000.pt"
    trained = {"clip_seconds": 1.0, "clip_fps": 4.0, "audio_seconds": 1.5}
    checkpoint(path, data=trained, data_augm={"crop_size": 24}, prepare={"short_side": 48, "fps": 8})
    how = ["--workers", "0", "prepare.workers=1"]
    for number, model in enumerate(["mine", "earmark_data/outputs/mine", str(path)]):
        assert main(["features", "a.mp4", "--model", model, "--modality", "both", "--out", f"out{number}", *how]) == 0
    found, same = load_features("out0/a.npz"), load_features("out2/a.npz")
    assert {name: rows.shape for name, rows in found.features.items()} == {"video": (4, 32), "audio": (4, 32)}
    for name, rows in found.features.items():
        np.testing.assert_array_equal(rows, same.features[name])
    told = found.metadata
    assert (told["window_seconds"], told["fps"], told["frames_per_clip"], told["audio_seconds"]) == (1.0, 4.0, 4, 1.5)
    assert told["encoders"]["video"]["transform"]["crop_size"] == 24
    assert (told["prepared"]["short_side"], told["prepared"]["fps"]) == (48, 8)
    assert told["encoders"]["audio"]["model"].endswith("checkpoint_0000.pt, avid_spec_cnn_9")
    assert "note: " not in capsys.readouterr().err
    assert main(["features", "a.mp4", "--model", "mine", "--window", "0.5", "--out", "half", *how]) == 0
    assert "note: the model was trained with data.clip_seconds=1, here 0.5" in capsys.readouterr().err
    checkpoint(path, data={"clip_seconds": "1"})
    assert main(["features", "a.mp4", "--model", "mine", "--out", "text", *how]) == 2
    assert "config.data.clip_seconds: not a number" in capsys.readouterr().err


def test_moments_by_two_models_and_an_exported_one_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "a.mp4", seconds=4.0, times=(0.2, 1.5, 2.5))
    make_video(tmp_path / "mute.mp4", seconds=2.0, times=(), sound=False)
    two = [*MODEL, "--audio-model", "avid_spec_cnn_9", "--of", "moments", "--gap", "0.2"]
    assert features("a.mp4", "mute.mp4", *two, "--out", "out", "--format", "parquet") == 0
    told = capsys.readouterr().err
    assert "left out: mute: has no sound" in told
    assert "nearer than 0.7 s to an end of the video" in told
    found = load_features("out/a.parquet")
    assert found.features.keys() == {"video_before", "video_after", "video_change", "audio"}
    np.testing.assert_allclose(found.columns["time_seconds"], [1.5, 2.5], atol=0.05)
    torch.manual_seed(0)
    save_encoder(new_encoder("avid_spec_cnn_9", width=4), "ear.safetensors")
    assert features("a.mp4", "--model", "ear.safetensors", "--out", "ear") == 0
    alone = load_features("ear/a.npz")
    assert alone.features.keys() == {"audio"}
    assert "fps" not in alone.metadata
    save_encoder(new_encoder("aisfx", width=4), "sfx.safetensors")  # of another spectrogram
    assert features("a.mp4", "--model", "sfx.safetensors", "--out", "sfx") == 0
    assert load_features("sfx/a.npz").features["audio"].shape == (len(alone.features["audio"]), 32)


def test_actions_of_a_kitchen_with_their_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"num_kitchens": 2, "videos_per_kitchen": 1, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(tmp_path / "kitchen", size=KitchenSize(video_seconds=15, **sizes), progress=False)
    data = ["data=kitchen", "data.args.base_path=kitchen", *MODEL, "--of", "actions", "--clips", "2"]
    assert features(*data, "--out", "out") == 0
    written = index("out")["videos"]
    assert len(written) == 2
    for name, entry in written.items():
        found = load_features(Path("out") / entry["file"])
        assert found.video_id == name
        ids = found.columns["action_id"]
        assert ids[::2].tolist() == ids[1::2].tolist()
        assert len(set(ids.tolist())) * 2 == len(ids) == entry["num_rows"]
        assert found.columns["label_verb"].min() >= 0
        middle = (found.start_seconds + found.end_seconds) / 2
        assert (middle > found.columns["action_start_seconds"] - 0.5).all()
        assert (middle < found.columns["action_stop_seconds"] + 0.5).all()
    assert features(*data, "--split", "train", "--out", "part") == 0
    assert index("part")["videos"] == written
    assert features(*data, "--split", "validation", "--out", "none") == 1
    assert "EPIC_100_validation.csv is missing" in capsys.readouterr().err
    assert features("kitchen", *MODEL, "--of", "actions", "--out", "none") == 2
    assert "--of actions: videos have no annotated actions by themselves" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "nobody"], "nobody: neither a file, nor a run in earmark_data/outputs, nor an encoder"),
        (["--model", "avid_spec_cnn_9", "--modality", "video"], "avid_spec_cnn_9 is an encoder of audio, not of video"),
        (["--model", "avid_r2plus1d_18"], "backbone.video.args.pretrained: no weights"),
        ([*MODEL, "--weights", "ema"], "--weights: chooses among those of a checkpoint"),
        ([*MODEL, "--gap", "1"], "--gap: is for --of moments, not for --of windows"),
        ([*MODEL, "--of", "moments", "--stride", "1"], "--stride: is for --of windows"),
        ([*MODEL, "data.clip_seconds=1"], "data.clip_seconds: is about training; --window says it here"),
        ([*MODEL, "--device", "gpu"], "--device: 'gpu' is none of auto, cpu, cuda and cuda:N"),
        ([*MODEL, "--device", "cuda:99"], "--device: cuda:99: torch finds 0 GPUs"),
        ([*MODEL, "--audio-model", "avid_spec_cnn_9", "--audio-seconds", "0.01"], "cannot take an input of 1 x 0 x 80"),
        ([*MODEL, "prepare.short_sid=32"], "prepare.short_sid: no such key; did you mean"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    make_video(tmp_path / "a.mp4", seconds=1.0, times=())
    assert main(["features", "a.mp4", "--out", "out", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "earmark_data/prepared").exists()


def test_a_rate_that_the_prepared_videos_do_not_hold_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "a.mp4", seconds=1.0, times=())
    assert features("a.mp4", *MODEL, "--fps", "7", "--out", "out") == 1
    assert "holds 16 frames per second, which clips of 7 frames per second do not divide" in capsys.readouterr().err


@pytest.mark.usefixtures("one_thread")  # as the process has
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL, of the process and its loaders, once parts of the video are there."""
    make_video(tmp_path / "a.mp4", seconds=20.0, times=(3.0,))
    arguments = ["features", "a.mp4", *SMALL, *MODEL, "--stride", "0.01", "--batch-size", "16", "--workers", "1"]
    command = [sys.executable, "-m", "earmark", *arguments]
    source = Path(sys.modules["earmark"].__file__ or "").parents[1]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    assert main([*arguments, "--out", "whole"]) == 0
    process = subprocess.Popen(
        [*command, "--out", "out"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    while process.poll() is None and not list(Path("out/.parts/a").glob("0*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not Path("out/a.npz").exists()
    capsys.readouterr()
    assert main([*arguments, "--out", "out"]) == 0
    assert "went on after " in capsys.readouterr().err
    assert {path.name for path in Path("out").iterdir()} == {"a.npz", "features.json"}
    for name in ("a.npz", "features.json"):
        assert (Path("out") / name).read_bytes() == (Path("whole") / name).read_bytes()
