"""Activations computed again: the numbers, buffers and random draws of a pass that keeps them, and less kept."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.encoders import Encoder, R2Plus1D, SpecCNN9, new_encoder
from earmark.encoders.recomputation import recomputed

SHAPES = {
    "avid_r2plus1d_10": (2, 3, 4, 32, 32),
    "avid_spec_cnn_9": (2, 1, 40, 32),
    "cnn6": (2, 1, 64, 64),
    "r2plus1d_18": (2, 3, 4, 16, 16),
    "s3d": (2, 3, 5, 32, 32),
    "mvit_v2_s": (1, 3, 16, 32, 32),
    "swin3d_t": (1, 3, 4, 32, 32),
}


def encoder_of(name: str) -> Encoder:
    torch.manual_seed(0)
    if name.startswith("avid"):
        return new_encoder(name, width=4)
    if name.startswith("cnn"):
        return new_encoder(name, num_mels=64)
    pytest.importorskip("torchvision", exc_type=Exception, reason="torchvision cannot be imported here")
    return new_encoder(name)


def after_a_step(encoder: Encoder, x: Tensor) -> list[Tensor]:
    """Call the encoder twice, as for the clips before and after, and return all that a step leaves behind."""
    torch.manual_seed(1)
    (encoder(x) * encoder(x.flip(0))).sum().backward()
    gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    return [*gradients, *encoder.buffers(), torch.rand(1)]


@pytest.mark.parametrize("name", list(SHAPES))
def test_gradients_buffers_and_random_draws_are_those_of_a_pass_that_keeps_all(name: str) -> None:
    kept = encoder_of(name)
    again = copy.deepcopy(kept)
    again.recompute_activations()
    x = torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(2))
    results = after_a_step(kept, x), after_a_step(again, x)
    assert len(results[0]) > 10
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def kept_bytes(encoder: Encoder, x: Tensor) -> int:
    """Return how much a forward pass keeps for the backward pass, the weights included."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encoder(x)
    return sum(kept.values())


@pytest.mark.parametrize(
    ("encoder", "shape", "share"),
    [(R2Plus1D(18, width=4), (2, 3, 8, 64, 64), 0.3), (SpecCNN9(width=4), (8, 1, 125, 80), 0.5)],
)
def test_much_less_is_kept(encoder: Encoder, shape: tuple[int, ...], share: float) -> None:
    x = torch.randn(shape)
    before = kept_bytes(encoder, x)
    encoder.recompute_activations()
    assert kept_bytes(encoder, x) < share * before


def test_nothing_is_computed_again_where_no_gradient_is_wanted() -> None:
    encoder = R2Plus1D(10, width=4)
    encoder.recompute_activations()
    calls: list[Any] = []
    encoder.conv1.register_forward_hook(lambda *_: calls.append(None))
    with torch.no_grad():
        encoder(torch.randn(2, 3, 2, 32, 32))
    assert len(calls) == 1


def test_dropout_inside_a_stage_is_drawn_once() -> None:
    stage = nn.Sequential(nn.Linear(50, 50), nn.Dropout(0.5))
    x = torch.randn(4, 50, requires_grad=True)
    result = recomputed(stage, x)
    torch.rand(7)  # others draw in between
    (gradient,) = torch.autograd.grad(result.sum(), x)
    kept = (result != 0).float() * 2
    linear = stage[0]
    assert isinstance(linear, nn.Linear)
    torch.testing.assert_close(gradient, kept @ linear.weight)


@pytest.mark.slow
def test_compiled_it_keeps_numbers_and_buffers() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    kept = R2Plus1D(10, width=4)
    again = copy.deepcopy(kept)
    again.recompute_activations()
    again.compile(dynamic=False)
    x = torch.randn(4, 3, 4, 64, 64)
    for encoder in (kept, again):
        encoder(x).square().mean().backward()
    for one, other in zip(again.buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    gradients = [torch.cat([p.grad.flatten() for p in e.parameters() if p.grad is not None]) for e in (kept, again)]
    assert torch.linalg.vector_norm(gradients[1] - gradients[0]) < 1e-3 * torch.linalg.vector_norm(gradients[0])
    torch._dynamo.reset()
