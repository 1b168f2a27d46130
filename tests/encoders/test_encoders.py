"""The encoders: published names and sizes, the original's numbers, other depths and widths."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earmark.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS, Encoder, R2Plus1D, SpecCNN9
from tests.helpers.reference_weights import load_reference_weights

ENCODERS = {
    "avid_r2plus1d_18": VIDEO_ENCODERS["avid_r2plus1d_18"],
    "avid_spec_cnn_9": AUDIO_ENCODERS["avid_spec_cnn_9"],
}
# The stages as the reference calls them, and here.
STAGES = {
    "avid_r2plus1d_18": {stage: stage for stage in ("conv1", "conv2x", "conv3x", "conv4x", "conv5x")},
    "avid_spec_cnn_9": {"conv2x": "block1", "conv3x": "block2", "conv4x": "block3", "conv5x": "block4"},
}
INPUTS = {"avid_r2plus1d_18": "in_video", "avid_spec_cnn_9": "in_audio"}


def reference_encoder(name: str) -> Encoder:
    encoder = ENCODERS[name]()
    load_reference_weights(encoder)
    return encoder.eval()


@pytest.fixture(scope="module")
def arrays(reference: Path) -> Any:
    return np.load(reference / "encoders.npz")


@pytest.mark.parametrize("name", ENCODERS)
def test_names_shapes_dtypes_and_their_order_are_the_published_ones(name: str, reference: Path) -> None:
    expected = json.loads((reference / "encoders.json").read_text())[name]
    encoder = ENCODERS[name]()
    state = encoder.state_dict()
    assert [[key, list(value.shape), str(value.dtype)] for key, value in state.items()] == expected["keys"]
    assert [key for key, _ in encoder.named_parameters()] == expected["param_names"]
    assert sum(p.numel() for p in encoder.parameters()) == expected["n_params"]
    assert sum(b.numel() for b in encoder.buffers()) == expected["n_buffers"]
    assert len(state) == expected["n_keys"]
    assert encoder.output_dim == expected["output_dim"]
    assert set(expected) == {"keys", "param_names", "n_params", "n_buffers", "n_keys", "output_dim"}


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_float32_outputs_are_the_originals(name: str, arrays: Any) -> None:
    encoder = reference_encoder(name)
    inputs, expected = torch.from_numpy(arrays[INPUTS[name]]), arrays[f"{name}__out"]
    outputs = encoder(inputs) if name == "avid_r2plus1d_18" else encoder.forward_features(inputs)
    np.testing.assert_allclose(outputs.view(expected.shape).numpy(), expected, rtol=1e-4, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_float64_features_and_stage_means_are_the_originals(name: str, arrays: Any) -> None:
    encoder = reference_encoder(name).double()
    means = {}
    for expected_name, stage in STAGES[name].items():
        encoder.get_submodule(stage).register_forward_hook(
            lambda _module, _inputs, output, key=f"{name}__{expected_name}_f64_chmean": means.update(
                {key: output.flatten(2).mean(2)}
            )
        )
    features = encoder.forward_features(torch.from_numpy(arrays[INPUTS[name]]).double())
    pooled = features.flatten(2).amax(2)
    outputs = {**means, f"{name}__pool_f64": pooled}
    outputs[f"{name}__out_f64"] = pooled if name == "avid_r2plus1d_18" else features
    for key, output in outputs.items():
        expected = arrays[key]
        np.testing.assert_allclose(
            output.view(expected.shape).numpy(), expected, rtol=1e-9, atol=1e-12 * expected.max(), err_msg=key
        )
    # Every array of the file is read here, or by the float32 test.
    assert {key for key in arrays.files if key.startswith(name)} == {*outputs, f"{name}__out"}


def test_no_reference_array_is_forgotten(arrays: Any) -> None:
    assert {key for key in arrays.files if not key.startswith(tuple(ENCODERS))} == set(INPUTS.values())


@pytest.mark.parametrize(("depth", "blocks"), [(10, 4), (18, 8), (34, 16)])
@torch.no_grad()
def test_each_depth_has_its_blocks_and_pools_to_eight_widths(depth: int, blocks: int) -> None:
    encoder = R2Plus1D(depth, width=4).eval()
    assert sum(key.endswith("out_bn.weight") for key in encoder.state_dict()) == blocks
    clips = torch.randn(2, 3, 8, 64, 48)
    assert encoder.forward_features(clips).shape == (2, 32, 1, 2, 2)
    assert encoder(clips).shape == (2, encoder.output_dim) == (2, 32)


def test_depth_10_names_the_only_block_of_a_stage_without_an_index() -> None:
    assert "conv2x.spt_conv1.weight" in R2Plus1D(10, width=4).state_dict()
    assert "conv2x.0.spt_conv1.weight" in R2Plus1D(18, width=4).state_dict()


@torch.no_grad()
def test_the_pool_is_the_global_maximum() -> None:
    encoder = SpecCNN9(width=2).eval()
    spectrograms = torch.randn(3, 1, 125, 80)
    features = encoder.forward_features(spectrograms)
    assert torch.equal(encoder(spectrograms), features.amax(dim=(2, 3)))


@torch.no_grad()
def test_any_length_and_size_of_clip_is_encoded() -> None:
    encoder = R2Plus1D(10, width=2).eval()
    assert encoder(torch.randn(1, 3, 1, 32, 32)).shape == (1, 16)
    assert encoder(torch.randn(1, 3, 5, 71, 33)).shape == (1, 16)


@torch.no_grad()
def test_initial_weights_keep_the_scale_of_the_signal() -> None:
    encoder = R2Plus1D(18, width=16)
    for name, weight in encoder.named_parameters():
        if weight.ndim == 5 and weight.numel() > 5000:
            fan_in = weight[0].numel()
            assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), name
    # Without training, in eval mode, batch norm does nothing: the weights alone keep the signal.
    features = encoder.eval().forward_features(torch.randn(2, 3, 8, 64, 64))
    assert 0.1 < features.std() < 100


def test_wrong_inputs_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="depth must be one of"):
        R2Plus1D(50)
    with pytest.raises(ValueError, match="width"):
        R2Plus1D(18, width=0)
    with pytest.raises(ValueError, match="width"):
        SpecCNN9(width=0)
    with pytest.raises(ValueError, match=r"\(B, 3, T, H, W\), got \(1, 8, 3, 16, 16\)"):
        R2Plus1D(10, width=2)(torch.zeros(1, 8, 3, 16, 16))
    with pytest.raises(ValueError, match=r"\(B, 1, frames, F\)"):
        SpecCNN9(width=2)(torch.zeros(125, 80))
