"""The first convolution, folded into a 2-D one, and the pool over space alone: the numbers of PyTorch's 3-D ones."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from earmark.encoders import R2Plus1D
from earmark.encoders.folded_convolution import FoldedConv3d, SpatialMaxPool3d, folded_conv3d

STEM: Any = {"kernel_size": (3, 7, 7), "stride": (1, 2, 2), "padding": (1, 3, 3), "bias": False}

# (shape of the input, shape of the kernel, stride, padding)
CASES = [
    ((2, 3, 8, 32, 30), (5, 3, 3, 7, 7), 2, (1, 3, 3)),
    ((1, 3, 1, 9, 10), (5, 3, 3, 7, 7), 2, (1, 3, 3)),
    ((2, 3, 4, 11, 13), (5, 3, 3, 7, 7), 2, (1, 3, 3)),
    ((2, 3, 2, 1, 1), (5, 3, 3, 7, 7), 2, (1, 3, 3)),
    ((2, 1, 3, 10, 9), (4, 1, 1, 7, 7), 2, (0, 3, 3)),
    ((2, 2, 3, 6, 7), (3, 2, 3, 3, 5), 2, (1, 1, 2)),
    ((2, 3, 3, 10, 11), (3, 3, 2, 1, 2), 3, (0, 0, 0)),  # the last pixels are in no kernel's reach
    ((2, 3, 3, 9, 9), (3, 3, 1, 7, 7), 4, (0, 3, 3)),
    ((2, 2, 3, 5, 5), (3, 2, 3, 3, 3), 1, (1, 1, 1)),
]


def with_gradients(result: Tensor, *of: Tensor) -> list[Tensor]:
    seed = torch.randn(result.shape, generator=torch.Generator().manual_seed(3)).to(result)
    return [result.detach(), *torch.autograd.grad(result, of, seed)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), CASES)
def test_a_folded_convolution_has_values_and_gradients_of_the_plain_one(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int,
    padding: tuple[int, int, int],
    channels_last: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x, weight = (
            torch.randn(size, generator=generator, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
            for size in (shape, kernel)
        )
        plain = with_gradients(F.conv3d(x, weight, stride=(1, stride, stride), padding=padding), x, weight)
        folded = with_gradients(folded_conv3d(x, weight, stride=stride, padding=padding), x, weight)
        for one, other in zip(folded, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def test_gradients_of_gradients_are_right() -> None:
    x, weight = (
        torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((1, 1, 2, 4, 3), (1, 1, 3, 3, 3))
    )

    def folded(x: Tensor, weight: Tensor) -> Tensor:
        return folded_conv3d(x, weight, stride=2, padding=(1, 1, 1))

    assert torch.autograd.gradcheck(folded, (x, weight))
    assert torch.autograd.gradgradcheck(folded, (x, weight))


def test_no_gradient_is_computed_for_an_input_that_needs_none() -> None:
    weight = torch.randn(4, 3, 3, 7, 7, requires_grad=True)
    result = folded_conv3d(torch.randn(2, 3, 4, 16, 16), weight, stride=2, padding=(1, 3, 3))
    node = result.grad_fn
    while node is not None and "Convolution" not in node.name():
        node = node.next_functions[0][0]
    assert node is not None
    of_input, of_weight = node.next_functions[:2]
    assert of_input[0] is None
    assert of_weight[0] is not None


def test_its_result_has_channels_last_without_a_copy() -> None:
    result = folded_conv3d(torch.randn(2, 3, 4, 16, 16), torch.randn(4, 3, 3, 7, 7), stride=2, padding=(1, 3, 3))
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    assert not result.is_contiguous()
    pooled = SpatialMaxPool3d(3, 2, 1)(result)
    assert pooled.is_contiguous(memory_format=torch.channels_last_3d)
    assert not pooled.is_contiguous()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("shape", [(2, 4, 3, 8, 8), (1, 4, 1, 7, 9), (2, 1, 3, 1, 5)])
def test_a_pool_over_space_has_values_and_gradients_of_the_3d_one(
    layout: torch.memory_format, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpatialMaxPool3d, "_pays", lambda self, x: True)
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    plain = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    for one, other in zip(with_gradients(SpatialMaxPool3d(3, 2, 1)(x), x), with_gradients(plain(x), x), strict=True):
        assert torch.equal(one, other)


# --- the whole stem, as a GPU computes it ---


@pytest.fixture
def _folding_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FoldedConv3d, "_pays", lambda self, x: True)
    monkeypatch.setattr(SpatialMaxPool3d, "_pays", lambda self, x: True)


def stems(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """Return the stem of the encoder, and the same of PyTorch's own modules."""
    torch.manual_seed(1)
    stem = R2Plus1D(10, width=4).conv1.to(dtype)
    plain = nn.Sequential(
        nn.Conv3d(3, 4, **STEM), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    ).to(dtype)
    plain.load_state_dict(stem.state_dict())  # which has the very names
    return stem, plain


