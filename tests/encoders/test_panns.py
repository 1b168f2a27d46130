"""PANNs' encoders: published sizes and names, the forward pass beside a plain one, what is refused."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.clips.transforms import LogMel
from earmark.encoders import AUDIO_ENCODERS, PannsCnn, R2Plus1D
from earmark.methods.replai import AudioVisualModel
from tests.helpers.reference_weights import load_reference_weights

NUM_CLASSES = 527  # of AudioSet


@pytest.mark.parametrize(("depth", "published"), [(6, 4_837_455), (10, 5_219_279), (14, 80_753_615)])
def test_with_a_classifier_the_number_of_parameters_is_the_published_one(depth: int, published: int) -> None:
    encoder = PannsCnn(depth)
    classifier = (encoder.output_dim + 1) * NUM_CLASSES
    assert sum(parameter.numel() for parameter in encoder.parameters()) + classifier == published


@pytest.mark.parametrize(("depth", "blocks", "convs"), [(6, 4, 1), (10, 4, 2), (14, 6, 2)])
def test_names_are_the_published_ones(depth: int, blocks: int, convs: int) -> None:
    norms = ["bn0"] + [f"conv_block{i}.bn{j}" for i in range(1, blocks + 1) for j in range(1, convs + 1)]
    expected = {f"conv_block{i}.conv{j}.weight" for i in range(1, blocks + 1) for j in range(1, convs + 1)}
    expected |= {f"{norm}.{part}" for norm in norms for part in ("weight", "bias", "running_mean", "running_var")}
    expected |= {f"{norm}.num_batches_tracked" for norm in norms} | {"fc1.weight", "fc1.bias"}
    assert set(PannsCnn(depth).state_dict()) == expected


def plain_forward(state: dict[str, Tensor], x: Tensor, *, blocks: int, convs: int, pools: int) -> Tensor:
    """The network written out by its formulas, in evaluation mode."""

    def norm(x: Tensor, name: str, axis: int) -> Tensor:
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        mean, var, scale, shift = (
            state[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5) ** 0.5 * scale + shift

    x = norm(x, "bn0", 3)  # of mel bins
    for i in range(1, blocks + 1):
        for j in range(1, convs + 1):
            weight = state[f"conv_block{i}.conv{j}.weight"]
            x = norm(F.conv2d(x, weight, padding=weight.shape[-1] // 2), f"conv_block{i}.bn{j}", 1).clamp_min(0)
        if i <= pools:
            rows, columns = x.shape[2] // 2, x.shape[3] // 2
            x = x[:, :, : 2 * rows, : 2 * columns].reshape(*x.shape[:2], rows, 2, columns, 2).mean(dim=(3, 5))
    x = x.mean(dim=3)
    x = x.max(dim=2).values + x.mean(dim=2)
    return (x @ state["fc1.weight"].T + state["fc1.bias"]).clamp_min(0)


@pytest.mark.parametrize(("depth", "blocks", "convs", "pools"), [(6, 4, 1, 4), (10, 4, 2, 4), (14, 6, 2, 5)])
@torch.no_grad()
def test_outputs_are_those_of_the_network_written_out(depth: int, blocks: int, convs: int, pools: int) -> None:
    encoder = PannsCnn(depth, num_mels=38)
    load_reference_weights(encoder)
    encoder = encoder.double().eval()
    spectrograms = torch.randn(2, 1, 43, 38, dtype=torch.float64)
    expected = plain_forward(encoder.state_dict(), spectrograms, blocks=blocks, convs=convs, pools=pools)
    assert expected.max() > 0
    torch.testing.assert_close(encoder(spectrograms), expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_spectrograms_of_this_project_are_encoded_and_dropout_is_for_training_only() -> None:
    encoder = AUDIO_ENCODERS["cnn6"](num_mels=80)
    spectrograms = LogMel()(torch.randint(-3000, 3000, (2, 32000), dtype=torch.int16))
    assert not torch.equal(encoder(spectrograms), encoder(spectrograms))
    encoder.eval()
    assert torch.equal(encoder(spectrograms), encoder(spectrograms))
    assert encoder(spectrograms).shape == (2, encoder.output_dim)


def test_it_trains_in_the_model_beside_a_video_encoder() -> None:
    model = AudioVisualModel(R2Plus1D(10, width=2), PannsCnn(6, num_mels=80), hidden_dim=8, out_dim=4)
    clips = torch.randn(2, 2, 3, 4, 32, 32)
    model(clips[0], clips[1], torch.randn(2, 1, 125, 80))["loss"].backward()
    gradients = {name: p.grad for name, p in model.backbone["audio"].named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())
    assert not [name for name, grad in gradients.items() if not grad.any()]  # nothing stands still


def test_initial_weights_are_xavier_uniform() -> None:
    encoder = PannsCnn(6)
    weight = encoder.get_parameter("conv_block3.conv1.weight")
    bound = (6 / (25 * (128 + 256))) ** 0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not encoder.fc1.bias.any()


def test_wrong_inputs_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="depth must be one of"):
        PannsCnn(8)
    with pytest.raises(ValueError, match="num_mels"):
        PannsCnn(6, num_mels=0)
    with pytest.raises(ValueError, match=r"\(B, 1, frames, 64\), got \(2, 1, 125, 80\)"):
        PannsCnn(6)(torch.zeros(2, 1, 125, 80))
    with pytest.raises(ValueError, match="at least 32 frames and bins"):
        PannsCnn(14, num_mels=64)(torch.zeros(2, 1, 31, 64))
