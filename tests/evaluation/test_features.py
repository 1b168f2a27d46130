"""Frozen features against a direct loop over the clips, and their cache."""

import inspect
import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark.clips.action_clips import ActionClips
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel, VideoCrop
from earmark.datasets.records import ActionRecord
from earmark.encoders import new_encoder
from earmark.evaluation import features
from earmark.evaluation.features import (
    _BATCHES_UNDER_WAY,
    FeatureOptions,
    LabelledClips,
    _channels_last,
    _FeatureRows,
    extract_features,
    feature_key,
)
from tests.helpers.made_store import add_video, finish_store


class TinyClips:
    """Random clips of two frame sizes, with the items of an action not next to one another."""

    def __init__(self, num_actions: int = 7, num_clips: int = 2, brightness: int = 0) -> None:
        self.action_of_item = np.tile(np.arange(num_actions), num_clips)
        self.labels = {"verb": np.arange(num_actions) % 3}
        self.brightness = brightness
        self.reads = 0

    def cache_key(self) -> dict[str, Any]:
        return {"class": "TinyClips", "num_items": len(self), "brightness": self.brightness}

    def __len__(self) -> int:
        return len(self.action_of_item)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        self.reads += 1
        size = (6, 8) if index % 2 else (8, 6)
        video = np.random.default_rng(index).integers(0, 200, size=(4, *size, 3)).astype(np.uint8) + self.brightness
        return {"video": video.astype(np.uint8), "index": index, "seed": seed, "label_verb": 0}


class Crop(nn.Module):
    """The upper left corner, as float (B, 3, T, 6, 6)."""

    def __init__(self, scale: float = 255.0) -> None:
        super().__init__()
        self.scale = scale

    def cache_key(self) -> dict[str, Any]:
        return {"class": "Crop", "scale": self.scale}

    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        assert seed.dtype == torch.int64
        assert (video_size >= 6).all()
        return video[:, :, :6, :6].movedim(-1, 1).float() / self.scale


