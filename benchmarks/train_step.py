"""Samples a second of a training step, beside a plain eager float32 loop of the same model in the same run.

A step is forward, backward and update of RepLAI on ready model inputs: two clips of 8 x 112 x 112 and a log-mel
spectrogram of 125 x 80. All ways of running it take turns, so that the ratios hold when the machine's speed drifts. On
the CPU each has a new process in each round: the plain loop with the environment that it was started in, Earmark's ways
with the variables that `earmark` sets as well, unless they are called "in the plain environment".

The plain loop has PyTorch's own modules at the entrance of the video encoder; the other ways fold the first convolution
on a GPU, unless they are called unfolded.

On the CPU at batch 16. Where there is a GPU, on it at batch 128, 256 and 512 too, with memory, the share of the
bfloat16 peak that a product of large matrices reaches there, and a profile.

    python benchmarks/train_step.py [--batch 16] [--steps 3] [--rounds 3] [--only default compiled] [--width 64]
    python benchmarks/train_step.py --experiments [--gpu-batches 256]    # ways that are not the default of any device
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from earmark.cli.torch_environment import set_torch_environment
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.encoders.folded_convolution import FoldedConv3d, SpatialMaxPool3d
from earmark.methods.replai import AudioVisualModel
from earmark.training.optim import sgd
from earmark.training.speed import compile_encoders, use_channels_last

GPU_BATCHES = (128, 256, 512)


@dataclass(frozen=True)
class Way:
    """A way of running the step.

    Attributes:
        fold: When the first convolution is folded: never, in which case max-pool is PyTorch's 3-D one, too; where the
            package folds it; or always.
        compiler_options: Further options of torch.compile.
        bf16_weights: Keep weights of convolutions and linear layers in bfloat16, and update copies in float32.
        environment: Whether the process has the variables that `earmark` sets; on the CPU only.
    """

    channels_last: bool = False
    fused: bool = False
    compiled: bool = False
    bf16: bool = False
    fold: Literal["never", "by device", "always"] = "by device"
    recompute: bool = False
    cudnn_benchmark: bool = False
    bf16_weights: bool = False
    compiler_options: Mapping[str, bool] = field(default_factory=dict)
    environment: bool = True


CPU_WAYS = {
    "plain": Way(fold="never", environment=False),
    "default": Way(channels_last=True, fused=True),
    "compiled": Way(channels_last=True, fused=True, compiled=True),
    "default in the plain environment": Way(channels_last=True, fused=True, environment=False),
    "compiled in the plain environment": Way(channels_last=True, fused=True, compiled=True, environment=False),
}
CPU_EXPERIMENTS = {
    "plain in earmark's environment": Way(fold="never"),
    "fused": Way(fused=True),
    "channels last": Way(channels_last=True),
    "compiled, unfolded": Way(channels_last=True, fused=True, compiled=True, fold="never"),
    "compiled, folded": Way(channels_last=True, fused=True, compiled=True, fold="always"),
    "recomputed": Way(channels_last=True, fused=True, recompute=True),
}
FAST = Way(channels_last=True, fused=True, compiled=True, bf16=True, cudnn_benchmark=True)
GPU_WAYS = {
    "plain": Way(fold="never"),
    "default": FAST,
    "float32 compiled": replace(FAST, bf16=False),
    "bf16": replace(FAST, compiled=False),
    "float32": replace(FAST, compiled=False, bf16=False),
}
GPU_EXPERIMENTS = {
    "default, unfolded": replace(FAST, fold="never"),
    "default without cuDNN benchmark": replace(FAST, cudnn_benchmark=False),
    "default, CUDA graphs": replace(FAST, compiler_options={"triton.cudagraphs": True}),
    "default, max-autotune": replace(FAST, compiler_options={"max_autotune": True}),
    "default, bf16 weights": replace(FAST, bf16_weights=True),
    "default, recomputed": replace(FAST, recompute=True),
}


def make_inputs(batch_size: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, batch_size, 3, 8, 112, 112, generator=generator).to(device)
    return before, after, torch.randn(batch_size, 1, 125, 80, generator=generator).to(device)


def make_step(way: Way, batch_size: int, device: str, width: int) -> Callable[[], None]:
    """Return a function that does one step."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = way.cudnn_benchmark
    video_encoder, audio_encoder = R2Plus1D(18, width=width), SpecCNN9(width=width)
    set_entrance(video_encoder, way.fold)
    if way.recompute:
        video_encoder.recompute_activations()
        audio_encoder.recompute_activations()
    model = AudioVisualModel(video_encoder, audio_encoder).to(device)
    if way.channels_last:
        use_channels_last(model)
    if way.compiled:
        compile_encoders(model, options=way.compiler_options)
    low = bf16_weights(model) if way.bf16_weights else []
    masters = [weight.detach().float().requires_grad_() for weight in low]
    others = [parameter for parameter in model.parameters() if parameter.dtype is not torch.bfloat16]
    optimizer = sgd([*masters, *others], lr=0.005, fused=way.fused or None)
    inputs = make_inputs(batch_size, device)

    def step() -> None:
        if way.compiler_options.get("triton.cudagraphs"):
            torch.compiler.cudagraph_mark_step_begin()
        model.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=way.bf16):
            loss = model(*inputs)["loss"]
        loss.backward()
        for master, weight in zip(masters, low, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        optimizer.step()
        if low:
            torch._foreach_copy_([weight.data for weight in low], [master.data for master in masters])

    return step


class AlwaysFolded(FoldedConv3d):
    """The first convolution, folded on the CPU as well."""

    def _pays(self, x: Tensor) -> bool:
        return True


class AlwaysFlatPool(SpatialMaxPool3d):
    """The max-pool behind it, as a 2-D one on the CPU as well."""

    def _pays(self, x: Tensor) -> bool:
        return True


def set_entrance(encoder: R2Plus1D, fold: str) -> None:
    """Put other modules of the same numbers at the entrance of the encoder."""
    published = encoder.conv1[0]
    made = {"never": nn.Conv3d, "by device": FoldedConv3d, "always": AlwaysFolded}[fold]
    encoder.conv1[0] = made(3, published.out_channels, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
    encoder.conv1[0].load_state_dict(published.state_dict())
    if fold == "never":
        encoder.conv1[3] = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
    elif fold == "always":
        encoder.conv1[3] = AlwaysFlatPool(3, 2, 1)


def bf16_weights(model: nn.Module) -> list[nn.Parameter]:
    """Turn the weights of convolutions and linear layers to bfloat16, and return them."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    weights = [parameter for layer in layers for parameter in layer.parameters(recurse=False)]
    for weight in weights:
        weight.data = weight.data.bfloat16()
    return weights


def seconds_of(step: Callable[[], None], num_steps: int, device: str) -> float:
    """Return the mean time of some steps."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    for _ in range(num_steps):
        step()
    synchronize()
    return (time.perf_counter() - started) / num_steps


def measure_cpu(names: list[str], batch_size: int, *, num_steps: int, num_rounds: int, width: int) -> None:
    """Measure ways of the CPU in turns, each time in a new process: where its memory lies changes its speed, too."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(num_rounds):
        for name in names:
            command = [sys.executable, __file__, "--one-way", name, "--batch", str(batch_size)]
            command += ["--steps", str(num_steps), "--width", str(width)]
            environment = dict(os.environ)
            if (CPU_WAYS | CPU_EXPERIMENTS)[name].environment:
                set_torch_environment(environment)
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            first, later = map(float, done.stdout.split())
            seconds[name].append(later)
            print(f"{name}: {later:.2f} s a step, the first {first:.1f} s", flush=True)
    plain = seconds["plain"]
    print(f"\nCPU, {torch.get_num_threads()} threads, batch {batch_size}, width {width}; {num_rounds} processes each")
    print("| way | s a step | samples/s | ratio to plain, round by round |\n|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        ratios = [other / mine for other, mine in zip(plain, times, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {median:.2f} ({spread}) | {batch_size / median:.2f} | {ratio} |")


def print_seconds(name: str, batch_size: int, *, num_steps: int, width: int) -> None:
    """Print the seconds of the first step of a way of the CPU, and the median of some further ones."""
    started = time.perf_counter()
    step = make_step((CPU_WAYS | CPU_EXPERIMENTS)[name], batch_size, "cpu", width)
    step()
    print(time.perf_counter() - started)
    print(statistics.median(seconds_of(step, 1, "cpu") for _ in range(num_steps)))


def measure_gpu(
    batch_size: int, *, num_steps: int, num_rounds: int, width: int, ways: Mapping[str, Way] = GPU_WAYS
) -> None:
    peak = bf16_peak_flops()
    flops = flops_of_step(width) * batch_size
    print(f"\n{torch.cuda.get_device_name()}, batch {batch_size}: {flops / 1e12:.1f} TFLOP a step;", end=" ")
    print(f"bfloat16 product of matrices: {peak / 1e12:.0f} TFLOP/s")
    print("| way | ms a step | samples/s | ratio to plain | share of bf16 peak | GiB | s of the first step |")
    print("|---|---|---|---|---|---|---|")
    plain = profiled = None
    for name, way in ways.items():  # one at a time: their memory does not fit side by side
        step = None  # that of the way before
        torch.compiler.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            step = make_step(way, batch_size, "cuda", width)
            first = seconds_of(step, 1, "cuda")
            seconds_of(step, 5, "cuda")
            median = statistics.median(seconds_of(step, num_steps, "cuda") for _ in range(num_rounds))
        except torch.cuda.OutOfMemoryError:
            print(f"| {name} | out of memory | | | | | |", flush=True)
            continue
        plain = plain or (median if name == "plain" else None)
        ratio = f"{plain / median:.2f}" if plain else ""
        gibibytes = torch.cuda.max_memory_allocated() / 2**30
        share = flops / median / peak
        speed = f"{1000 * median:.1f} | {batch_size / median:.0f} | {ratio} | {share:.0%}"
        print(f"| {name} | {speed} | {gibibytes:.1f} | {first:.0f} |", flush=True)
        if name == "default":
            with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                seconds_of(step, 3, "cuda")
    if profiled is not None:
        print("\nwhere the time of default goes:")
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
    step = make_step(Way(fold="never"), 2, "cuda", width)
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
    parser.add_argument("--gpu-batches", type=int, nargs="+", default=GPU_BATCHES)
    parser.add_argument("--experiments", action="store_true", help="measure plain, default and what is no default")
    parser.add_argument("--one-way", metavar="WAY", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.one_way is not None:
        print_seconds(options.one_way, options.batch, num_steps=options.steps, width=options.width)
        return
    chosen, on_gpu = list(dict.fromkeys(["plain", *options.only])), GPU_WAYS
    if options.experiments:
        chosen = ["plain", "compiled", *CPU_EXPERIMENTS]
        on_gpu = {name: GPU_WAYS[name] for name in ("plain", "default")} | GPU_EXPERIMENTS
    timing = {"num_steps": options.steps, "num_rounds": options.rounds, "width": options.width}
    if torch.cuda.is_available():
        for batch_size in options.gpu_batches:
            measure_gpu(batch_size, ways=on_gpu, **timing)
    else:
        print("no GPU: the CPU alone is measured")
    measure_cpu(chosen, options.batch, **timing)


if __name__ == "__main__":
    main()
