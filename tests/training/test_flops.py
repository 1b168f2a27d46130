"""The work of a sample, by hand and as published, and what counting it leaves alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods.replai import AudioVisualModel
from earmark.training.flops import WorkNotCountedError, flops_per_sample, peak_dtype, peak_flops_per_second
from earmark.training.launch import Launch, join_processes, run_processes
from earmark.training.speed import compile_encoders
from earmark.training.work import Work
from tests.helpers.rank_runs import normed_model, processes
from tests.helpers.small_methods import METHODS, keywords_of, make_inputs
from tests.helpers.tiny_run import TinyModel, lines_of, run

pytestmark = pytest.mark.usefixtures("one_thread")


class Convolution(nn.Module):
    """A strided convolution and a linear layer, of an input that needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(8 * 7 * 7, 10)

    def forward(self, x: Tensor, *, index: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": self.second(self.norm(self.first(x)).flatten(1)).square().mean()}


def test_the_work_of_layers_is_that_of_their_formulas() -> None:
    """Forward, and backward once for weights and once for inputs; the first layer's inputs need no gradient."""
    convolution = 2 * (7 * 7) * 8 * (3 * 3 * 3)
    linear = 2 * (8 * 7 * 7) * 10
    found = flops_per_sample(Convolution(), (torch.zeros(5, 3, 15, 15),), labels={})
    assert found == 2 * convolution + 3 * linear


def test_the_published_model_asks_for_36_billion_operations_a_sample() -> None:
    """Two clips of 8 x 112 x 112 and 2 s of sound."""
    clip, sound = torch.zeros(4, 3, 8, 112, 112), torch.zeros(4, 1, 125, 80)
    model = AudioVisualModel(R2Plus1D(), SpecCNN9())
    assert flops_per_sample(model, (clip, clip, sound), labels={}) == pytest.approx(35.7e9, rel=2e-3)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_counted_and_left_as_it_was(name: str) -> None:
    model = METHODS[name]().double()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert flops_per_sample(model, make_inputs(4), labels=keywords_of(name)["labels"]) > 1000
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_compiled_encoders_are_counted_as_written() -> None:
    plain, compiled = normed_model(), normed_model()
    compile_encoders(compiled)
    inputs = (torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 1, 3, 4))
    found = flops_per_sample(compiled, inputs, labels={})
    assert found == flops_per_sample(plain, inputs, labels={}) > 1000


class NeedsNumbers(TinyModel):
    def forward(self, *inputs: Tensor, **samples: Any) -> dict[str, Tensor]:
        if inputs[0].sum().item() > 1e9:
            raise AssertionError
        return super().forward(*inputs, **samples)


def test_a_model_that_needs_numbers_is_trained_without_a_count_and_that_is_said(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, model=NeedsNumbers(), max_steps=2, progress=True)
    assert "note: no TFLOP/s are shown, for the model's operations can't be counted (DataDep" in capsys.readouterr().err
    assert [line["kind"] for line in lines_of(result)] == ["step", "step"]
    lines = result.metrics_path.read_text()
    assert '"tflops_per_second"' not in lines
    assert '"peak_share"' not in lines
    inputs = (torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 1, 3, 4))
    with pytest.raises(WorkNotCountedError):
        flops_per_sample(NeedsNumbers(), inputs, labels={})


def count_in_a_group(launch: Launch) -> float:
    """One process counts, while the other one does not: it must not ask it for anything."""
    join_processes(launch)
    inputs = (torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 1, 3, 4))
    return flops_per_sample(normed_model(), inputs, labels={}) if launch.rank == 0 else 0.0


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
def test_one_of_several_processes_counts_by_itself() -> None:
    inputs = (torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 3, 2, 4, 4), torch.zeros(4, 1, 3, 4))
    alone = flops_per_sample(normed_model(), inputs, labels={})
    assert run_processes(processes(2), count_in_a_group) == alone


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("32-true", "cpu", torch.float32),
        ("16-mixed", "cpu", torch.float32),
        ("64-true", "cuda", torch.float64),
        ("32-true", "cuda", torch.float32),
        ("16-mixed", "cuda", torch.float16),
        ("bf16-mixed", "cuda", torch.bfloat16),
    ],
)
def test_the_peak_is_that_of_the_precision(precision: str, device: str, dtype: torch.dtype) -> None:
    assert peak_dtype(precision, torch.device(device)) == dtype


def test_rates_are_of_all_devices_and_shares_of_all_their_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.training.work.peak_flops_per_second", lambda device, dtype: 4e12)
    work = Work(device=torch.device("cpu"), precision="32-true", num_devices=2)
    assert work.measure(Convolution(), (torch.zeros(5, 3, 15, 15),), labels={}) is None
    flops = work.facts()["gflops_per_sample"] * 1e9
    assert work.facts() == {"gflops_per_sample": flops / 1e9, "peak_tflops_per_second_float32": 4.0}
    rates = work.rates(samples_per_second=1e7)
    assert rates["tflops_per_second"] == pytest.approx(flops * 1e7 / 1e12)
    assert rates["peak_share"] == pytest.approx(flops * 1e7 / 8e12)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_peak_of_a_gpu_is_above_that_of_a_cpu(dtype: torch.dtype) -> None:
    precision, state = torch.get_float32_matmul_precision(), torch.cuda.get_rng_state()
    assert peak_flops_per_second(torch.device("cuda", 0), dtype) > 2e12
    assert torch.get_float32_matmul_precision() == precision
    assert torch.equal(torch.cuda.get_rng_state(), state)