class TinyEncoder(nn.Module):
    """A convolution, a batch norm and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 5, 3)
        self.norm = nn.BatchNorm3d(5)

    def cache_key(self) -> dict[str, Any]:
        return {"class": type(self).__name__}

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).amax(dim=(2, 3, 4))


def direct_features(encoder: TinyEncoder, clips: LabelledClips) -> np.ndarray:
    """One clip at a time, by the definition; shape (num_actions, num_clips, 5)."""
    encoder = encoder.eval()
    by_action: dict[int, list[np.ndarray]] = {}
    for item, action in enumerate(clips.action_of_item.tolist()):
        video = torch.from_numpy(clips[(item, 0)]["video"])[None]
        with torch.no_grad():
            inputs = Crop()(video, torch.zeros(1, dtype=torch.int64), torch.tensor([video.shape[2:4]]))
            by_action.setdefault(action, []).append(encoder(inputs)[0].numpy())
    return np.array([by_action[action] for action in sorted(by_action)])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_features_stand_by_action_and_clip_whatever_batch_and_workers(num_workers: int) -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    features = extract_features(
        encoder, clips, transform=Crop(), options=FeatureOptions(batch_size=3, num_workers=num_workers)
    )
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, direct_features(encoder, clips), rtol=1e-5, atol=1e-6)


def test_encoder_is_only_looked_at_and_its_modes_are_restored() -> None:
    encoder = TinyEncoder().train()
    encoder.conv.eval()  # a mixed state, as when batch norm is frozen in fine-tuning
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    extract_features(encoder, TinyClips(), transform=Crop())
    assert (encoder.training, encoder.norm.training, encoder.conv.training) == (True, True, False)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_an_encoder_that_had_to_be_moved_can_still_be_trained() -> None:
    class Moved(TinyEncoder):
        """Move to another dtype in place of another device, which this machine need not have."""

        def to(self, *args: Any, **kwargs: Any) -> "Moved":
            return self.float()

    encoder = Moved().double()
    extract_features(encoder, TinyClips(), transform=Crop())
    encoder.train()(torch.rand(2, 3, 4, 6, 6)).sum().backward()
    assert encoder.conv.weight.grad is not None
    assert encoder.conv.weight.grad.abs().max() > 0


def test_modes_are_restored_when_reading_fails() -> None:
    class Broken(TinyClips):
        def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
            raise OSError("video P01_01 is gone")

    encoder = TinyEncoder().train()
    with pytest.raises(OSError, match="P01_01"):
        extract_features(encoder, Broken(), transform=Crop())
    assert encoder.norm.training


def key_of(encoder: nn.Module, clips: LabelledClips, transform: nn.Module, seed: int = 0):
    return feature_key(encoder, clips=clips, transform=transform, seed=seed)


def test_second_run_reads_the_cache_and_no_clip(tmp_path: Path) -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    options = {"transform": Crop(), "options": FeatureOptions(cache_dir=tmp_path / "features"), "seed": 5}
    first = extract_features(encoder, clips, **options)
    reads = clips.reads
    second = extract_features(encoder, clips, **options)
    assert clips.reads == reads == len(clips)
    np.testing.assert_array_equal(second, first)
    (sidecar_path,) = tmp_path.glob("features/*.json")
    sidecar = json.loads(sidecar_path.read_text())
    assert sidecar["shape"] == [7, 2, 5]
    assert sidecar["key"] == json.loads(key_of(encoder, clips, Crop(), seed=5).content)
    assert sidecar["key"]["clips"] == {"class": "TinyClips", "num_items": 14, "brightness": 0}
    assert sidecar["key"]["transform"] == {"class": "Crop", "scale": 255.0}
    assert sorted(path.suffix for path in (tmp_path / "features").iterdir()) == [".json", ".npy"]


def truncate_array(array_path: Path) -> None:
    array_path.write_bytes(array_path.read_bytes()[:-8])


def flip_a_bit(array_path: Path) -> None:
    content = bytearray(array_path.read_bytes())
    content[-3] ^= 1
    array_path.write_bytes(content)


def remove_array(array_path: Path) -> None:
    array_path.unlink()


def cut_sidecar(array_path: Path) -> None:
    sidecar_path = array_path.with_suffix(".json")
    sidecar_path.write_text(sidecar_path.read_text()[:40])


def empty_sidecar(array_path: Path) -> None:
    array_path.with_suffix(".json").write_text("[]")


def nest_sidecar(array_path: Path) -> None:
    array_path.with_suffix(".json").write_text("[" * 5000)


@pytest.mark.parametrize("damage", [truncate_array, flip_a_bit, remove_array, cut_sidecar, empty_sidecar, nest_sidecar])
def test_damaged_cache_is_recomputed_and_said_so(damage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    options = {"transform": Crop(), "options": FeatureOptions(cache_dir=tmp_path)}
    first = extract_features(encoder, clips, **options)
    damage(next(tmp_path.glob("*.npy")))
    with caplog.at_level(logging.WARNING):
        second = extract_features(encoder, clips, **options)
        np.testing.assert_array_equal(second, first)
        assert clips.reads == 2 * len(clips)
        assert [record.message.count("damaged feature cache") for record in caplog.records] == [1]
        extract_features(encoder, clips, **options)  # and it is whole again
    assert clips.reads == 2 * len(clips)
    assert len(caplog.records) == 1


def test_key_changes_with_weights_buffers_structure_parameters_and_seed() -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    digests = [key_of(encoder, clips, Crop()).digest]
    with torch.no_grad():
        encoder.conv.weight[0, 0, 0, 0, 0] += 1e-6
    digests.append(key_of(encoder, clips, Crop()).digest)
    encoder.norm.running_mean[3] += 1
    digests.append(key_of(encoder, clips, Crop()).digest)
    encoder.conv.stride = (2, 1, 1)  # same weights, another function
    digests.append(key_of(encoder, clips, Crop()).digest)
    digests.append(key_of(encoder, TinyClips(brightness=3), Crop()).digest)
    digests.append(key_of(encoder, clips, Crop(scale=128.0)).digest)
    digests.append(key_of(encoder, clips, Crop(), seed=1).digest)
    assert len(set(digests)) == len(digests)
    assert key_of(encoder, clips, Crop()).digest == digests[3]


def test_key_does_not_depend_on_train_mode_or_gradients() -> None:
    encoder, clips = TinyEncoder().to(torch.bfloat16), TinyClips()
    digest = key_of(encoder, clips, Crop()).digest
    assert key_of(encoder.eval().requires_grad_(False), clips, Crop()).digest == digest


class Plain(nn.Module):
    """A module that says nothing of itself, as most."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Unspeakable(TinyEncoder):
    """One that declares what json cannot hold."""

    def cache_key(self) -> dict[str, Any]:
        return {"class": "Unspeakable", "pool": torch.amax}


