"""Frozen features against a direct loop over the clips, and their cache."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark.evaluation.features import LabelledClips, describe, extract_features, feature_key


class TinyClips:
    """Random clips of two frame sizes, with the items of an action not next to one another."""

    def __init__(self, num_actions: int = 7, num_clips: int = 2, brightness: int = 0) -> None:
        self.action_of_item = np.tile(np.arange(num_actions), num_clips)
        self.labels = {"verb": np.arange(num_actions) % 3}
        self.brightness = brightness
        self.reads = 0

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
    features = extract_features(encoder, clips, transform=Crop(), batch_size=3, num_workers=num_workers)
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


def key_of(encoder: nn.Module, clips: LabelledClips, transform: nn.Module, fingerprint: str = "videos"):
    return feature_key(
        encoder,
        clip_parameters={"num_clips": 2, "brightness": clips.brightness},
        transform_parameters=describe(transform),
        fingerprint=fingerprint,
    )


def test_second_run_reads_the_cache_and_no_clip(tmp_path: Path) -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    options = {"transform": Crop(), "cache_dir": tmp_path / "features", "cache_key": key_of(encoder, clips, Crop())}
    first = extract_features(encoder, clips, **options)
    reads = clips.reads
    second = extract_features(encoder, clips, **options)
    assert clips.reads == reads == len(clips)
    np.testing.assert_array_equal(second, first)
    (sidecar_path,) = tmp_path.glob("features/*.json")
    sidecar = json.loads(sidecar_path.read_text())
    assert sidecar["shape"] == [7, 2, 5]
    assert sidecar["key"]["fingerprint"] == "videos"
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


@pytest.mark.parametrize("damage", [truncate_array, flip_a_bit, remove_array, cut_sidecar, empty_sidecar])
def test_damaged_cache_is_recomputed_and_said_so(damage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    options = {"transform": Crop(), "cache_dir": tmp_path, "cache_key": key_of(encoder, clips, Crop())}
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


def test_key_changes_with_weights_buffers_structure_parameters_and_data() -> None:
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
    digests.append(key_of(encoder, clips, Crop(), fingerprint="other videos").digest)
    assert len(set(digests)) == len(digests)
    assert key_of(encoder, clips, Crop()).digest == digests[3]


def test_key_does_not_depend_on_train_mode_or_gradients() -> None:
    encoder, clips = TinyEncoder().to(torch.bfloat16), TinyClips()
    digest = key_of(encoder, clips, Crop()).digest
    assert key_of(encoder.eval().requires_grad_(False), clips, Crop()).digest == digest


def test_description_of_clips_covers_actions_and_labels_but_not_open_things(tmp_path: Path) -> None:
    clips = TinyClips()
    clips.store = open(tmp_path / "store", "w")  # noqa: PTH123, SIM115 - any object without plain content
    described = describe(clips)
    clips.store.close()
    assert described["class"] == "TinyClips"
    assert described["brightness"] == 0
    assert "store" not in described
    other = TinyClips()
    other.labels["verb"][0] = 2
    assert describe(other)["labels"] != described["labels"]
    assert describe(other)["action_of_item"] == described["action_of_item"]


def test_description_of_a_transform_covers_buffers_and_inner_modules() -> None:
    def transform(mean: float, scale: float) -> nn.Module:
        module = nn.Sequential(Crop(scale))
        module.register_buffer("mean", torch.tensor([mean]), persistent=False)
        return module

    assert describe(transform(0.5, 1.0)) == describe(transform(0.5, 1.0).eval())
    assert describe(transform(0.5, 1.0)) != describe(transform(0.4, 1.0))
    assert describe(transform(0.5, 1.0)) != describe(transform(0.5, 2.0))


def test_items_draw_seeds_of_their_own_from_the_seed() -> None:
    class SeedEncoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class SeedTransform(nn.Module):
        def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
            return (seed % 1_000_003).float()[:, None]

    def seeds(seed: int, batch_size: int) -> np.ndarray:
        return extract_features(SeedEncoder(), TinyClips(), transform=SeedTransform(), seed=seed, batch_size=batch_size)

    np.testing.assert_array_equal(seeds(0, 2), seeds(0, 5))
    assert len(np.unique(seeds(0, 2))) == 14
    assert not np.isin(seeds(1, 2), seeds(0, 2)).any()


def test_what_is_no_feature_is_refused(tmp_path: Path) -> None:
    class Nan(TinyEncoder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0 * 0

    with pytest.raises(ValueError, match=r"features of item 0 \(and 13 more\) are not finite"):
        extract_features(Nan(), TinyClips(), transform=Crop())
    with pytest.raises(ValueError, match=r"features \(B, D\)"):
        extract_features(nn.Identity(), TinyClips(), transform=Crop())
    with pytest.raises(ValueError, match="give both or neither"):
        extract_features(TinyEncoder(), TinyClips(), transform=Crop(), cache_dir=tmp_path)


def test_actions_with_different_numbers_of_clips_are_refused() -> None:
    clips = TinyClips()
    clips.action_of_item = np.array([0, 0, 1])
    with pytest.raises(ValueError, match="as many clips"):
        extract_features(TinyEncoder(), clips, transform=Crop())
    clips.action_of_item = np.array([], dtype=int)
    with pytest.raises(ValueError, match="as many clips"):
        extract_features(TinyEncoder(), clips, transform=Crop())


@pytest.mark.gpu
def test_features_on_the_gpu_equal_those_on_the_cpu() -> None:
    encoder, clips = TinyEncoder(), TinyClips()
    expected = extract_features(encoder, clips, transform=Crop())
    on_gpu = extract_features(encoder, clips, transform=Crop(), device="cuda")
    np.testing.assert_allclose(on_gpu, expected, rtol=1e-2, atol=1e-2)  # TF32 convolutions
