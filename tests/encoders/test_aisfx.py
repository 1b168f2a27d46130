"""aiSFX's encoder: the authors' network and weights, the spectrogram it asks for, files of weights, freezing."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.clips.spectrograms import MelSpectrogram
from earmark.clips.transforms import LogMel
from earmark.encoders import (
    AisfxCnn,
    Encoder,
    PannsCnn,
    R2Plus1D,
    SpecCNN9,
    WeightsError,
    find_weights,
    load_encoder,
    load_encoder_weights,
    new_encoder,
    save_encoder,
    spectrogram_for,
)
from earmark.encoders.published import PUBLISHED
from earmark.methods.replai import AudioVisualModel
from tests.helpers.reference_weights import load_reference_weights


def spectrograms(frames: int) -> Tensor:
    """Return the inputs of the reference, (2, 1, frames, 96) from 0 to 1."""
    values = np.random.RandomState(0).uniform(0, 1, (2, 1, frames, 96))
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="module")
def theirs(reference: Path) -> dict[str, Any]:
    """What the network of the package `aisfx` gives, with weights by their names and with its own."""
    values: dict[str, Any] = json.loads((reference / "aisfx.json").read_text())
    return values


@torch.no_grad()
def test_outputs_are_those_of_the_authors_network(theirs: dict[str, Any]) -> None:
    encoder = AisfxCnn().eval()
    load_reference_weights(encoder)
    found = encoder(spectrograms(24))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_686_144
    torch.testing.assert_close(found[:, ::16], torch.tensor(theirs["weights_by_name"]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_published_weights_give_the_authors_embedding(theirs: dict[str, Any]) -> None:
    try:
        path = find_weights("aisfx")
    except FileNotFoundError as error:
        pytest.skip(f"needs the published weights: {error}")
    encoder = load_encoder(path)
    assert (encoder.name, encoder.options, encoder.output_dim) == ("aisfx", {"width": 64}, 512)
    found = encoder(spectrograms(100))
    torch.testing.assert_close(found[:, ::16], torch.tensor(theirs["published_weights"]), rtol=1e-4, atol=1e-3)


def write_published(path: Path, encoder: AisfxCnn) -> None:
    """Write weights as the authors did: those of the whole network, and their data sets' names and numbers."""
    state = OrderedDict(encoder.state_dict())
    state["fc.0.0.weight"], state["fc.0.0.bias"] = torch.zeros(16, 32), torch.zeros(16)
    torch.save((state, {"prosfx": (np.int64(0), 78), "ucsMixed": (np.int64(1), 69)}), path)


def same(encoder: Encoder, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())


def test_a_file_like_the_published_one_is_read_without_its_classifiers(tmp_path: Path) -> None:
    trained, path = AisfxCnn(width=4), tmp_path / "checkpoint.pth"
    write_published(path, trained)
    encoder = load_encoder(path)
    assert (encoder.name, encoder.options) == ("aisfx", {"width": 4})
    assert same(encoder, trained.state_dict())
    assert "ignored: fc (2 tensors), what follows the weights (1 more)" in encoder.origin
    with pytest.raises(WeightsError, match=r"does not fit .*\(it looks like aisfx\(width=4\)\)"):
        load_encoder_weights(PannsCnn(10), path, kind="audio")
    with pytest.raises(WeightsError, match="holds no video encoder"):
        load_encoder(path, kind="video")


@pytest.mark.parametrize("content", [(), (3,), ([1], {}), ({}, {})])
def test_other_tuples_hold_no_weights(tmp_path: Path, content: tuple[Any, ...]) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="holds no weights by name"):
        load_encoder(tmp_path / "other.pth")


def test_an_exported_one_comes_back_with_its_spectrogram(tmp_path: Path) -> None:
    encoder = new_encoder("aisfx", width=4)
    save_encoder(encoder, tmp_path / "mine.safetensors")
    again = load_encoder(tmp_path / "mine.safetensors")
    assert same(again, encoder.state_dict())
    assert again.spectrogram == AisfxCnn.spectrogram


