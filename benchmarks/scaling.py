"""Samples a second of pretraining in 1, 2, .. processes, by `earmark pretrain` itself.

Each number of processes trains the same small model on the same prepared kitchen with the same global batch, as
processes of the CPU with one thread each, or one a GPU with --gpus. The first steps are left out. Numbers of processes
are gone through in turns, so that the ratio holds when the machine's speed drifts.

    python benchmarks/scaling.py [--processes 1 2] [--gpus] [--steps 40] [--rounds 3] [OVERRIDE ...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from earmark.kitchen import KitchenSize, make_kitchen

SMALL = (
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=16",
    "backbone.audio.args.width=16",
    "prepare.short_side=72",
    "data_augm.crop_size=64",
    "data_augm.min_short_side=64",
    "data_augm.max_short_side=80",
    "optim.batch_size=16",
)
WARM_UP_STEPS = 5


def samples_per_second(folder: Path, name: str, num_processes: int, options: argparse.Namespace) -> tuple[float, float]:
    """Train for some steps; return samples a second and the share of the time spent waiting for data."""
    processes = f"environment.{'ngpu' if options.gpus else 'force_processes'}={num_processes}"
    where = (f"data.args.base_path={folder / 'kitchen'}", f"environment.data_dir={folder}", f"logging.name={name}")
    rest = ("optim.epochs=1000", f"optim.max_steps={options.steps}", "optim.use_lr_scheduler=false")
    quiet = ("logging.print_freq=1", "logging.log_tb=false", "environment.workers=0")
    overrides = () if options.overrides and options.gpus else SMALL
    subprocess.run(
        [sys.executable, "-m", "earmark", "pretrain", *where, processes, *rest, *quiet, *overrides, *options.overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        check=True,
    )
    lines = [json.loads(line) for line in (folder / "outputs" / name / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step" and line["step"] > WARM_UP_STEPS]
    seconds_per_sample = statistics.mean(1 / line["samples_per_second"] for line in steps)
    return 1 / seconds_per_sample, statistics.mean(line["data_wait_share"] for line in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of the training")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--gpus", action="store_true", help="one GPU a process instead of one thread")
    parser.add_argument("--steps", type=int, default=40, help=f"of which the first {WARM_UP_STEPS} are left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the generated files here")
    options = parser.parse_args()
    if options.steps <= WARM_UP_STEPS:
        parser.error(f"--steps must be over {WARM_UP_STEPS}: the first {WARM_UP_STEPS} are left out")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        make_kitchen(
            folder / "kitchen",
            size=KitchenSize(3, 4, 60.0, width=128, height=72, fps=16, sample_rate=16000),
            progress=False,
        )
        found: dict[int, list[tuple[float, float]]] = {number: [] for number in options.processes}
        for turn in range(options.rounds):
            for number in options.processes:
                found[number].append(samples_per_second(folder, f"p{number}_r{turn}", number, options))
        base = statistics.median(speed for speed, _ in found[options.processes[0]])
        print("| processes | samples/s | times the first | waiting for data |\n|---|---|---|---|")
        for number, results in found.items():
            speeds = [speed for speed, _ in results]
            speed, wait = statistics.median(speeds), statistics.median(share for _, share in results)
            print(
                f"| {number} | {speed:.1f} ({min(speeds):.1f} to {max(speeds):.1f}) | {speed / base:.2f} | {wait:.0%} |"
            )


if __name__ == "__main__":
    main()
