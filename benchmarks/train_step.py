"""Samples a second of a training step, beside a plain eager float32 loop of the same model in the same run.

A step is forward, backward and update of RepLAI on ready model inputs: two clips of 8 x 112 x 112 and a log-mel
spectrogram of 125 x 80. All ways of running it take turns, so that the ratios hold when the machine's speed drifts.

On the CPU at batch 16. Where there is a GPU, on it at batch 128 and 512 too, with memory, the share of the bfloat16
peak that a product of large matrices reaches there, and a profile.

    python benchmarks/train_step.py [--batch 16] [--steps 3] [--rounds 3] [--only default compiled] [--width 64]
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods.replai import AudioVisualModel
from earmark.training.optim import sgd
from earmark.training.speed import compile_encoders, use_channels_last

GPU_BATCHES = (128, 512)


@dataclass(frozen=True)
class Way:
    """A way of running the step."""

    channels_last: bool = False
    fused: bool = False
    compiled: bool = False
    bf16: bool = False


CPU_WAYS = {
    "plain": Way(),
    "fused": Way(fused=True),
    "channels last": Way(channels_last=True),
    "default": Way(channels_last=True, fused=True),
    "compiled": Way(channels_last=True, fused=True, compiled=True),
}
GPU_WAYS = {
    "plain": Way(),
    "default": Way(channels_last=True, fused=True),
    "bf16": Way(channels_last=True, fused=True, bf16=True),
    "bf16 compiled": Way(channels_last=True, fused=True, compiled=True, bf16=True),
}


def make_inputs(batch_size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, batch_size, 3, 8, 112, 112, generator=generator).to(device)
    return before, after, torch.randn(batch_size, 1, 125, 80, generator=generator).to(device)


def make_step(way: Way, batch_size: int, device: str, width: int) -> Callable[[], None]:
    """Return a function that does one step."""
    torch.manual_seed(0)
    model = AudioVisualModel(R2Plus1D(18, width=width), SpecCNN9(width=width)).to(device)
    if way.channels_last:
        use_channels_last(model)
    if way.compiled:
        compile_encoders(model)
    optimizer = sgd(model.parameters(), lr=0.005, fused=way.fused or None)
    inputs = make_inputs(batch_size, device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=way.bf16):
            loss = model(*inputs)["loss"]
        loss.backward()
        optimizer.step()

    return step


def seconds_of(step: Callable[[], None], num_steps: int, device: str) -> float:
    """Return the mean time of some steps."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    for _ in range(num_steps):
        step()
    synchronize()
    return (time.perf_counter() - started) / num_steps


def measure_cpu(ways: dict[str, Way], batch_size: int, *, num_steps: int, num_rounds: int, width: int) -> None:
    steps = {}
    for name, way in ways.items():
        steps[name] = make_step(way, batch_size, "cpu", width)
        print(f"{name}: first step {seconds_of(steps[name], 1, 'cpu'):.1f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_rounds):
        for name, step in steps.items():
            seconds[name].append(seconds_of(step, num_steps, "cpu"))
    plain = statistics.median(seconds["plain"])
    print(f"\nCPU, {torch.get_num_threads()} threads, batch {batch_size}, width {width}")
    print("| way | s a step | samples/s | ratio to plain |\n|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"| {name} | {median:.2f} ({spread}) | {batch_size / median:.2f} | {plain / median:.2f} |")


def measure_gpu(batch_size: int, *, num_steps: int, num_rounds: int, width: int) -> None:
    peak = bf16_peak_flops()
    flops = flops_of_step(width) * batch_size
    print(f"\n{torch.cuda.get_device_name()}, batch {batch_size}: {flops / 1e12:.1f} TFLOP a step;", end=" ")
    print(f"bfloat16 product of matrices: {peak / 1e12:.0f} TFLOP/s")
    print("| way | ms a step | samples/s | ratio to plain | share of bf16 peak | GiB |\n|---|---|---|---|---|---|")
    plain = None
    for name, way in GPU_WAYS.items():  # one at a time: their memory does not fit side by side
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            step = make_step(way, batch_size, "cuda", width)
            seconds_of(step, 5, "cuda")
            median = statistics.median(seconds_of(step, num_steps, "cuda") for _ in range(num_rounds))
        except torch.cuda.OutOfMemoryError:
            print(f"| {name} | out of memory | | | | |")
            continue
        plain = plain or (median if name == "plain" else None)
        ratio = f"{plain / median:.2f}" if plain else ""
        gibibytes = torch.cuda.max_memory_allocated() / 2**30
        share = flops / median / peak
        print(f"| {name} | {1000 * median:.1f} | {batch_size / median:.0f} | {ratio} | {share:.0%} | {gibibytes:.1f} |")
    with contextlib.suppress(torch.cuda.OutOfMemoryError), profile(activities=[ProfilerActivity.CUDA]) as profiled:
        seconds_of(step, 3, "cuda")
    print(f"\nwhere the time of {name} goes:")
    print(profiled.key_averages().table(sort_by="cuda_time_total", row_limit=15, max_name_column_width=80))


def bf16_peak_flops(size: int = 8192) -> float:
    """Return the operations a second of a product of large bfloat16 matrices."""
    x = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)

    def multiply() -> None:
        x @ x

    seconds_of(multiply, 10, "cuda")
    return float(2 * size**3 / min(seconds_of(multiply, 20, "cuda") for _ in range(5)))


def flops_of_step(width: int) -> float:
    """Return the operations of forward and backward for one sample."""
    step = make_step(Way(), 2, "cuda", width)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="of the CPU")
    parser.add_argument("--steps", type=int, default=3, help="in a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=CPU_WAYS, default=list(CPU_WAYS), help="ways of the CPU beside plain"
    )
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    chosen = {name: CPU_WAYS[name] for name in ("plain", *options.only)}
    timing = {"num_steps": options.steps, "num_rounds": options.rounds, "width": options.width}
    if torch.cuda.is_available():
        for batch_size in GPU_BATCHES:
            measure_gpu(batch_size, **timing)
    else:
        print("no GPU: the CPU alone is measured")
    measure_cpu(chosen, options.batch, **timing)


if __name__ == "__main__":
    main()
