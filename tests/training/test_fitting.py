"""A checkpoint whose parts are sound but fit neither model, nor optimizer, nor schedule, is not put back."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark.training.checkpoint import CheckpointError, load_checkpoint
from earmark.training.optim import one_cycle, sgd
from tests.helpers.tiny_run import TinyModel, assert_same_end, run

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS: dict[str, Any] = {"ema_decay": 0.5}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was stopped after five of its twelve steps."""
    folder = tmp_path_factory.mktemp("stopped")
    run(folder, max_steps=5, **OPTIONS)
    return folder


def _update(*keys: Any, **values: Any) -> Callable[[dict[str, Any]], object]:
    def change(state: Any) -> None:
        for key in keys:
            state = state[key]
        state.update(values)

    return change


def _swap_momentum(state: dict[str, Any]) -> None:
    """Give two parameters each other's momentum: every shape is there, as often as it should be."""
    momentum = state["optimizer"]["state"]
    momentum[0], momentum[4] = momentum[4], momentum[0]


GROUP = ("optimizer", "param_groups", 0)
CASES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "momentum swapped": (_swap_momentum, r"optimizer\.state\[0\]\.momentum_buffer: .* its parameter is"),
    "weight of another type": (
        lambda state: state["model"].update({"video.0.bias": state["model"]["video.0.bias"].double()}),
        r"model\.video\.0\.bias: of torch\.float64",
    ),
    "weight missing": (lambda state: state["model"].pop("video.0.bias"), r"model\.video\.0\.bias: missing"),
    "weight not finite": (lambda state: state["model"]["video.0.bias"].fill_(torch.inf), r"model.*not finite"),
    "weight of the average not finite": (
        lambda state: state["ema"]["module.video.0.bias"].fill_(torch.nan),
        r"ema\.module\.video\.0\.bias: not finite",
    ),
    "average of another shape": (
        lambda state: state["ema"].update({"n_averaged": torch.zeros(3, dtype=torch.int64)}),
        r"ema\.n_averaged: of the shape \(3,\)",
    ),
    "rate of text": (_update(*GROUP, lr="0.1"), r"param_groups\[0\]\.lr: '0\.1', where"),
    "group of more": (_update(*GROUP, evil=1.0), r"param_groups\[0\]\.evil: 1\.0, where None is"),
    "group of less": (lambda state: state["optimizer"]["param_groups"][0].pop("weight_decay"), "weight_decay"),
    "schedule with a method": (_update("scheduler", step=1), r"scheduler\.step: unknown"),
    "schedule without its length": (lambda state: state["scheduler"].pop("total_steps"), r"total_steps: missing"),
    "schedule of text": (_update("scheduler", base_lrs=["x"]), r"scheduler\.base_lrs\[0\]: 'x', where"),
    "schedule of more rates": (_update("scheduler", base_lrs=[0.1, 0.1]), r"scheduler\.base_lrs: 2 values, here 1"),
    "momentum not finite": (
        lambda state: state["optimizer"]["state"][1]["momentum_buffer"].fill_(torch.nan),
        r"optimizer\.state\[1\]\.momentum_buffer: not finite",
    ),
    "momentum of one parameter gone": (
        _update("optimizer", "state", 0, momentum_buffer=None),
        r"optimizer\.state\[0\]\.momentum_buffer: of the type NoneType, not a tensor",
    ),
    "momentum of a number": (
        _update("optimizer", "state", 0, momentum_buffer=3.0),
        r"optimizer\.state\[0\]\.momentum_buffer: of the type float, not a tensor",
    ),
    "schedule ahead by one": (_update("scheduler", last_epoch=3), r"scheduler\.last_epoch: 3 after 1 epochs"),
    "schedule ahead": (_update("scheduler", last_epoch=5), r"scheduler\.last_epoch: 5 after 1 epochs"),
    "position without a batch": (lambda state: state["position"].pop("batch"), r"position\.batch: missing"),
    "batch beyond its epoch": (_update("position", batch=3), "position: batch 3 of epoch 1, in a run of 4 epochs of 3"),
    "epoch beyond the run": (_update("position", epoch=5, step=15), "position: batch 2 of epoch 5, in a run of 4"),
    "generator of another size": (
        lambda state: state["rng"][0].update(torch=torch.zeros(64, dtype=torch.uint8)),
        r"rng\[0\]\.torch: of 64 bytes",
    ),
    "generator of NumPy with negative words": (
        lambda state: state["rng"][0]["numpy"][1].neg_(),
        r"rng\[0\]\.numpy: not a state",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_part_that_does_not_fit_is_named_and_nothing_is_put_back(stopped: Path, tmp_path: Path, case: str) -> None:
    change, named = CASES[case]
    folder = shutil.copytree(stopped, tmp_path / "run")
    (path,) = (folder / "checkpoints").glob("latest_*.pt")
    state = load_checkpoint(path)
    change(state)
    torch.save(state, path)
    model = TinyModel()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"{path.name}: .*{named}"):
        run(folder, model=model, **OPTIONS)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_run_goes_on_from_a_checkpoint_that_is_written_anew_without_a_change(stopped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    (path,) = (folder / "checkpoints").glob("latest_*.pt")
    torch.save(load_checkpoint(path), path)
    assert_same_end(run(folder, **OPTIONS), run(tmp_path / "uninterrupted", **OPTIONS))


def test_flags_of_the_optimizer_and_what_other_versions_of_pytorch_add_do_not_count(
    stopped: Path, tmp_path: Path
) -> None:
    """A gradient that climbs is not what was asked for, whatever a file says."""
    folder = shutil.copytree(stopped, tmp_path / "run")
    (path,) = (folder / "checkpoints").glob("latest_*.pt")
    state = load_checkpoint(path)
    state["optimizer"]["param_groups"][0].update(maximize=True, fused=True)
    state["scheduler"].update(verbose=False)
    torch.save(state, path)
    model = TinyModel()
    optimizer = sgd(model.parameters(), lr=0.05)
    scheduler = one_cycle(optimizer, max_lr=0.05, total_steps=6)
    resumed = run(folder, model=model, optimizer=optimizer, scheduler=scheduler, **OPTIONS)
    assert optimizer.param_groups[0]["maximize"] is False
    assert_same_end(resumed, run(tmp_path / "uninterrupted", **OPTIONS))
