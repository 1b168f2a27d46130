"""What is said where a GPU has too little memory, by a model that runs out of it above some number of samples."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.cli.terminal import report_error
from earmark.training.memory import BatchMemoryError, largest_that_fits, out_of_memory_named
from tests.helpers.tiny_run import TinyModel, run


class Greedy(nn.Module):
    """A model whose backward pass needs more memory than there is above some number of samples."""

    def __init__(self, room_for: int) -> None:
        super().__init__()
        self.layer, self.room_for = nn.Linear(4, 1), room_for
        self.seen: list[tuple[int, list[int], list[str]]] = []

    def forward(self, x: Tensor, *, index: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append((len(x), index.tolist(), list(labels)))
        result = self.layer(x)
        result.register_hook(self._in_backward)
        return {"loss": result.mean()}

    def _in_backward(self, gradient: Tensor) -> None:
        if len(gradient) > self.room_for:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total ...")


def steps(fabric: Fabric, module: Any, *batch_sizes: int) -> None:
    for num_samples in batch_sizes:
        index = torch.arange(num_samples)
        output = module(torch.randn(num_samples, 4), index=index + 100, labels={"verb": index})
        fabric.backward(output["loss"])


@pytest.fixture
def fabric() -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return fabric


@pytest.mark.parametrize(
    ("room_for", "below", "expected"),
    [(40, 256, 32), (128, 256, 128), (127, 256, 64), (1, 256, 1), (0, 256, 0), (9, 30, 7), (5, 1, 0)],
)
def test_halves_are_tried_until_one_fits(room_for: int, below: int, expected: int) -> None:
    tried = []

    def attempt(num_samples: int) -> None:
        tried.append(num_samples)
        if num_samples > room_for:
            raise torch.OutOfMemoryError

    assert largest_that_fits(attempt, below=below) == expected
    assert tried == [below >> k for k in range(1, len(tried) + 1)]


def test_what_is_wrong_otherwise_is_raised_as_it_is() -> None:
    def attempt(num_samples: int) -> None:
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        largest_that_fits(attempt, below=4)


def test_what_an_attempt_held_is_freed_before_the_next() -> None:
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def attempt(num_samples: int) -> None:
        assert not alive
        held = Held()
        if num_samples > 1:
            raise torch.OutOfMemoryError
        del held

    assert largest_that_fits(attempt, below=16) == 1


def test_a_step_without_memory_names_the_number_that_fits_and_the_ways_out(
    fabric: Fabric, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Greedy(room_for=6)
    module = fabric.setup(model)
    with pytest.raises(BatchMemoryError) as caught, out_of_memory_named(fabric, module):
        steps(fabric, module, 4, 32)
    assert (caught.value.num_samples, caught.value.num_fitting) == (32, 4)
    assert [seen[0] for seen in model.seen] == [4, 32, 16, 8, 4]
    assert model.seen[-1][1:] == ([0, 1, 2, 3], ["verb"])  # indices that every data set has
    assert model.layer.weight.grad is None
    assert report_error("earmark pretrain", caught.value) == 1
    said = capsys.readouterr().err
    assert said.startswith("earmark pretrain: the GPU has too little memory for a step on 32 samples; 4 fit, ")
    assert "CUDA out of memory" in said
    assert "divide optim.batch_size or multiply optim.accumulate by 8, or try model.recompute=true" in said
    assert said.count("\n") == 1


def test_where_nothing_fits_or_nothing_was_tried_no_number_is_claimed(fabric: Fabric) -> None:
    module = fabric.setup(Greedy(room_for=0))
    with (
        pytest.raises(BatchMemoryError, match="not even one sample fits") as caught,
        out_of_memory_named(fabric, module),
    ):
        steps(fabric, module, 8)
    assert caught.value.num_fitting == 0
    with (
        pytest.raises(BatchMemoryError, match=r"too little memory for a step \(CUDA") as caught,
        out_of_memory_named(fabric, module),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    assert (caught.value.num_samples, caught.value.num_fitting) == (None, None)


def test_other_errors_and_none_pass_through_and_leave_no_hook(fabric: Fabric) -> None:
    module = fabric.setup(Greedy(room_for=9))
    with pytest.raises(KeyError), out_of_memory_named(fabric, module):
        raise KeyError
    with out_of_memory_named(fabric, module):
        steps(fabric, module, 2)
    assert not module.module._forward_pre_hooks


def test_a_run_whose_batch_is_too_large_says_which_is_not_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    before = run(tmp_path, max_steps=2)
    model = TinyModel()
    model.register_forward_hook(lambda module, inputs, output: _refuse(len(inputs[0]), more_than=2))
    with pytest.raises(BatchMemoryError, match="a step on 4 samples; 2 fit"):
        run(tmp_path, model=model)
    assert before.checkpoint_path is not None
    assert before.checkpoint_path.is_file()
    assert len(list(before.checkpoint_path.parent.glob("*.pt"))) == 1
    assert run(tmp_path).steps == 12


def _refuse(num_samples: int, *, more_than: int) -> None:
    if num_samples > more_than:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
