"""Layout, compiling, fused updates: other speeds, the same numbers."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods import AVID, XDC, SimCLRVideo, Supervised
from earmark.methods.replai import AudioVisualModel, ContrastiveOptions
from earmark.training.optim import sgd
from earmark.training.speed import _CompiledCall, _layout_options, compile_encoders, use_channels_last


def encoders(width: int) -> tuple[R2Plus1D, SpecCNN9]:
    torch.manual_seed(1)
    return R2Plus1D(10, width=width), SpecCNN9(width=width)


def methods(width: int = 4) -> dict[str, nn.Module]:
    built: dict[str, nn.Module] = {
        "replai": AudioVisualModel(
            *encoders(width), hidden_dim=16, out_dim=8, contrastive=ContrastiveOptions(queue_size=4)
        ),
        "avid": AVID(*encoders(width), num_samples=6, num_negatives=9, hidden_dim=16, out_dim=8),
        "xdc": XDC(*encoders(width), num_samples=6, num_clusters=2),
        "simclr_video": SimCLRVideo(encoders(width)[0], hidden_dim=16, out_dim=8),
        "supervised": Supervised(encoders(width)[0], num_classes={"verb": 3}),
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
def test_another_layout_gives_the_same_loss_gradient_and_names(name: str) -> None:
    """In float64, so that only rounding can tell them apart; in float32 the order of sums shows at about 1e-5."""
    model = methods()[name].double()
    other = copy.deepcopy(model)
    use_channels_last(other)
    weight = other.get_parameter("backbone.video.conv2x.spt_conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not weight.is_contiguous()
    assert other.state_dict().keys() == model.state_dict().keys()
    for one, two in zip(step(model, dtype=torch.float64), step(other, dtype=torch.float64), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-10)


def test_channels_last_stays_through_load_and_is_taken_on_by_what_flows_through() -> None:
    encoder = R2Plus1D(10, width=4)
    use_channels_last(encoder)
    encoder.load_state_dict(R2Plus1D(10, width=4).state_dict())
    assert encoder.conv2x.spt_conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)
    x = encoder.conv1(torch.randn(2, 3, 8, 64, 64))
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


WORDS = "compiling", "compiled"


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler_cache")
@ALL
def test_compiled_encoders_agree_with_eager_ones(name: str) -> None:
    """Float32: the loss to 1e-4, the gradient to 1e-3 of its length."""
    model = methods()[name]
    other = copy.deepcopy(model)
    use_channels_last(other)
    said: list[str] = []
    compile_encoders(other, report=said.append)
    assert other.state_dict().keys() == model.state_dict().keys()
    (loss, gradient), (compiled_loss, compiled_gradient) = step(model), step(other)
    assert compiled_loss.item() == pytest.approx(loss.item(), rel=1e-4)
    assert torch.linalg.vector_norm(compiled_gradient - gradient) < 1e-3 * torch.linalg.vector_norm(gradient)
    kinds = [kind for kind, _ in model.get_submodule("backbone").named_children()]
    assert [re.split("[ ,]", line)[:4] for line in said] == [
        [word, "the", kind, "encoder"] for kind in kinds for word in WORDS
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("_no_compiler_cache")
def test_compiled_encoders_take_batches_of_several_sizes() -> None:
    model = methods()["supervised"]
    other = copy.deepcopy(model)
    compile_encoders(other)
    for num in (4, 2):
        assert step(other, num=num)[0].item() == pytest.approx(step(model, num=num)[0].item(), rel=1e-4)


@pytest.mark.usefixtures("_no_compiler_cache")
@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")  # an error of it would be another failure than meant
def test_encoders_whose_compilation_fails_go_on_without_and_say_why_once(caplog: pytest.LogCaptureFixture) -> None:
    # torch's own way: monkeypatch can't put back what it sets in torch's configuration
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        require_going_on_without_compiling(caplog)
    assert not torch.compiler.config.force_disable_caches


def require_going_on_without_compiling(caplog: pytest.LogCaptureFixture) -> None:
    model = methods()["supervised"]
    other = copy.deepcopy(model)
    said: list[str] = []
    compile_encoders(other, report=said.append)
    for _ in range(2):
        for one, two in zip(step(other), step(model), strict=True):
            assert torch.equal(one, two)
    assert said == ["compiling the video encoder, once; this takes up to some minutes"]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "earmark.training.speed"]
    assert warning.startswith("the video encoder could not be compiled and goes on without: ")
    assert "compiler" in warning.partition(": ")[2]
    assert len(warning) > 70
    for one, two in zip(other.buffers(), model.buffers(), strict=True):
        assert torch.equal(one, two)  # the failed attempt left nothing in the statistics


@pytest.mark.usefixtures("_no_compiler_cache")
def test_what_is_wrong_with_a_batch_is_not_taken_for_a_failure_of_the_compiler() -> None:
    model = methods()["supervised"]
    compile_encoders(model)
    with pytest.raises(ValueError, match=r"clips must have the shape \(B, 3, T, H, W\), got \(2, 2, 4, 32, 32\)"):
        model.get_submodule("backbone.video")(torch.zeros(2, 2, 4, 32, 32))


def test_memory_that_runs_out_is_not_taken_for_a_failure_of_the_compiler(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Tensor] = []

    def compiled(x: Tensor) -> Tensor:
        calls.append(x)
        raise torch.OutOfMemoryError

    encoder = SpecCNN9(width=4)
    encoder._compiled_call_impl = compiled
    encoder._compiled_call_impl = _CompiledCall("audio", encoder, lambda line: None)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            encoder(torch.zeros(2, 1, 40, 32))
    assert len(calls) == 2
    assert not caplog.records


def test_encoders_are_not_compiled_for_evaluation() -> None:
    model = methods()["supervised"]
    said: list[str] = []
    compile_encoders(model, report=said.append)
    model.eval()
    with torch.no_grad():
        model.get_submodule("backbone.video")(torch.zeros(1, 3, 4, 32, 32))
    assert not said


def test_the_compiler_is_told_of_channels_last_where_no_convolution_is_wide() -> None:
    for width, options in (
        (4, {"force_layout_optimization": True}),
        (8, {"force_layout_optimization": True}),
        (16, {}),
    ):
        encoder = R2Plus1D(10, width=width)
        assert _layout_options(encoder) == {}
        use_channels_last(encoder)
        assert _layout_options(encoder) == options


@pytest.mark.gpu
@pytest.mark.usefixtures("_no_compiler_cache")
@pytest.mark.parametrize("width", [4, 64])  # 4: all convolutions are narrow, which the compiler treats differently
@ALL
def test_bfloat16_channels_last_and_compiled_on_a_gpu_agree_with_float32(name: str, width: int) -> None:
    """The loss to 10 %, the direction of the gradient to 25 degrees: 8 bits of mantissa through 20 layers."""
    results: list[Any] = []
    for fast in (False, True):
        model = methods(width)[name].cuda()
        if fast:
            use_channels_last(model)
            compile_encoders(model)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=fast):
            results.append(step(model, device="cuda"))
    (loss, gradient), (fast_loss, fast_gradient) = results
    assert fast_loss.item() == pytest.approx(loss.item(), rel=0.1)
    assert torch.cosine_similarity(gradient, fast_gradient.float(), dim=0) > 0.9
