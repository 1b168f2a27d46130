"""Batch norm over several real processes gives the outputs, gradients and statistics of one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from earmark.training.launch import Launch, join_processes, plan_launch, run_processes
from earmark.training.sync_batch_norm import CPUSyncBatchNorm, with_sync_batch_norm

BATCH = 8


def layer_and_input(affine: bool) -> tuple[nn.BatchNorm3d, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    layer = nn.BatchNorm3d(3, affine=affine, momentum=0.2).double()
    if affine:
        nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(layer.bias, -1, 1, generator=generator)
    x, asked = torch.randn(2, BATCH, 3, 2, 3, 3, dtype=torch.float64, generator=generator)
    return layer, 5 + 3 * x, asked


def step(layer: nn.Module, x: Tensor, asked: Tensor, num_steps: int = 3) -> dict[str, Tensor]:
    """Some steps; the gradients are those of the mean over processes, as DistributedDataParallel takes it."""
    x = x.clone().requires_grad_()
    for _ in range(num_steps):
        output = layer(x)
        (output * asked).sum().backward()
    gradients = {f"{name}.grad": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"output": output.detach(), "x.grad": x.grad, **layer.state_dict(), **gradients}  # type: ignore[dict-item]


def in_process(launch: Launch, folder: str, affine: bool) -> None:
    join_processes(launch)
    layer, x, asked = layer_and_input(affine)
    synced = with_sync_batch_norm(layer, torch.device("cpu"))
    share = BATCH // launch.world_size
    rows = slice(launch.rank * share, (launch.rank + 1) * share)
    result = step(synced, x[rows], asked[rows])
    for name in result:
        if name.endswith(("weight.grad", "bias.grad")):
            dist.all_reduce(result[name])
    torch.save(result, Path(folder) / f"{launch.rank}.pt")


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.parametrize("affine", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_outputs_gradients_and_statistics_of_two_processes_are_those_of_one(tmp_path: Path, affine: bool) -> None:
    run_processes(plan_launch({}, accelerator="cpu", num_local=2), in_process, str(tmp_path), affine)
    layer, x, asked = layer_and_input(affine)
    whole = step(layer, x, asked)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, expected in whole.items():
        if name in ("output", "x.grad"):
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), expected, rtol=1e-12, atol=1e-12)
        else:
            for part in parts:
                torch.testing.assert_close(part[name], expected, rtol=1e-12, atol=1e-12)


def test_alone_or_in_evaluation_it_is_plain_batch_norm() -> None:
    layer, x, asked = layer_and_input(affine=True)
    synced = with_sync_batch_norm(nn.Sequential(layer_and_input(affine=True)[0]), torch.device("cpu"))
    assert isinstance(synced[0], CPUSyncBatchNorm)  # type: ignore[index]
    for training in (True, False):
        expected, found = step(layer.train(training), x, asked), step(synced.train(training), x, asked)
        assert all(torch.equal(found[name if name in found else f"0.{name}"], expected[name]) for name in expected)


def test_the_optimizer_keeps_hold_of_the_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3).eval())
    before = dict(model.named_parameters())
    keys = list(model.state_dict())
    synced = with_sync_batch_norm(model, torch.device("cpu"))
    assert all(parameter is before[name] for name, parameter in synced.named_parameters())
    assert list(synced.state_dict()) == keys
    assert not synced[1].training  # type: ignore[index]
    with pytest.raises(ValueError, match=r"expected \(B, C, \.\.\.\), got \(3,\)"):
        CPUSyncBatchNorm(3)(torch.zeros(3))
