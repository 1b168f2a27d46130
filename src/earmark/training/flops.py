"""What a step asks of a device, and what the device can do: floating-point operations, counted and measured.

Beside the path of a sample: the loop calls this once, so that samples per second can be told as a share of the peak.
"""

import copy
import time
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from earmark.methods.gathering import counted_alone
from earmark.training.checkpoint import rng_state, set_rng_state

__all__ = ["WorkNotCountedError", "flops_per_sample", "peak_dtype", "peak_flops_per_second"]

SAMPLES_COUNTED = 2  # batch norm needs more than one
CUDA_SIDE = {2: 8192, 4: 4096, 8: 4096}  # of the matrices, by bytes of a number: at most 400 MB for three
CPU_SIDE = 768
CUDA_SECONDS, CPU_ROUNDS = 0.2, 3


class WorkNotCountedError(RuntimeError):
    """A model whose operations can't be counted without running it on real data; the message says why."""


def flops_per_sample(model: nn.Module, inputs: tuple[Tensor, ...], *, labels: Mapping[str, Tensor]) -> float:
    """Count the floating-point operations of a model's forward and backward pass, per sample.

    Convolutions and matrix products count, with two operations for a multiplication and its addition, as in the numbers
    that devices are sold with; they are nearly all of the work. The model is not run: a copy of it without any numbers
    is, so weights, buffers, gradients and generators stay as they are, and compiled parts are counted as written.

    Args:
        model: The bare model, as `earmark.training.pretrain` takes it.
        inputs: What it takes, (B, ...) each, of any batch; the shapes count.
        labels: (B,) by name.

    Raises:
        WorkNotCountedError: If the model does what can't be done without numbers.

    Example:
        >>> class Model(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = nn.Linear(10, 5)
        ...     def forward(self, x, *, index, labels):
        ...         return {"loss": self.layer(x).sum()}
        >>> flops_per_sample(Model(), (torch.zeros(8, 10),), labels={})  # forward, and the gradient of the weights
        200.0
    """
    generators = rng_state()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake, counted_alone():
            tensors: dict[int, object] = {
                id(parameter): nn.Parameter(fake.from_tensor(parameter.detach()), parameter.requires_grad)
                for parameter in model.parameters()
            }
            tensors |= {id(buffer): fake.from_tensor(buffer) for buffer in model.buffers()}
            bare = copy.deepcopy(model, tensors)
            rows = [x.new_empty(SAMPLES_COUNTED, *x.shape[1:]) for x in inputs]
            index = torch.empty(SAMPLES_COUNTED, dtype=torch.int64, device=inputs[0].device)
            named = {name: x.new_empty(SAMPLES_COUNTED) for name, x in labels.items()}
            with FlopCounterMode(display=False) as counter:
                bare(*rows, index=index, labels=named)["loss"].backward()
    except Exception as error:  # whatever a model does that needs numbers: the run goes on without this one
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise WorkNotCountedError(f"{type(error).__name__}: {reason}") from error
    finally:
        set_rng_state(generators)
    return float(counter.get_total_flops()) / SAMPLES_COUNTED


def peak_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that a run's matrix products are of.

    Args:
        precision: Of the run, as Lightning Fabric names it.
        device: Of the run.

    Example:
        >>> peak_dtype("bf16-mixed", torch.device("cuda"))
        torch.bfloat16
    """
    if precision.startswith("64"):
        return torch.float64
    if device.type == "cuda" and precision.startswith("bf16"):
        return torch.bfloat16
    if device.type == "cuda" and precision.startswith("16"):
        return torch.float16
    return torch.float32


@cache
def peak_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure how many operations a second a device does in a large matrix product, once per process.

    It takes a fraction of a second. On a GPU a float32 product may use TF32, as convolutions do there by default.

    Args:
        device: The device.
        dtype: Of the matrices.

    Example:
        >>> peak_flops_per_second(torch.device("cpu"), torch.float32) > 1e8
        True
    """
    generators = rng_state()
    try:
        if device.type != "cuda":
            return _peak_of_cpu(dtype)
        precision = torch.get_float32_matmul_precision()
        if torch.backends.cudnn.allow_tf32:
            torch.set_float32_matmul_precision("high")
        try:
            return _peak_of_cuda(device, dtype)
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.cuda.empty_cache()  # the matrices are large, and of no use to the steps
    finally:
        set_rng_state(generators)


def _peak_of_cpu(dtype: torch.dtype) -> float:
    left, right = torch.ones(2, CPU_SIDE, CPU_SIDE, dtype=dtype)
    product = left @ right
    best = float("inf")
    for _ in range(CPU_ROUNDS):
        started = time.perf_counter()
        torch.mm(left, right, out=product)
        best = min(best, time.perf_counter() - started)
    return 2 * CPU_SIDE**3 / best


def _peak_of_cuda(device: torch.device, dtype: torch.dtype) -> float:
    side = CUDA_SIDE[dtype.itemsize]
    # Of random numbers: a device that multiplies zeros or ones draws less power, and is faster than it ever is at work.
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    product = left @ right

    def seconds_of(num_products: int) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call, unused-ignore]
        first.record()
        for _ in range(num_products):
            torch.mm(left, right, out=product)
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000

    num_products = max(1, round(CUDA_SECONDS / 2 / seconds_of(2)))
    return 2 * side**3 * num_products / seconds_of(num_products)
