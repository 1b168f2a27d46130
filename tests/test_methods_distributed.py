"""Every objective in real processes: N of them and one on the global batch give one loss, gradient and memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from earmark.distributed import gather_with_gradient, gather_without_gradient, sum_over_processes, world_size
from earmark.methods import XDC
from earmark.model import AudioVisualModel
from test_methods import METHODS, NUM_SAMPLES, encoders, make_inputs, make_keywords

BATCH, NUM_STEPS = 8, 2


class SyncBatchNorm(nn.Module):
    """Batch norm over the global batch of all processes; PyTorch's own is for GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        everywhere = gather_with_gradient(x)
        variance, mean = torch.var_mean(everywhere, dim=0, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt()


def make_method(name: str) -> nn.Module:
    """Build a method whose features go through batch norm, in float64."""
    method: Any = METHODS[name]().double()
    for encoder in method.backbone.values():
        encoder.layer = nn.Sequential(encoder.layer, SyncBatchNorm())
    return method  # type: ignore[no-any-return]


def steps(name: str, rows: slice) -> dict[str, Any]:
    """Do two steps without changing weights, so that the second sees what the first left in buffers.

    In processes, gradients are averaged as in training: by DistributedDataParallel.
    """
    method = make_method(name)
    inputs, keywords = [x[rows] for x in make_inputs(BATCH)], make_keywords(BATCH)
    keywords = {
        "index": keywords["index"][rows],
        "labels": {column: x[rows] for column, x in keywords["labels"].items()},
    }
    if isinstance(method, XDC):
        before, after, audio = make_inputs(NUM_SAMPLES)
        share = torch.arange(NUM_SAMPLES)[rank_of(rows) :: BATCH // len(inputs[0])]
        method.eval()
        for encoder in method.backbone.values():
            encoder.layer[1] = nn.Identity()  # type: ignore[operator] # in evaluation it does not look at the batch
        method.start_epoch(0, lambda: [(share, method.embed(before[share], after[share], audio[share]))])
        method.train()
        for encoder in method.backbone.values():
            encoder.layer[1] = SyncBatchNorm()  # type: ignore[operator]
    module = DistributedDataParallel(method) if dist.is_initialized() else method
    losses = []
    for _ in range(NUM_STEPS):
        outputs = module(*inputs, **keywords)
        losses.append(outputs["loss"].detach())
        outputs["loss"].backward()
    gradients = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(method.parameters()))
    return {"losses": torch.stack(losses), "gradients": gradients, "buffers": dict(method.named_buffers())}


def rank_of(rows: slice) -> int:
    return 0 if rows.start is None else rows.start // (rows.stop - rows.start)


def reference_gather_gradients(rows: slice) -> list[Tensor]:
    """The gradients of the correspondence loss with the original's gather."""
    method = AudioVisualModel(*encoders(), hidden_dim=7, out_dim=5, gather="reference", aot_coeff=0.0).double()
    module = DistributedDataParallel(method) if dist.is_initialized() else method
    module(*(x[rows] for x in make_inputs(BATCH)))["loss"].backward()
    return [p.grad for p in method.parameters() if p.grad is not None]


def run_rank(this_rank: int, num_processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=this_rank, world_size=num_processes)
    try:
        share = BATCH // num_processes
        rows = slice(this_rank * share, (this_rank + 1) * share)
        results: dict[str, Any] = {name: steps(name, rows) for name in METHODS}
        for name in METHODS:
            results[name]["losses"] = sum_over_processes(results[name]["losses"]) / num_processes
        own = torch.full((1, 2), float(this_rank), requires_grad=True)
        results["gathered"] = gather_without_gradient(own)
        results["summed"] = sum_over_processes(own)
        results["reference_gradients"] = reference_gather_gradients(rows)
        torch.save(results, Path(folder) / f"{this_rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 4])
def test_n_processes_give_the_loss_gradient_and_memory_of_one_on_the_global_batch(
    num_processes: int, tmp_path: Path
) -> None:
    expected = {name: steps(name, slice(None)) for name in METHODS}
    mp.spawn(run_rank, args=(num_processes, str(tmp_path)), nprocs=num_processes)
    for this_rank in range(num_processes):
        results = torch.load(tmp_path / f"{this_rank}.pt", weights_only=True)
        for name, one in expected.items():
            for what in ("losses", "gradients", "buffers"):
                torch.testing.assert_close(
                    results[name][what],
                    one[what],
                    rtol=1e-10,
                    atol=1e-12,
                    msg=lambda text, name=name: f"{name}: {text}",
                )
        ranks = torch.arange(num_processes, dtype=torch.float32)[:, None].expand(-1, 2)
        assert torch.equal(results["gathered"], ranks)
        assert not results["gathered"].requires_grad
        assert torch.equal(results["summed"], ranks.sum(dim=0, keepdim=True))

        # The original's gather loses the gradient of the candidates: that of N processes is another than that of one.
        gradient = torch.cat([x.flatten() for x in results["reference_gradients"]])
        whole = torch.cat([x.flatten() for x in reference_gather_gradients(slice(None))])
        assert torch.linalg.vector_norm(gradient - whole) > 0.1 * torch.linalg.vector_norm(whole)


def test_without_processes_nothing_is_gathered_and_gradients_pass() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    assert gather_without_gradient(x).requires_grad
    assert sum_over_processes(x) is x
    assert world_size() == 1
