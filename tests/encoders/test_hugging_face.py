"""Encoders of Hugging Face transformers, with tiny random models: what they take, give, load and refuse."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark.encoders import Encoder, HuggingFaceAudio, HuggingFaceVideo, new_encoder
from earmark.encoders.weights import WeightsError, load_encoder, save_encoder

transformers = pytest.importorskip("transformers", reason="needs earmark[hf]")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
VIDEOMAE = {"model_type": "videomae", **TINY, "intermediate_size": 32, "image_size": 32, "num_frames": 4}
VJEPA2 = {
    "model_type": "vjepa2",
    **TINY,
    "crop_size": 32,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
AST = {
    "model_type": "audio-spectrogram-transformer",
    **TINY,
    "intermediate_size": 32,
    "max_length": 125,
    "num_mel_bins": 80,
}
INPUTS = {"videomae": (2, 3, 4, 32, 32), "vjepa2": (2, 3, 4, 32, 32), "audio-spectrogram-transformer": (2, 1, 125, 80)}
CONFIGS = pytest.mark.parametrize(
    ("name", "config"),
    [("hf_video", VIDEOMAE), ("hf_video", VJEPA2), ("hf_audio", AST)],
    ids=lambda value: str(value)[:40],
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked for"))


def inputs_of(config: dict[str, Any]) -> torch.Tensor:
    return torch.randn(INPUTS[config["model_type"]])


def published(folder: Path, config: dict[str, Any]) -> Any:
    """Write a folder as the Hub has it, and return its model."""
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config))
    model.save_pretrained(folder)
    return model.eval()


@CONFIGS
def test_features_have_the_hidden_size_and_a_gradient_for_every_weight(name: str, config: dict[str, Any]) -> None:
    encoder = new_encoder(name, config=config)
    features = encoder(inputs_of(config))
    assert features.shape == (2, encoder.output_dim) == (2, 16)
    features.pow(2).sum().backward()
    # Nothing that gets no gradient is carried along, such as V-JEPA 2's predictor: DDP would stop at it.
    assert [key for key, parameter in encoder.named_parameters() if parameter.grad is None] == []


@CONFIGS
@torch.no_grad()
def test_features_are_those_of_the_model_that_was_saved(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    model = published(tmp_path, config)
    encoder = load_encoder(name, model=tmp_path).eval()
    inputs = inputs_of(config)
    if name == "hf_audio":
        expected = model(inputs[:, 0]).pooler_output
    elif config is VJEPA2:
        expected = model.get_vision_features(inputs.transpose(1, 2)).mean(dim=1)
    else:
        expected = model(inputs.transpose(1, 2)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(encoder(inputs), expected)
    assert str(tmp_path) in encoder.origin
    # Without pretrained, the same model with other weights.
    assert not torch.equal(load_encoder(name, model=tmp_path, pretrained=False).eval()(inputs), expected)


@CONFIGS
@torch.no_grad()
def test_an_exported_encoder_needs_neither_the_folder_nor_the_hub(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    encoder = new_encoder(name, config=config).eval()
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    loaded = load_encoder(tmp_path / "encoder.safetensors").eval()
    inputs = inputs_of(config)
    assert torch.equal(loaded(inputs), encoder(inputs))
    assert repr(loaded) == repr(encoder)


@CONFIGS
def test_initialise_draws_other_weights_of_the_same_scale(name: str, config: dict[str, Any]) -> None:
    encoder = new_encoder(name, config=config)
    before = {key: value.clone() for key, value in encoder.named_parameters()}
    encoder.initialise()
    changed = [key for key, value in encoder.named_parameters() if not torch.equal(value, before[key])]
    assert any("layer" in key for key in changed)
    for key in changed:
        assert encoder.get_parameter(key).std().item() == pytest.approx(before[key].std().item(), rel=0.5), key


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (VIDEOMAE, (1, 3, 4, 48, 48), "takes 32 x 32 pixels, got"),
        (VIDEOMAE, (1, 3, 8, 32, 32), "takes clips of 4 frames, got 8"),
        (VJEPA2, (1, 3, 4, 48, 48), "takes 32 x 32 pixels, got"),
        (VJEPA2, (1, 3, 5, 32, 32), "a multiple of 2 frames, got 5"),
        (VJEPA2, (1, 4, 3, 32, 32), r"\(B, 3, T, H, W\)"),
        (AST, (1, 1, 1024, 128), "takes 125 frames of 80 mel bins, got 1024 of 128"),
        (AST, (1, 125, 80), r"\(B, 1, frames, F\)"),
    ],
)
def test_inputs_of_another_size_are_refused(config: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    encoder: Encoder = HuggingFaceAudio(config=config) if config is AST else HuggingFaceVideo(config=config)
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(shape))


def test_models_that_lack_weights_or_are_unknown_are_refused(tmp_path: Path) -> None:
    published(tmp_path, {**VIDEOMAE, "num_hidden_layers": 1})
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    with pytest.raises(ValueError, match=r"lacks \d+ of the encoder's weights, such as encoder\.layer\.1"):
        load_encoder("hf_video", model=tmp_path)
    with pytest.raises(ValueError, match="no_such: not a model that transformers knows"):
        HuggingFaceVideo(config={"model_type": "no_such"})
    with pytest.raises(ValueError, match="either model"):
        HuggingFaceVideo()
    with pytest.raises(ValueError, match="need model"):
        HuggingFaceVideo(config=VIDEOMAE, pretrained=True)


def test_a_configuration_cannot_name_attention_code_or_other_private_values(tmp_path: Path) -> None:
    config = {**VIDEOMAE, "attn_implementation": "someone/kernels", "_attn_implementation": "someone/kernels"}
    assert HuggingFaceVideo(config=config).config._attn_implementation != "someone/kernels"
    path = tmp_path / "encoder.safetensors"
    save_encoder(new_encoder("hf_video", config=VIDEOMAE), path)
    description = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(description.replace('"videomae"', '"no_such"'))
    with pytest.raises(WeightsError, match=r"encoder\.safetensors: no_such: not a model"):
        load_encoder(path)


def test_without_transformers_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"earmark\[hf\]"):
        HuggingFaceVideo(config=VIDEOMAE)