def of_stem(stem: nn.Module, x: Tensor) -> list[Tensor]:
    stem.zero_grad()
    result = stem(x)
    result.square().sum().backward()
    gradients = [parameter.grad for parameter in stem.parameters() if parameter.grad is not None]
    return [result.detach(), *gradients, *(buffer.clone() for buffer in stem.buffers())]


@pytest.mark.usefixtures("_folding_on_the_cpu")
@pytest.mark.parametrize("training", [True, False])
def test_a_folded_stem_trains_as_the_plain_one_with_its_statistics(training: bool) -> None:
    stem, plain = stems()
    for module in (stem, plain):
        module.train(training)
    for num_frames, size in ((4, 16), (1, 15)):
        x = torch.randn(2, 3, num_frames, size, size + 1, dtype=torch.float64)
        for one, other in zip(of_stem(stem, x), of_stem(plain, x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert int(stem.get_buffer("1.num_batches_tracked")) == 2 * training


@pytest.mark.usefixtures("_folding_on_the_cpu")
def test_hooks_deep_copies_and_deterministic_mode_see_a_folded_stem_as_any_other() -> None:
    stem, plain = stems(torch.float32)
    seen: list[tuple[int, ...]] = []
    for module in stem.children():
        module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    torch.use_deterministic_algorithms(True)
    try:
        x = torch.randn(2, 3, 4, 16, 16)
        torch.testing.assert_close(copy.deepcopy(stem)(x), plain(x), rtol=1e-5, atol=1e-5)
        assert of_stem(stem, x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen[-4:] == [(2, 4, 4, 8, 8)] * 3 + [(2, 4, 4, 4, 4)]


@pytest.mark.usefixtures("_folding_on_the_cpu")
def test_a_folded_stem_follows_autocast() -> None:
    stem, plain = stems(torch.float32)
    x = torch.randn(2, 3, 4, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        folded, usual = stem.get_submodule("0")(x), plain.get_submodule("0")(x)
    assert folded.dtype is usual.dtype is torch.bfloat16
    torch.testing.assert_close(folded, usual, rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("_folding_on_the_cpu")
@pytest.mark.parametrize(
    "change",
    [
        {"stride": (2, 2, 2)},
        {"stride": (1, 2, 1)},
        {"stride": (1, 1, 1)},
        {"dilation": (1, 2, 2)},
        {"padding": (0, 2, 1)},
    ],
)
def test_a_stem_that_was_changed_computes_what_it_says(change: dict[str, tuple[int, int, int]]) -> None:
    layer = FoldedConv3d(3, 4, **STEM)
    plain = nn.Conv3d(3, 4, **(STEM | change))
    plain.load_state_dict(layer.state_dict())
    for name, value in change.items():
        setattr(layer, name, value)
    x = torch.randn(2, 3, 4, 17, 16)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_folding_on_the_cpu")
@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"padding": "same", "stride": 1},
        {"padding_mode": "circular"},
        {"padding_mode": "replicate"},
    ],
)
def test_a_convolution_of_other_options_computes_what_the_plain_one_does(options: dict[str, Any]) -> None:
    layer, plain = FoldedConv3d(3, 4, **(STEM | options)), nn.Conv3d(3, 4, **(STEM | options))
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4, 17, 16)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("_folding_on_the_cpu")
def test_a_compiled_encoder_with_a_folded_stem_agrees_with_the_plain_one() -> None:
    torch._dynamo.reset()
    torch.manual_seed(1)
    encoder = R2Plus1D(10, width=4)
    plain = copy.deepcopy(encoder)
    plain.conv1 = stems(torch.float32)[1]
    plain.load_state_dict(encoder.state_dict())
    encoder.compile(dynamic=False, fullgraph=True)
    x = torch.randn(4, 3, 4, 65, 64)
    results, expected = of_stem(encoder, x), of_stem(plain, x)
    torch.testing.assert_close(results[0], expected[0], rtol=1e-4, atol=1e-4)
    gradient, usual = (torch.cat([each.flatten() for each in found[1:]]) for found in (results, expected))
    assert torch.linalg.vector_norm(gradient - usual) < 1e-3 * torch.linalg.vector_norm(usual)
    torch._dynamo.reset()


@pytest.mark.gpu
def test_the_stem_is_folded_on_a_gpu_and_agrees_with_float64() -> None:
    stem, plain = stems(torch.float32)
    x = torch.randn(2, 3, 4, 17, 16)
    expected = of_stem(plain.double(), x.double())
    convolutions, pads = torch.backends.cudnn.allow_tf32, []
    stem.get_submodule("1").register_forward_pre_hook(lambda module, inputs: pads.append(inputs[0].stride(1)))
    torch.backends.cudnn.allow_tf32 = False
    try:
        for one, other in zip(of_stem(stem.cuda(), x.cuda()), expected, strict=True):
            torch.testing.assert_close(one.cpu(), other.to(one.dtype), rtol=1e-4, atol=1e-4)
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
    assert pads == [1]  # channels last, although the weights are not: it came from the folded one
