"""Samples a second of training on the CPU, alone and beside two busy loops, by how threads wait for one another.

OpenMP's threads meet after every piece of work. Those that come first spin, which costs nothing on an idle machine; on
a busy one they spin while the thread they wait for has no core. Each way of waiting is a process of its own, since the
library reads it once, when torch is loaded; all ways take turns. The model is the demo's: two clips of 8 x 64 x 64 and
a log-mel spectrogram, encoders of width 16.

    python benchmarks/busy.py [--rounds 3] [--seconds 10] [--threads 2]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

BATCH = 16
WAYS = {
    "unset: spinning for milliseconds": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "passive, GOMP_SPINCOUNT=1000 (what `earmark` sets)": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"},
}
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def samples_per_second(seconds: float, num_threads: int) -> float:
    """Train for some seconds in this process."""
    import torch

    from earmark.encoders import R2Plus1D, SpecCNN9
    from earmark.methods.replai import AudioVisualModel
    from earmark.training.optim import sgd
    from earmark.training.speed import use_channels_last

    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    model = AudioVisualModel(R2Plus1D(10, width=16), SpecCNN9(width=16))
    use_channels_last(model)
    optimizer = sgd(model.parameters(), lr=0.005)
    before, after = torch.randn(2, BATCH, 3, 8, 64, 64)
    audio = torch.randn(BATCH, 1, 125, 80)

    def step() -> None:
        optimizer.zero_grad()
        model(before, after, audio)["loss"].backward()
        optimizer.step()

    step()
    started, num_steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or num_steps < 2:
        step()
        num_steps += 1
    return BATCH * num_steps / (time.perf_counter() - started)


def measured(way: dict[str, str], num_busy: int, options: argparse.Namespace) -> float:
    """Train in a process of its own, beside some that never rest."""
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS} | way
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_busy)]
    try:
        command = [sys.executable, __file__, "--train", "--seconds", str(options.seconds)]
        command += ["--threads", str(options.threads)]
        return float(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--busy", type=int, default=2, help="busy loops (default: %(default)s)")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(samples_per_second(options.seconds, options.threads))
        return
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for num_busy in (0, options.busy):
            for name, way in WAYS.items():
                rates.setdefault((name, num_busy), []).append(measured(way, num_busy, options))
                print(f"{name}, {num_busy} busy: {rates[name, num_busy][-1]:.1f}", file=sys.stderr, flush=True)
    print(f"{os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f} at the end")
    print(f"| threads wait by | samples/s alone | beside {options.busy} busy loops | share |\n|---|---|---|---|")
    for name in WAYS:
        cells, medians = [], []
        for num_busy in (0, options.busy):
            values = rates[name, num_busy]
            medians.append(statistics.median(values))
            cells.append(f"{medians[-1]:.1f} ({min(values):.1f} to {max(values):.1f})")
        print(f"| {name} | {cells[0]} | {cells[1]} | {medians[1] / medians[0]:.2f} |")


if __name__ == "__main__":
    main()
