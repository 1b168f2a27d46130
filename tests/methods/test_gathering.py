"""Gathering with gradients, in real processes: N of them and one on the global batch give one loss and one gradient."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from earmark.methods.gathering import gather_with_gradient, rank, world_size
from earmark.methods.objectives import audio_visual_correspondence_loss
from earmark.methods.replai import AudioVisualModel
from earmark.training.processes import gather_objects, process_group_left
from tests.helpers.flat_encoder import FlatEncoder

BATCH, DIM = 8, 5


def make_model() -> AudioVisualModel:
    torch.manual_seed(3)
    model = AudioVisualModel(FlatEncoder(3 * 2 * 2 * 2), FlatEncoder(4), hidden_dim=7, out_dim=DIM)
    return model.double()


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    before, after = torch.randn(2, BATCH, 3, 2, 2, 2, dtype=torch.float64, generator=generator)
    return before, after, torch.randn(BATCH, 1, 2, 2, dtype=torch.float64, generator=generator)


def model_step(rows: slice) -> tuple[dict[str, Tensor], list[Tensor]]:
    model = make_model()
    outputs = model(*(x[rows] for x in make_inputs()))
    outputs["loss"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    return {key: value.detach() for key, value in outputs.items()}, gradients


def loss_step(rows: slice) -> tuple[Tensor, Tensor]:
    """Return the correspondence loss and its gradient for linear maps shared by all processes.

    The loss is that of all samples, and that of weighted ones, of which each process has others left out.
    """
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(3, DIM, DIM, dtype=torch.float64, generator=generator).requires_grad_()
    x = torch.randn(3, BATCH, DIM, dtype=torch.float64, generator=generator)
    before, after, audio = torch.bmm(x[:, rows], weights)
    of_samples = torch.tensor([0.0, 2.0, 0.5, 0.0, 1.5, 1.0, 2.0, 1.0], dtype=torch.float64)
    loss = torch.stack(
        [
            audio_visual_correspondence_loss(
                video_before=before, video_after=after, audio=audio, weights=w, gather=gather_with_gradient, rank=rank()
            )
            for w in (None, of_samples[rows])
        ]
    ).sum()
    loss.backward()
    assert weights.grad is not None
    return loss.detach(), weights.grad


def average(x: Tensor) -> Tensor:
    """Average over processes, as DistributedDataParallel does with gradients."""
    dist.all_reduce(x)
    return x / dist.get_world_size()


def run_rank(this_rank: int, num_processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    with process_group_left():
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=this_rank, world_size=num_processes
        )
        assert (rank(), world_size()) == (this_rank, num_processes)
        share = BATCH // num_processes
        rows = slice(this_rank * share, (this_rank + 1) * share)

        own = torch.full((2, 3), float(this_rank), dtype=torch.float64, requires_grad=True)
        gathered = gather_with_gradient(own)
        # Each process asks something else of each row; a row's gradient is the sum of what all ask.
        (gathered * torch.arange(1, 2 * num_processes + 1)[:, None] * (this_rank + 1)).sum().backward()

        loss, gradient = loss_step(rows)
        outputs, gradients = model_step(rows)
        result = {
            "gathered": gathered.detach(),
            "gathered_gradient": own.grad,
            "loss": average(loss),
            "gradient": average(gradient),
            "outputs": {key: average(value) for key, value in outputs.items()},
            "gradients": [average(x) for x in gradients],
        }
        torch.save(result, Path(folder) / f"{this_rank}.pt")


def run(num_processes: int, folder: Path) -> list[dict[str, object]]:
    mp.spawn(run_rank, args=(num_processes, str(folder)), nprocs=num_processes)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(num_processes)]


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_n_processes_give_the_loss_and_gradient_of_one_on_the_global_batch(num_processes: int, tmp_path: Path) -> None:
    loss, gradient = loss_step(slice(None))
    outputs, gradients = model_step(slice(None))
    close = {"rtol": 1e-10, "atol": 1e-13}
    weights = sum(range(1, num_processes + 1))
    for i, result in enumerate(run(num_processes, tmp_path)):
        expected_rows = torch.arange(num_processes, dtype=torch.float64).repeat_interleave(2)[:, None].expand(-1, 3)
        torch.testing.assert_close(result["gathered"], expected_rows)
        asked = torch.tensor([2 * i + 1, 2 * i + 2], dtype=torch.float64)[:, None].expand(-1, 3) * weights
        torch.testing.assert_close(result["gathered_gradient"], asked)
        torch.testing.assert_close(result["loss"], loss, **close)
        torch.testing.assert_close(result["gradient"], gradient, **close)
        for key in ("loss", "contrastive_loss", "state_change_loss"):
            torch.testing.assert_close(result["outputs"][key], outputs[key], **close)
        torch.testing.assert_close(result["gradients"], gradients, **close)


def test_without_processes_gathering_is_the_identity() -> None:
    x = torch.ones(2, 3)
    assert gather_with_gradient(x) is x
    assert (rank(), world_size()) == (0, 1)


def threads_here() -> set[str]:
    return {path.name for path in Path("/proc/self/task").iterdir()}


def join_and_hold(this_rank: int, folder: str) -> None:
    """Keep the group in a cycle, as a model's hooks do, and say which of its threads are left afterwards."""
    before = threads_here()
    with process_group_left():
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=this_rank, world_size=2)
        held = [dist.group.WORLD]
        held.append(held)  # type: ignore[arg-type]
        gather_objects(this_rank)  # makes the second group
        del held
        threads = threads_here() - before
    left = threads & threads_here()
    (Path(folder) / f"{this_rank}.txt").write_text(f"{len(threads) > 0} {len(left)} {dist.is_initialized()}")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_group_that_is_left_leaves_no_thread_behind(tmp_path: Path) -> None:
    mp.spawn(join_and_hold, args=(str(tmp_path),), nprocs=2)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["True 0 False"] * 2


def leave_by_an_error(this_rank: int, folder: str) -> None:
    try:
        with process_group_left():
            dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=this_rank, world_size=2)
            gather_objects(this_rank)
            if this_rank == 1:
                raise ValueError("the second fails")
            gather_objects(this_rank)
    except Exception as error:
        (Path(folder) / f"{this_rank}.txt").write_text(f"{type(error).__name__} {dist.is_initialized()}")


def test_nobody_waits_for_a_process_that_failed(tmp_path: Path) -> None:
    mp.spawn(leave_by_an_error, args=(str(tmp_path),), nprocs=2)
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert second == "ValueError False"
    assert first == "RuntimeError False"  # the lost connection