def test_what_does_not_declare_its_parameters_is_computed_but_never_cached(tmp_path: Path) -> None:
    """An object with a setting left out of its key would find the features of another setting."""
    clips, options = TinyClips(), FeatureOptions(cache_dir=tmp_path)
    assert extract_features(Plain(), clips, transform=Crop()).shape == (7, 2, 3 * 4 * 6 * 6)
    with pytest.raises(TypeError, match=r"this encoder cannot be cached: Plain has no method cache_key\(\)"):
        extract_features(Plain(), clips, transform=Crop(), options=options)
    with pytest.raises(TypeError, match="this transform cannot be cached: Plain"):
        extract_features(TinyEncoder(), clips, transform=Plain(), options=options)
    with pytest.raises(TypeError, match="cannot be cached: dict has no method"):
        feature_key(TinyEncoder(), clips={}, transform=Crop(), seed=0)
    with pytest.raises(TypeError, match=r"Unspeakable.cache_key\(\) must return plain data: .* not JSON"):
        extract_features(Unspeakable(), clips, transform=Crop(), options=options)
    assert list(tmp_path.iterdir()) == []
    assert clips.reads == len(clips)  # of the first line: refused before anything is read


def test_stored_clips_declare_store_places_and_how_they_are_cut(tmp_path: Path) -> None:
    def store_of(name: str, num_frames: int) -> PreparedStore:
        finish_store(tmp_path / name, [add_video(tmp_path / name, "a", num_frames=num_frames)], {})
        return PreparedStore(tmp_path / name)

    def action(start: float = 0.2, stop: float = 1.2, verb: int = 0) -> ActionRecord:
        return ActionRecord("a_1", "a", start, stop, "P01", {"verb": verb})

    store = store_of("one", 32)
    first = ActionClips(store, [action()])
    changed = [
        ActionClips(store_of("two", 48), [action()]),
        ActionClips(store, [action(start=0.3)]),
        ActionClips(store, [action(stop=1.3)]),
        ActionClips(store, [action(), action()]),
        ActionClips(store, [action()], clip_seconds=0.25),
        ActionClips(store, [action()], clip_fps=8),
        ActionClips(store, [action()], num_clips=2),
        ActionClips(store, [action()], random=True),
        ActionClips(store, [action()], audio_seconds=0.5),
    ]
    keys = [json.dumps(clips.cache_key(), sort_keys=True) for clips in (first, *changed)]
    assert len(set(keys)) == len(keys)
    assert ActionClips(store, [action(verb=3)]).cache_key() == first.cache_key()  # the same pictures


def test_transforms_and_encoders_declare_every_argument() -> None:
    changed = [
        {"crop_size": 96},
        {"min_short_side": 120},
        {"max_short_side": 170},
        {"flip": False},
        {"color_jitter": 0.5},
        {"min_area": 0.3},
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.1, 0.2, 0.3)},
        {"random": False},
    ]
    of_sound = [
        {"sample_rate": 32000},
        {"window_seconds": 0.04},
        {"hop_seconds": 0.02},
        {"num_mels": 64},
        {"max_frequency": 4000.0},
        {"mean": -7.0},
        {"std": 4.0},
    ]
    for transform, changes in ((VideoCrop, changed), (LogMel, of_sound)):
        assert {name for change in changes for name in change} == set(inspect.signature(transform).parameters)
        keys = [json.dumps(transform(**change).cache_key(), sort_keys=True) for change in ({}, *changes)]
        assert len(set(keys)) == len(keys)
    encoder = new_encoder("avid_r2plus1d_10", width=4)
    assert encoder.cache_key() == {"class": "R2Plus1D", "name": "avid_r2plus1d_10", "options": {"width": 4}}