def installed(folder: Path) -> Path:
    """Write an installed package `aisfx` into a folder of packages, and return its file of weights."""
    (folder / "aisfx" / "models").mkdir(parents=True)
    (folder / "aisfx" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "aisfx-0.1.2.dist-info").mkdir()
    (folder / "aisfx-0.1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: aisfx\nVersion: 0.1.2\n")
    path = folder / "aisfx" / "models" / "checkpoint.pth"
    write_published(path, AisfxCnn(width=4))
    return path


def test_its_weights_are_found_in_the_installed_package_which_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = installed(tmp_path / "packages")
    mine = tmp_path / "mine.pth"
    mine.touch()
    monkeypatch.setenv("EARMARK_WEIGHTS", str(mine))  # such as those of another encoder
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    assert find_weights("aisfx") == path
    assert find_weights("aisfx", given=mine) == mine
    assert load_encoder("aisfx", width=4).origin.startswith(str(path))
    monkeypatch.undo()
    # not installed, but unpacked into the folder of weights
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    if PUBLISHED["aisfx"].installed() is None:
        assert find_weights("aisfx", folder=tmp_path / "packages") == path
        with pytest.raises(
            FileNotFoundError, match=r"aisfx/models/checkpoint\.pth .*CC BY 4\.0.*--no-deps aisfx==0\.1"
        ):
            find_weights("aisfx")


def test_each_encoder_gets_the_spectrogram_of_its_weights() -> None:
    assert isinstance(spectrogram_for(SpecCNN9(width=4), sample_rate=16000), LogMel)
    paper = spectrogram_for(PannsCnn(6, num_mels=80), sample_rate=16000)
    assert isinstance(paper, LogMel)
    assert paper.num_mels == 80
    for encoder in (AisfxCnn(width=4).eval(), PannsCnn(6).eval()):
        transform = spectrogram_for(encoder, sample_rate=16000)
        assert isinstance(transform, MelSpectrogram)
        assert transform.options == encoder.spectrogram
        with torch.no_grad():
            features = encoder(transform(torch.zeros(2, 32000, dtype=torch.int16)))
        assert features.shape == (2, encoder.output_dim)


def test_wrong_inputs_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        AisfxCnn(width=0)
    with pytest.raises(ValueError, match=r"\(B, 1, frames, 96\), got \(2, 1, 125, 80\)"):
        AisfxCnn(width=4)(torch.zeros(2, 1, 125, 80))
    with pytest.raises(ValueError, match="at least 8 frames"):
        AisfxCnn(width=4)(torch.zeros(2, 1, 7, 96))


def small_model() -> AudioVisualModel:
    return AudioVisualModel(R2Plus1D(10, width=2), AisfxCnn(width=2), hidden_dim=8, out_dim=4)


def test_it_trains_in_the_model_beside_a_video_encoder() -> None:
    model = small_model()
    clips = torch.randn(2, 2, 3, 4, 32, 32)
    model(clips[0], clips[1], torch.rand(2, 1, 20, 96))["loss"].backward()
    gradients = {name: p.grad for name, p in model.backbone["audio"].named_parameters()}
    assert not [name for name, grad in gradients.items() if grad is None or not grad.any()]  # nothing stands still


@pytest.mark.parametrize("recompute", [False, True])
def test_a_frozen_encoder_keeps_weights_and_statistics_while_the_rest_learns(recompute: bool) -> None:
    model = small_model()
    encoder = model.backbone["audio"]
    assert isinstance(encoder, Encoder)
    encoder.freeze()
    if recompute:
        encoder.recompute_activations()
    model.train()
    assert not any(module.training for module in encoder.modules())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    clips, sounds = torch.randn(2, 2, 3, 4, 32, 32), torch.rand(2, 1, 20, 96)
    for _ in range(2):
        optimizer.zero_grad()
        model(clips[0], clips[1], sounds)["loss"].backward()
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if name.startswith("backbone.audio.")]
    assert {"mlp.audio_clr.0.weight", "mlp.audio_aot.0.weight", "backbone.video.conv1.0.weight"} <= moved


def test_an_encoder_that_is_trained_again_is_not_frozen() -> None:
    encoder = SpecCNN9(width=4)
    assert not encoder.frozen
    encoder.freeze()
    assert encoder.frozen
    assert not encoder.train().block1.bn1.training
    encoder.requires_grad_(True)  # as fine-tuning does to its copy
    assert encoder.train().block1.bn1.training
