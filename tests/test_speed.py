"""Layout, compiling, fused updates: other speeds, the same numbers."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods import AVID, XDC, SimCLRVideo, Supervised
from earmark.model import AudioVisualModel
from earmark.optim import sgd
from earmark.speed import PlanarConv3d, compile_encoders, use_channels_last, use_planar_convolutions


def small_encoders() -> tuple[R2Plus1D, SpecCNN9]:
    torch.manual_seed(1)
    return R2Plus1D(10, width=4), SpecCNN9(width=4)


def methods() -> dict[str, nn.Module]:
    built: dict[str, nn.Module] = {
        "replai": AudioVisualModel(*small_encoders(), hidden_dim=16, out_dim=8, queue_size=4),
        "avid": AVID(*small_encoders(), num_samples=6, num_negatives=9, hidden_dim=16, out_dim=8),
        "xdc": XDC(*small_encoders(), num_samples=6, num_clusters=2),
        "simclr_video": SimCLRVideo(small_encoders()[0], hidden_dim=16, out_dim=8),
        "supervised": Supervised(small_encoders()[0], num_classes={"verb": 3}),
    }
    for name in ("video_cluster", "audio_cluster"):
        getattr(built["xdc"], name).copy_(torch.arange(6) % 2)
    return built


ALL = pytest.mark.parametrize("name", list(methods()))


def step(
    model: nn.Module, device: str = "cpu", dtype: torch.dtype = torch.float32, num: int = 4
) -> tuple[Tensor, Tensor]:
    """Return the loss of a step and its gradient in all weights."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(2)
    before, after = torch.randn(2, num, 3, 4, 32, 32, generator=generator).to(device, dtype)
    audio = torch.randn(num, 1, 40, 32, generator=generator).to(device, dtype)
    index = torch.tensor([3, 0, 5, 1], device=device)[:num]
    loss = model(before, after, audio, index=index, labels={"verb": index % 3})["loss"]
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@ALL
@pytest.mark.parametrize("planar", [False, True])
def test_another_layout_and_planar_convolutions_give_the_same_loss_gradient_and_names(name: str, planar: bool) -> None:
    """In float64, so that only rounding can tell them apart; in float32 the order of sums shows at about 1e-5."""
    model = methods()[name].double()
    other = copy.deepcopy(model)
    use_channels_last(other)
    if planar:
        use_planar_convolutions(other)
    weight = other.get_parameter("backbone.video.conv2x.spt_conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not weight.is_contiguous()
    assert other.state_dict().keys() == model.state_dict().keys()
    for one, two in zip(step(model, dtype=torch.float64), step(other, dtype=torch.float64), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-10)


PLANAR = [
    {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1)},
    {"kernel_size": (1, 3, 2), "padding": (0, 0, 1), "bias": False, "groups": 2},
    {"kernel_size": (3, 1, 1), "stride": (2, 1, 1), "padding": (1, 0, 0)},
    {"kernel_size": (2, 1, 1), "bias": False, "groups": 2},
    {"kernel_size": 1},
]
NOT_PLANAR = [
    {"kernel_size": 3},
    {"kernel_size": (1, 3, 3), "stride": 2},
    {"kernel_size": (3, 1, 1), "stride": (1, 2, 2)},
    {"kernel_size": (3, 1, 1), "padding": (1, 0, 1)},
    {"kernel_size": (1, 3, 3), "dilation": 2},
    {"kernel_size": (1, 3, 3), "padding": "same"},
    {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "padding_mode": "replicate"},
]


@pytest.mark.parametrize("options", PLANAR + NOT_PLANAR)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_planar_convolution_equals_the_3d_one(options: dict[str, Any], channels_last: bool) -> None:
    layer = nn.Conv3d(4, 6, **options).double()
    planar = copy.deepcopy(layer)
    use_planar_convolutions(planar)
    assert (type(planar) is PlanarConv3d) == (options in PLANAR)
    results = []
    for module in (layer, planar):
        if channels_last:
            use_channels_last(module)
        x = torch.randn(2, 4, 5, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y = module(x.requires_grad_())
        y.square().sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in module.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


def test_channels_last_stays_through_load_and_through_the_network() -> None:
    encoder = R2Plus1D(10, width=4)
    use_channels_last(encoder)
    use_planar_convolutions(encoder)
    encoder.load_state_dict(R2Plus1D(10, width=4).state_dict())
    assert encoder.conv2x.spt_conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 3, 8, 64, 64)
    for stage in (encoder.conv1, encoder.conv2x, encoder.conv3x, encoder.conv4x):
        x = stage(x)
        assert x.is_contiguous(memory_format=torch.channels_last_3d)
        assert not x.is_contiguous()


def test_a_fused_update_is_the_same_update() -> None:
    weights = []
    for fused in (False, True):
        model = methods()["replai"]
        optimizer = sgd(model.parameters(), lr=0.05, fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            step(model)
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert not torch.equal(weights[0], torch.cat([p.flatten() for p in methods()["replai"].parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)


@pytest.fixture
def _no_compiler_cache() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler_cache")
@ALL
def test_compiled_encoders_agree_with_eager_ones(name: str) -> None:
    """Float32: the loss to 1e-4, the gradient to 1e-3 of its length."""
    model = methods()[name]
    other = copy.deepcopy(model)
    use_channels_last(other)
    use_planar_convolutions(other)
    compile_encoders(other)
    assert other.state_dict().keys() == model.state_dict().keys()
    (loss, gradient), (compiled_loss, compiled_gradient) = step(model), step(other)
    assert compiled_loss.item() == pytest.approx(loss.item(), rel=1e-4)
    assert torch.linalg.vector_norm(compiled_gradient - gradient) < 1e-3 * torch.linalg.vector_norm(gradient)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler_cache")
def test_compiled_encoders_take_batches_of_several_sizes() -> None:
    model = methods()["supervised"]
    other = copy.deepcopy(model)
    use_planar_convolutions(other)
    compile_encoders(other)
    for num in (4, 2):
        assert step(other, num=num)[0].item() == pytest.approx(step(model, num=num)[0].item(), rel=1e-4)


@pytest.mark.gpu
@ALL
def test_bfloat16_channels_last_and_compiled_on_a_gpu_agree_with_float32(name: str) -> None:
    """The loss to 10 %, the direction of the gradient to 25 degrees: 8 bits of mantissa through 20 layers."""
    results: list[Any] = []
    for fast in (False, True):
        model = methods()[name].cuda()
        if fast:
            use_channels_last(model)
            use_planar_convolutions(model)
            compile_encoders(model)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=fast):
            results.append(step(model, device="cuda"))
    (loss, gradient), (fast_loss, fast_gradient) = results
    assert fast_loss.item() == pytest.approx(loss.item(), rel=0.1)
    assert torch.cosine_similarity(gradient, fast_gradient.float(), dim=0) > 0.9
