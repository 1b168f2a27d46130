"""Features of whole videos: the right numbers, whatever happened on the way."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark.clips.action_clips import ActionClips
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.clips.windows import WindowClips, WindowOptions, plan_windows
from earmark.datasets.records import ActionRecord
from earmark.encoders import new_encoder
from earmark.evaluation import feature_writing
from earmark.evaluation.feature_files import FeatureFileError, load_features, write_feature_file
from earmark.evaluation.feature_index import FeatureSettingsError
from earmark.evaluation.feature_settings import FeatureModel, FeatureWriting
from earmark.evaluation.feature_writing import FeatureReport, write_features
from earmark.evaluation.features import FeatureOptions, Modality, extract_features
from earmark.media import PacketIndex
from tests.helpers.made_store import add_video, finish_store

WINDOWS = WindowOptions(window_seconds=0.5, stride_seconds=0.25)
ACTIONS = [ActionRecord(f"a{k}", "P01/a", 0.5 * k, 0.5 * k + 2.0, "", {"verb": k % 3}) for k in range(9)]


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    root = tmp_path / "store"
    rows = [
        add_video(root, "P01/a", num_frames=160),
        add_video(root, "b", num_frames=90, width=64),
        add_video(root, "c"),
    ]
    finish_store(root, rows, {"P01/a": [1.5, 4.25, 7.0], "b": [0.6, 3.0], "c": [2.0]})
    return PreparedStore(root)


class Counting(nn.Module):
    """An encoder that counts its clips, and stops after some as a kill would."""

    def __init__(self, encoder: nn.Module, stop_after: float = float("inf")) -> None:
        super().__init__()
        self.encoder, self.stop_after, self.num_clips = encoder, stop_after, 0

    def cache_key(self) -> dict[str, Any]:
        return {"class": "Counting"}

    def forward(self, x: Tensor) -> Tensor:
        if self.num_clips + len(x) > self.stop_after:
            raise KeyboardInterrupt
        self.num_clips += len(x)
        found: Tensor = self.encoder(x)
        return found


def video_encoder(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return new_encoder("avid_r2plus1d_10", width=4)


def models(encoder: nn.Module | None = None, *, audio: bool = False) -> dict[Modality, FeatureModel]:
    encoder = video_encoder() if encoder is None else encoder
    found: dict[Modality, FeatureModel] = {
        "video": FeatureModel(encoder, VideoCrop(crop_size=32, random=False), "a model")
    }
    if audio:
        torch.manual_seed(1)
        found["audio"] = FeatureModel(new_encoder("avid_spec_cnn_9", width=4), LogMel(), "a model of sound")
    return found


def written(
    store: PreparedStore, out: Path, encoder: nn.Module | None = None, options: WindowOptions = WINDOWS, **how: Any
) -> FeatureReport:
    audio = how.pop("audio", False)
    plan = plan_windows(store, options, actions=ACTIONS, with_sound=audio)
    writing = FeatureWriting(**{"batch_size": 4} | how)
    return write_features(store, plan, options, models(encoder, audio=audio), out, writing=writing)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class Labelled(WindowClips):
    """The same clips as a task has them."""

    labels: ClassVar[dict[str, Any]] = {}

    @property
    def action_of_item(self) -> np.ndarray:
        return np.arange(len(self))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_windows_have_the_features_that_a_task_would_compute(
    store: PreparedStore, tmp_path: Path, num_workers: int
) -> None:
    report = written(store, tmp_path / "out", num_workers=num_workers, batch_size=8)
    assert report.written == {"P01/a": 39, "b": 21, "c": 39}
    for name in report.written:
        found = load_features(tmp_path / "out" / f"{name}.npz")
        clips = Labelled(store, plan_windows(store, WINDOWS, video_ids=[name]).videos, WINDOWS)
        expected = extract_features(
            video_encoder(),
            clips,
            transform=VideoCrop(crop_size=32, random=False),
            options=FeatureOptions(batch_size=8),
        )
        np.testing.assert_array_equal(found.features["video"], expected[:, 0])
        np.testing.assert_array_equal(found.start_seconds, np.arange(len(expected)) * 0.25)
        np.testing.assert_array_equal(found.end_seconds, found.start_seconds + 0.5)
        told = found.metadata
        assert (told["window_seconds"], told["stride_seconds"], told["fps"], told["frames_per_clip"]) == (
            0.5,
            0.25,
            16,
            8,
        )
        assert told["encoders"]["video"]["transform"]["crop_size"] == 32
        assert told["encoders"]["video"]["model"] == "a model"
        assert len(told["encoders"]["video"]["encoder_weights"]) == len(told["data_fingerprint"]) == 64


def test_actions_have_the_features_that_a_task_would_compute(store: PreparedStore, tmp_path: Path) -> None:
    options = WindowOptions(of="actions", stride_seconds=None, clips_per_action=2)
    written(store, tmp_path / "out", options=options)
    found = load_features(tmp_path / "out/P01/a.npz")
    expected = extract_features(
        video_encoder(),
        ActionClips(store, ACTIONS, num_clips=2),
        transform=VideoCrop(crop_size=32, random=False),
        options=FeatureOptions(batch_size=4),
    )
    np.testing.assert_array_equal(found.features["video"].reshape(9, 2, -1), expected)
    assert found.columns["action_id"].tolist() == [f"a{k}" for k in range(9) for _ in range(2)]
    assert found.columns["label_verb"].tolist() == [k % 3 for k in range(9) for _ in range(2)]


def test_moments_have_before_after_change_and_sound(store: PreparedStore, tmp_path: Path) -> None:
    options = WindowOptions(of="moments", stride_seconds=None, gap_seconds=0.1)
    report = written(store, tmp_path / "out", options=options, audio=True)
    assert report.written == {"P01/a": 3, "b": 2, "c": 1}
    found = load_features(tmp_path / "out/P01/a.npz")
    video, log_mel = models(audio=True)["video"], models(audio=True)["audio"]
    with torch.inference_mode():
        for row, moment in enumerate([1.5, 4.25, 7.0]):
            sides = []
            for start in (moment - 0.6, moment + 0.1):
                clip = torch.from_numpy(store.frames("P01/a", start + np.arange(8) / 16))[None]
                sides.append(video.encoder.eval()(video.transform(clip, torch.zeros(1, dtype=torch.int64), None))[0])
            sound = torch.from_numpy(store.sound("P01/a", moment - 1, 32000))[None]
            heard = log_mel.encoder.eval()(log_mel.transform(sound))[0]
            for name, expected in (
                ("video_before", sides[0]),
                ("video_after", sides[1]),
                ("video_change", sides[1] - sides[0]),
                ("audio", heard),
            ):
                np.testing.assert_allclose(found.features[name][row], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        found.features["video_change"], found.features["video_after"] - found.features["video_before"]
    )
    np.testing.assert_allclose(found.start_seconds, [0.9, 3.65, 6.4])
    np.testing.assert_allclose(found.end_seconds, [2.1, 4.85, 7.6])
    assert found.columns["time_seconds"].tolist() == [1.5, 4.25, 7.0]


@pytest.mark.parametrize("stop_after", [0, 12, 39, 44, 61, 98])
def test_a_run_that_was_stopped_goes_on_and_writes_the_same_bytes(
    store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(feature_writing, "PART_ROWS", 8)
    written(store, tmp_path / "whole", Counting(video_encoder()))
    stopped = Counting(video_encoder(), stop_after)
    with pytest.raises(KeyboardInterrupt):
        written(store, tmp_path / "out", stopped)
    listed = json.loads((tmp_path / "out/features.json").read_text())["videos"]
    assert {entry["file"] for entry in listed.values()} == {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("[abc].npz")
    }
    resumed = Counting(video_encoder())
    report = written(store, tmp_path / "out", resumed)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert stopped.num_clips + resumed.num_clips - 99 <= 8 + 4  # a part and a batch at most are computed twice
    assert report.resumed_rows + resumed.num_clips + sum(report.reused.values()) == 99
    again = written(store, tmp_path / "out", Counting(video_encoder(), 0))  # nothing is computed
    assert (again.written, again.reused) == ({}, {"P01/a": 39, "b": 21, "c": 39})


def test_damaged_parts_and_those_of_other_batches_are_computed_again(
    store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_writing, "PART_ROWS", 8)
    written(store, tmp_path / "whole", Counting(video_encoder()))
    with pytest.raises(KeyboardInterrupt):
        written(store, tmp_path / "out", Counting(video_encoder(), 34))
    parts = sorted((tmp_path / "out/.parts/P01/a").iterdir())
    assert len(parts) == 4
    damaged = bytearray(parts[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    parts[1].write_bytes(damaged)
    (parts[0].parent / "stray.txt").write_text("of nobody")
    resumed = Counting(video_encoder())
    assert written(store, tmp_path / "out", resumed).resumed_rows == 8
    assert content(tmp_path / "out") == content(tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        written(store, tmp_path / "other", Counting(video_encoder(), 34), batch_size=8)
    assert written(store, tmp_path / "other", Counting(video_encoder())).resumed_rows == 0
    assert content(tmp_path / "other") == content(tmp_path / "whole")


@pytest.mark.parametrize("suffix", ["npz", "parquet", "hdf5"])
def test_every_format_holds_the_same(store: PreparedStore, tmp_path: Path, suffix: Any) -> None:
    if suffix == "hdf5":
        pytest.importorskip("h5py")
    options = WindowOptions(of="actions", stride_seconds=None, clips_per_action=2)
    for folder in ("one", "two"):
        written(store, tmp_path / folder, options=options, format=suffix, audio=True)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    written(store, tmp_path / "npz", options=options, audio=True)
    found, expected = load_features(tmp_path / f"one/P01/a.{suffix}"), load_features(tmp_path / "npz/P01/a.npz")
    assert found.features.keys() == {"video", "audio"}
    for name in found.features:
        np.testing.assert_array_equal(found.features[name], expected.features[name])
    np.testing.assert_array_equal(found.start_seconds, expected.start_seconds)
    assert found.columns.keys() == expected.columns.keys()
    for name, values in found.columns.items():
        np.testing.assert_array_equal(values, expected.columns[name])
    assert {**found.metadata, "format": "", "digest": ""} == {**expected.metadata, "format": "", "digest": ""}


def test_another_model_or_setting_is_refused_by_name(store: PreparedStore, tmp_path: Path) -> None:
    written(store, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(FeatureSettingsError, match=r"encoders\.video\.encoder_weights .* not "):
        written(store, tmp_path / "out", video_encoder(seed=1))
    with pytest.raises(FeatureSettingsError, match=r"stride_seconds 0\.25, not 0\.5"):
        written(store, tmp_path / "out", options=WindowOptions(window_seconds=0.5, stride_seconds=0.5))
    with pytest.raises(FeatureSettingsError, match="format npz, not parquet"):
        written(store, tmp_path / "out", format="parquet")
    assert content(tmp_path / "out") == before
    for text in ("", "{}", '{"settings": {"format_version": 1, "encoders": 3}, "videos": {}, "failed": {}}'):
        (tmp_path / "out/features.json").write_text(text)
        with pytest.raises(FeatureSettingsError, match=r"features\.json: not the index of a folder of features"):
            written(store, tmp_path / "out")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    with pytest.raises(FeatureSettingsError, match=r"is not empty, and not a folder of features \(cat.jpg"):
        written(store, tmp_path / "photos")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_video_that_fails_is_named_and_stops_no_other(
    store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(feature_writing, "PART_ROWS", 8)
    path = store.root / "videos/b.mov"
    damaged = bytearray(path.read_bytes())
    place = int(PacketIndex.load(store.root / "videos/b.index.npz").frame_offsets[50]) + 300
    damaged[place] ^= 255
    path.write_bytes(damaged)
    report = written(store, tmp_path / "out", num_workers=num_workers)
    assert report.written == {"P01/a": 39, "c": 39}
    assert list(report.failed) == ["b"]
    assert "frame 50 of b (3.125 s) is damaged" in report.failed["b"]
    index = json.loads((tmp_path / "out/features.json").read_text())
    assert list(index["failed"]) == ["b"]
    assert index["videos"]["P01/a"] == {"file": "P01/a.npz", "num_rows": 39}
    assert not (tmp_path / "out/.parts").exists()


def test_features_that_are_not_finite_fail_their_video_alone(store: PreparedStore, tmp_path: Path) -> None:
    class Odd(Counting):
        def forward(self, x: Tensor) -> Tensor:
            first, found = self.num_clips, super().forward(x)
            found[first + torch.arange(len(x)) == 45] = torch.nan  # the seventh window of the second video
            return found

    report = written(store, tmp_path / "out", Odd(video_encoder()))
    assert report.failed == {"b": "features of video at 1.500 s are not finite"}
    assert report.written == {"P01/a": 39, "c": 39}


def test_parts_of_the_work_make_the_whole(store: PreparedStore, tmp_path: Path) -> None:
    written(store, tmp_path / "whole")
    first = written(store, tmp_path / "out", part=(2, 2))
    assert (first.written, first.num_elsewhere) == ({"b": 21}, 2)
    second = written(store, tmp_path / "out", part=(1, 2))
    assert (second.written, second.num_elsewhere) == ({"P01/a": 39, "c": 39}, 0)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_video_that_changed_is_computed_again_and_another_of_its_name_is_not_overwritten(
    store: PreparedStore, tmp_path: Path
) -> None:
    written(store, tmp_path / "out")
    rows = list(store.catalog)
    changed = add_video(store.root, "b", num_frames=60, width=64)
    finish_store(store.root, [rows[0], changed, rows[2]], {"P01/a": [1.5], "b": [0.6], "c": [2.0]})
    report = written(PreparedStore(store.root), tmp_path / "out")
    assert report.written == {"b": 14}  # of the others the moments differ, which windows do not depend on
    other = add_video(tmp_path / "elsewhere", "b", num_frames=70, width=64)
    object.__setattr__(other, "path", "/elsewhere/b.mp4")
    finish_store(tmp_path / "elsewhere", [other], {"b": [0.6]})
    report = written(PreparedStore(tmp_path / "elsewhere"), tmp_path / "out")
    assert "holds features of another video of this name, /videos/b.mp4" in report.failed["b"]
    index = json.loads((tmp_path / "out/features.json").read_text())
    assert index["videos"].keys() == {"P01/a", "c"}
    assert load_features(tmp_path / "out/b.npz").metadata["num_rows"] == 14


def test_two_processes_do_not_write_the_same_part(store: PreparedStore, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out/.parts").mkdir(parents=True)
    with (
        FileLock(tmp_path / "out/.parts/1-of-1.lock"),
        pytest.raises(FeatureSettingsError, match="another process writes this part"),
    ):
        written(store, tmp_path / "out")


def test_bfloat16_on_the_cpu_and_a_transform_that_draws_are_refused(store: PreparedStore, tmp_path: Path) -> None:
    with pytest.raises(FeatureSettingsError, match="bfloat16 is for GPUs"):
        written(store, tmp_path / "out", bfloat16=True)
    model = FeatureModel(video_encoder(), VideoCrop(crop_size=32, min_short_side=32), "a model")
    with pytest.raises(ValueError, match="draws at random"):
        write_features(store, plan_windows(store, WINDOWS), WINDOWS, {"video": model}, tmp_path / "out")


def block_files(path: Path, num_blocks: int) -> None:
    number = 512 * num_blocks
    columns = {"start_seconds": np.arange(number, dtype=float), "end_seconds": np.arange(number, dtype=float) + 1}

    def blocks(name: str) -> Iterator[np.ndarray]:
        for block in range(num_blocks):
            yield np.full((512, 512), block, np.float32)

    metadata = {"format_version": 1, "video_id": "long"}
    write_feature_file(path, metadata=metadata, columns=columns, dims={"video": 512}, blocks=blocks)


@pytest.mark.parametrize("suffix", ["npz", "parquet", "hdf5"])
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path, suffix: str) -> None:
    if suffix == "hdf5":
        pytest.importorskip("h5py")
    block_files(tmp_path / f"warm.{suffix}", 1)
    tracemalloc.start()
    block_files(tmp_path / f"long.{suffix}", 100)  # 105 MB of features
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 35e6
    assert (tmp_path / f"long.{suffix}").stat().st_size > (90e6 if suffix != "parquet" else 0)


def test_what_is_no_whole_file_of_features_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    block_files(path, 1)
    whole = path.read_bytes()
    assert load_features(path).features["video"].shape == (512, 512)
    for cut in (0, 1000, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(FeatureFileError, match=rf"{path}: not a whole file of features"):
            load_features(path)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(FeatureFileError, match="not a whole file of features"):
        load_features(path)
    np.savez(path, start_seconds=np.array([print], object))
    with pytest.raises(FeatureFileError, match="not a whole file of features"):
        load_features(path)
    with pytest.raises(FeatureFileError, match="no such file"):
        load_features(tmp_path / "none.npz")
    with pytest.raises(FeatureFileError, match=r"not a file of features, which end in \.npz"):
        load_features(tmp_path / "none.txt")
    metadata = {"format_version": 99, "video_id": "x"}
    times = {"start_seconds": np.zeros(1), "end_seconds": np.ones(1)}
    write_feature_file(
        path, metadata=metadata, columns=times, dims={"video": 2}, blocks=lambda _: iter([np.ones((1, 2), np.float32)])
    )
    with pytest.raises(FeatureFileError, match="of format 99; this Earmark reads 1"):
        load_features(path)
