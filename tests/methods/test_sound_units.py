"""Sound units: made of the first sounds, once, the same whatever order batches are cut in, and kept by a checkpoint."""

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.methods import SoundUnits, sound_patches
from earmark.methods.replai import AudioVisualModel, MomentDetectionOptions, SoundUnitOptions
from tests.helpers.small_methods import encoders, make_inputs


def sounds_of(kinds: Tensor, *, seed: int = 0) -> Tensor:
    """Log-mel spectrograms of a few kinds of sound: each loud at its own time in its own band, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    audio = 0.1 * torch.randn(len(kinds), 1, 125, 80, generator=generator)
    for row, kind in enumerate(kinds.tolist()):
        audio[row, 0, 30 * (kind // 8) + 5 : 30 * (kind // 8) + 25, 8 * (kind % 8) : 8 * (kind % 8) + 8] += 3.0
    return audio


def same_partition(found: Tensor, expected: Tensor) -> bool:
    return torch.equal(found[:, None] == found, expected[:, None] == expected)


def test_patches_are_means_over_time_and_frequency() -> None:
    audio = torch.randn(2, 1, 125, 80, dtype=torch.float64)
    expected = audio.numpy().reshape(2, 25, 5, 10, 8).mean(axis=(2, 4)).reshape(2, 250)
    np.testing.assert_allclose(sound_patches(audio).numpy(), expected, rtol=1e-12)
    assert sound_patches(audio.to(torch.bfloat16)).dtype == torch.float32


def test_sounds_of_one_unit_are_of_one_kind_of_sounds_heard_later_too() -> None:
    units = SoundUnits([51, 2])
    assert units.num_needed == 255
    units.collect(sounds_of(torch.arange(255) % 17))
    later = torch.arange(17).repeat(4)
    fine, two = units.of(sounds_of(later, seed=1))
    kinds_of_unit = {unit: later[fine == unit].unique().tolist() for unit in fine.unique().tolist()}
    assert all(len(kinds) == 1 for kinds in kinds_of_unit.values())
    assert set(two.tolist()) == {0, 1}


def test_the_unit_of_a_sound_is_the_nearest_centre_of_whitened_patches() -> None:
    """By NumPy: standardized, projected on the strongest components of unit variance, nearest mean of the members."""
    audio = torch.randn(40, 1, 125, 80, generator=torch.Generator().manual_seed(2))
    units = SoundUnits([8])
    units.collect(audio)
    x = sound_patches(audio).double().numpy()
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    _, _, components = np.linalg.svd(z, full_matrices=False)
    points = z @ components[:16].T
    points /= np.sqrt((points**2).mean(axis=0))
    (found,) = units.of(audio)
    centres = np.stack([points[found.numpy() == unit].mean(axis=0) for unit in range(8)])
    distances = ((points[:, None] - centres) ** 2).sum(axis=2)
    # Lloyd's algorithm has converged: each point is in the cluster whose mean is nearest
    np.testing.assert_array_equal(distances.argmin(axis=1), found.numpy())


def test_units_do_not_depend_on_how_batches_are_cut_nor_on_what_comes_after() -> None:
    audio = sounds_of(torch.arange(26) % 4)
    whole, parts = SoundUnits([4]), SoundUnits([4])
    whole.collect(audio[:20])
    for part in audio.split(7):
        parts.collect(part)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_holds_what_was_collected_and_what_was_made() -> None:
    audio = sounds_of(torch.arange(20) % 4)
    whole, stopped, resumed = SoundUnits([4]), SoundUnits([4]), SoundUnits([4])
    whole.collect(audio)
    stopped.collect(audio[:9])
    resumed.load_state_dict(stopped.state_dict())
    assert not resumed.are_made
    resumed.collect(audio[9:])
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    again = SoundUnits([4])
    again.load_state_dict(resumed.state_dict())
    assert again.are_made
    assert torch.equal(again.of(audio)[0], whole.of(audio)[0])


def test_what_never_varies_tells_nothing_and_breaks_nothing() -> None:
    units = SoundUnits([2])
    audio = torch.zeros(10, 1, 125, 80)
    audio[::2, 0, :, :8] = 1.0  # all other bands are silent in all sounds
    units.collect(audio)
    (found,) = units.of(audio)
    assert same_partition(found, torch.arange(10) % 2)
    silent = SoundUnits([2])
    silent.collect(torch.zeros(10, 1, 125, 80))
    assert torch.isfinite(silent.centres).all()
    (of_noise,) = silent.of(torch.randn(3, 1, 125, 80))
    assert len(of_noise.unique()) == 1  # nothing was heard that could tell them apart


def test_what_makes_no_units_is_refused() -> None:
    for numbers in ([], [1], [4, 1]):
        with pytest.raises(ValueError, match="need at least one clustering, of 2 sound units or more, got"):
            SoundUnits(numbers)
    units = SoundUnits([2])
    units.collect(torch.zeros(3, 1, 125, 80))
    with pytest.raises(ValueError, match="no sound units yet: 3 of 10 sounds were collected"):
        units.of(torch.zeros(1, 1, 125, 80))


def small_model(**options: object) -> AudioVisualModel:
    return AudioVisualModel(*encoders(), hidden_dim=7, out_dim=5, **options).double()  # type: ignore[arg-type]


def test_the_loss_is_the_cross_entropy_of_both_clips_against_the_units_of_their_sound() -> None:
    model = small_model(sound_unit=SoundUnitOptions(weight=0.3, num_units=(2, 3)))
    inputs = make_inputs(8)
    first = model(*inputs)  # 8 of 15
    assert first["sound_unit_loss"].item() == 0
    first["loss"].backward()
    assert all(x.grad is not None for x in model.unit_classifiers.parameters())  # as several processes need
    model(*inputs)
    outputs = model(*inputs)
    assert model.sound_units is not None
    assert model.sound_units.are_made
    features = model.backbone["video"](torch.cat(inputs[:2])).detach().numpy()
    expected = 0.0
    for classifier, unit in zip(model.unit_classifiers, model.sound_units.of(inputs[2]), strict=True):
        logits = features @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()
        log_sum = np.log(np.exp(logits).sum(axis=1))
        of_unit = logits[np.arange(16), np.tile(unit.numpy(), 2)]
        expected += (log_sum - of_unit).mean() / 2
    assert outputs["sound_unit_loss"].item() == pytest.approx(expected, rel=1e-12)
    others = 0.5 * outputs["contrastive_loss"] + 0.5 * outputs["state_change_loss"]
    assert outputs["loss"].item() == pytest.approx(others.item() + 0.3 * expected, rel=1e-12)


def test_units_are_made_in_training_alone() -> None:
    model = small_model(sound_unit=SoundUnitOptions(weight=0.3, num_units=(2,))).eval()
    for _ in range(3):
        assert model(*make_inputs(8))["sound_unit_loss"].item() == 0
    assert model.sound_units is not None
    assert model.sound_units.num_collected == 0


def test_without_a_weight_the_model_is_the_papers() -> None:
    plain = set(small_model().state_dict())
    assert not any("unit" in key or "moment" in key for key in plain)
    added = set(
        small_model(
            sound_unit=SoundUnitOptions(weight=0.1, num_units=(2,)), moment_detection=MomentDetectionOptions(weight=0.1)
        ).state_dict()
    )
    assert {key.split(".")[0] for key in added - plain} == {"sound_units", "unit_classifiers", "mlp"}
    assert {key for key in added - plain if key.startswith("mlp")} == {
        f"mlp.moment.{place}.{kind}" for place in (0, 2) for kind in ("weight", "bias")
    }