def test_items_draw_seeds_of_their_own_from_the_seed() -> None:
    class SeedEncoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class SeedTransform(nn.Module):
        def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
            return (seed % 1_000_003).float()[:, None]

    def seeds(seed: int, batch_size: int) -> np.ndarray:
        options = FeatureOptions(batch_size=batch_size)
        return extract_features(SeedEncoder(), TinyClips(), transform=SeedTransform(), seed=seed, options=options)

    np.testing.assert_array_equal(seeds(0, 2), seeds(0, 5))
    assert len(np.unique(seeds(0, 2))) == 14
    assert not np.isin(seeds(1, 2), seeds(0, 2)).any()


def test_what_is_no_feature_is_refused() -> None:
    class Nan(TinyEncoder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0 * 0

    with pytest.raises(ValueError, match=r"features of item 0 \(and 13 more\) are not finite"):
        extract_features(Nan(), TinyClips(), transform=Crop())
    with pytest.raises(ValueError, match=r"features \(B, D\)"):
        extract_features(nn.Identity(), TinyClips(), transform=Crop())


def test_actions_with_different_numbers_of_clips_are_refused() -> None:
    clips = TinyClips()
    clips.action_of_item = np.array([0, 0, 1])
    with pytest.raises(ValueError, match="same number of clips"):
        extract_features(TinyEncoder(), clips, transform=Crop())
    clips.action_of_item = np.array([], dtype=int)
    with pytest.raises(ValueError, match="same number of clips"):
        extract_features(TinyEncoder(), clips, transform=Crop())


class LateCopies:
    """A device that is behind: a copy holds no numbers until it is waited for, or enough others have been begun."""

    def __init__(self, behind: int | None) -> None:
        self.behind = behind  # copies that are begun before one ends by itself; None: none does
        self.copies: list[LateCopy] = []
        self.num_waited_for = 0
        self.most_under_way = 0

    def send(self, rows: Tensor) -> "tuple[Tensor, LateCopy]":
        copy = LateCopy(self, len(self.copies), rows)
        self.copies.append(copy)
        self.most_under_way = max(self.most_under_way, sum(not copy.is_done for copy in self.copies))
        return copy.on_host, copy


class LateCopy:
    def __init__(self, device: LateCopies, number: int, rows: Tensor) -> None:
        self.device, self.number, self.rows = device, number, rows.clone()
        self.on_host = torch.full_like(rows, torch.nan)
        self.is_done = False

    def query(self) -> bool:
        behind = self.device.behind
        if behind is not None and len(self.device.copies) - self.number > behind:
            self._end()
        return self.is_done

    def synchronize(self) -> None:
        if not self.is_done:
            self.device.num_waited_for += 1
        self._end()

    def _end(self) -> None:
        self.on_host.copy_(self.rows)
        self.is_done = True


@pytest.mark.parametrize("behind", [0, 3, None])
def test_features_that_arrive_late_stand_in_their_places(behind: int | None) -> None:
    """Nothing is read before it is there, the host waits only where the device is far behind, and memory is bounded."""
    rng, device = np.random.default_rng(0), LateCopies(behind)
    order, expected = rng.permutation(60), rng.normal(size=(60, 4)).astype(np.float32)
    rows = _FeatureRows(60, device.send)
    for items in np.split(order, 20):
        rows.add(items.tolist(), torch.from_numpy(expected[items]))
        assert sum(not copy.is_done for copy in device.copies) <= _BATCHES_UNDER_WAY
    num_waited_for = device.num_waited_for
    np.testing.assert_array_equal(rows.collect(), expected)
    assert num_waited_for == (20 - _BATCHES_UNDER_WAY if behind is None else 0)
    assert device.most_under_way <= _BATCHES_UNDER_WAY + 1


def test_features_are_taken_before_the_memory_of_their_batch_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader may hand the same memory out again; an encoder may return a part of what it was given."""
    memory = torch.zeros(2, 3)

    def reused(
        clips: LabelledClips, batches: list[list[tuple[int, int]]], **kwargs: Any
    ) -> Iterator[dict[str, Tensor]]:
        for keys in batches:
            memory[: len(keys)] = torch.tensor([[index, 2.0 * index, -1.0] for index, _ in keys])
            yield {"video": memory[: len(keys)], "seed": torch.zeros(2), "video_size": torch.zeros(2)}
            memory.fill_(torch.nan)

    class AsItIs(nn.Module):
        def forward(self, video: Tensor, *others: Tensor) -> Tensor:
            return video

    monkeypatch.setattr(features, "load_batches", reused)
    got = extract_features(
        nn.Identity(), TinyClips(), transform=AsItIs(), options=FeatureOptions(batch_size=2)
    ).transpose(1, 0, 2)
    np.testing.assert_array_equal(got.reshape(14, 3), [[k, 2 * k, -1] for k in range(14)])


@pytest.mark.parametrize("fails", [False, True])
def test_channels_last_ends_with_the_weights_as_they_were(fails: bool) -> None:
    encoder = new_encoder("avid_r2plus1d_10", width=4)
    video = torch.randn(2, 3, 4, 32, 32)
    encoder.eval()
    expected = encoder(video)
    before = {name: (weight.data_ptr(), weight.stride()) for name, weight in encoder.named_parameters()}
    with pytest.raises(OSError, match="gone") if fails else nullcontext(), _channels_last(encoder):
        weight = encoder.get_parameter("conv2x.spt_conv1.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last_3d)
        assert not weight.is_contiguous()
        torch.testing.assert_close(encoder(video), expected, rtol=1e-4, atol=1e-5)
        if fails:
            raise OSError("the video is gone")
    assert {name: (weight.data_ptr(), weight.stride()) for name, weight in encoder.named_parameters()} == before
    encoder(video).sum().backward()  # and they can be trained


def sounding_clips(root: Path, **options: Any) -> ActionClips:
    """Two short videos with sound and one without, whose actions are left out where sound is asked for."""
    rows = [add_video(root, name, num_frames=64, width=140, height=128, has_audio=name != "c") for name in "abc"]
    finish_store(root, rows, {})
    actions = [ActionRecord(f"{name}_1", name, 1.0, 3.0, "P01", {"verb": 0}) for name in "abc"]
    return ActionClips(PreparedStore(root), actions, num_clips=2, **options)


def test_features_of_sound_are_those_of_the_spectrogram_around_each_clip(tmp_path: Path) -> None:
    clips = sounding_clips(tmp_path, audio_seconds=1.0)
    assert clips.left_out == [("c_1", "video 'c' has no sound")]
    encoder, log_mel = new_encoder("avid_spec_cnn_9", width=4).eval(), LogMel()
    found = extract_features(encoder, clips, transform=log_mel, modality="audio")
    store, expected = PreparedStore(tmp_path), []
    for item, action in enumerate(clips.action_of_item.tolist()):
        start = clips.start_of(item, 0) + 0.25 - 0.5  # half a clip on, half of the sound back
        sound = torch.from_numpy(store.sound(clips.actions[action].video_id, start, 16000))
        with torch.no_grad():
            expected.append(encoder(log_mel(sound[None]))[0].numpy())
    np.testing.assert_allclose(found.reshape(4, -1), expected, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(found[:, 0], found[:, 1])
    with pytest.raises(ValueError, match="these clips have no audio"):
        extract_features(encoder, sounding_clips(tmp_path / "2"), transform=log_mel, modality="audio")


def test_only_what_is_looked_at_is_read_and_pictures_share_their_cache_with_clips_without_sound(tmp_path: Path) -> None:
    clips = sounding_clips(tmp_path / "store", audio_seconds=1.0)
    with_both, of_sound, of_pictures = clips[0, 0], clips.only("audio")[0, 0], clips.only("video")[0, 0]
    assert set(of_sound) == set(with_both) - {"video"}
    assert set(of_pictures) == set(with_both) - {"audio"}
    np.testing.assert_array_equal(of_sound["audio"], with_both["audio"])
    np.testing.assert_array_equal(of_pictures["video"], with_both["video"])
    batch = clips.only("audio").read_batch([(0, 0), (3, 0)])
    np.testing.assert_array_equal(batch["audio"][0], with_both["audio"])
    plain = ActionClips(clips.store, clips.actions, num_clips=2)
    assert clips.only("video").cache_key() == plain.cache_key()
    assert clips.only("audio").cache_key() not in (clips.cache_key(), plain.cache_key())
    with pytest.raises(ValueError, match="pictures, sound"):
        ActionClips(clips.store, clips.actions, pictures=False)
    with pytest.raises(ValueError, match="no video"):
        clips.only("audio").only("video")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_tokens_are_the_feature_map_and_stay_on_the_disk(num_workers: int, tmp_path: Path) -> None:
    encoder, clips = new_encoder("avid_r2plus1d_10", width=4).eval(), stored_clips(tmp_path)
    crop = VideoCrop(random=False)
    pooled = extract_features(encoder, clips, transform=crop)
    options = FeatureOptions(3, num_workers=num_workers, cache_dir=tmp_path / "features")
    tokens, again = (extract_features(encoder, clips, transform=crop, tokens=True, options=options) for _ in range(2))
    in_memory = extract_features(encoder, clips, transform=crop, tokens=True, options=FeatureOptions(3))
    assert (tokens.shape, tokens.dtype) == ((8, 2, 16, 32), np.float16)  # 1 x 4 x 4 places of clips of 112 pixels
    np.testing.assert_array_equal(tokens, again)
    np.testing.assert_array_equal(tokens, in_memory)
    assert isinstance(tokens, np.memmap)
    assert isinstance(again, np.memmap)
    np.testing.assert_allclose(tokens.max(axis=2), pooled, rtol=1e-3)  # this encoder's pool is a maximum
    with torch.no_grad():
        row = clips[3, 0]  # the second clip of action 1
        one = crop(torch.from_numpy(row["video"])[None], torch.zeros(1, dtype=torch.int64))
        expected = encoder.forward_features(one)[0, :, 0, 2, 3].numpy()
    np.testing.assert_allclose(tokens[1, 1, 2 * 4 + 3], expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(TypeError, match="TinyEncoder has no forward_features"):
        extract_features(TinyEncoder(), TinyClips(), transform=Crop(), tokens=True)


def test_tokens_that_are_no_numbers_leave_nothing_in_the_cache(tmp_path: Path) -> None:
    class Huge(TinyEncoder):
        def forward_features(self, x: Tensor) -> Tensor:
            return self.conv(x) + 1e6  # beyond what half precision holds

    with pytest.raises(ValueError, match=r"features of item 0 \(and 13 more\) are not finite"):
        extract_features(Huge(), TinyClips(), transform=Crop(), tokens=True, options=FeatureOptions(cache_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def stored_clips(root: Path) -> ActionClips:
    finish_store(root, [add_video(root, "a", num_frames=80, width=140, height=128)], {})
    actions = [ActionRecord(f"a_{k}", "a", 0.4 * k, 0.4 * k + 1.2, "P01", {"verb": 0}) for k in range(8)]
    return ActionClips(PreparedStore(root), actions, num_clips=2)


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_on_the_gpu_equal_those_on_the_cpu(num_workers: int, tmp_path: Path) -> None:
    encoder, clips, options = new_encoder("avid_r2plus1d_10", width=8), stored_clips(tmp_path), FeatureOptions(3)
    crop = VideoCrop(random=False)
    expected = extract_features(encoder, clips, transform=crop, options=options)
    strides = {name: weight.stride() for name, weight in encoder.named_parameters()}
    options = FeatureOptions(3, num_workers=num_workers)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        on_gpu = extract_features(encoder, clips, transform=crop, options=options, device="cuda")
    np.testing.assert_allclose(on_gpu, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert {name: weight.stride() for name, weight in encoder.named_parameters()} == strides
    roughly = extract_features(encoder, clips, transform=crop, options=options, device="cuda")
    np.testing.assert_allclose(roughly, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())  # TF32 convolutions


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_batch_on_the_gpu_is_waited_for(tmp_path: Path) -> None:
    encoder, clips = new_encoder("avid_r2plus1d_10", width=8).cuda().eval(), stored_clips(tmp_path)
    crop, given = VideoCrop(random=False).cuda(), {"device": torch.device("cuda"), "seed": 0, "label": ""}
    expected = features._run(encoder, clips, crop, FeatureOptions(3), **given)  # and what is made once is made now
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = features._run(encoder, clips, crop, FeatureOptions(3), **given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_allclose(again, expected, rtol=1e-3)
