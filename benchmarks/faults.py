"""Does a run survive being killed? Trials of SIGKILL at random moments, and runs that must equal an undisturbed one.

Each trial trains the same small model on the same prepared kitchen through `earmark pretrain`, is killed at random
moments (half of them while a checkpoint is being written) and started again until it is done. It survived if it ended;
it is equal if model, optimizer, schedule, average, random states and logged losses are those of the undisturbed run,
bit for bit. On the CPU, in one thread.

    python benchmarks/faults.py [--trials 20] [--kills 2] [--epochs 6] [--folder DIR]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from earmark.kitchen import KitchenSize, make_kitchen
from earmark.training.checkpoint import latest_checkpoint, load_checkpoint

SMALL = (
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=4",
    "backbone.audio.args.width=4",
    "prepare.short_side=64",
    "prepare.workers=1",
    "data_augm.crop_size=32",
    "data_augm.min_short_side=32",
    "data_augm.max_short_side=40",
    "optim.batch_size=2",
    "optim.ema_decay=0.9",
    "logging.print_freq=1",
    "logging.save_freq=2",
    "logging.save_freq_steps=1",
    "logging.log_tb=false",
    "environment.accelerator=cpu",
)


def command(folder: Path, name: str, *, epochs: int, workers: int) -> list[str]:
    where = (f"data.args.base_path={folder / 'kitchen'}", f"environment.data_dir={folder}", f"logging.name={name}")
    rest = (f"optim.epochs={epochs}", f"environment.workers={workers}")
    return [sys.executable, "-m", "earmark", "pretrain", *where, *SMALL, *rest]


def killed_at(process: "subprocess.Popen[bytes]", run_dir: Path, how: str, draw: random.Random) -> str:
    """Kill a run that has begun; say when, or that it ended first."""
    metrics, checkpoints = run_dir / "metrics.jsonl", run_dir / "checkpoints"
    size = metrics.stat().st_size if metrics.exists() else 0
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > size):
        time.sleep(0.005)  # until this life has done a step
    time.sleep(draw.uniform(0.0, 1.0))
    moment = "between"
    if how == "writing":
        while process.poll() is None and not any(checkpoints.glob(".*.tmp.pt")):
            pass
        moment = "while a checkpoint was written"
    if process.poll() is not None:
        return "ended before"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return moment


def trial(folder: Path, name: str, *, epochs: int, workers: int, kills: int, draw: random.Random) -> Counter[str]:
    moments: Counter[str] = Counter()
    for number in range(kills):
        process = subprocess.Popen(
            command(folder, name, epochs=epochs, workers=workers), start_new_session=True, stderr=subprocess.DEVNULL
        )
        how = "anywhere" if number % 2 else "writing"
        moments[killed_at(process, folder / "outputs" / name, how, draw)] += 1
    subprocess.run(command(folder, name, epochs=epochs, workers=workers), check=False, stderr=subprocess.DEVNULL)
    return moments


def end_of(run_dir: Path) -> dict[str, Any]:
    """Return all that must be equal."""
    path = latest_checkpoint(run_dir / "checkpoints")
    assert path is not None
    state = load_checkpoint(path)
    for timed in ("seconds", "data_wait_seconds"):
        del state["epoch_totals"][timed]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    kept = {"kind", "step", "epoch", "loss", "contrastive_loss", "state_change_loss", "lr"}
    state["metrics"] = [
        {name: value for name, value in line.items() if name in kept} for line in lines if line["kind"] != "device"
    ]
    for identity in ("config", "versions"):  # name and number of workers differ by intention
        del state[identity]
    return state


def equal(one: Any, other: Any) -> bool:
    """Compare nested plain data and tensors, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(left, right) for left, right in zip(one, other, strict=True))
    return bool(one == other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2, help="in each trial")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the generated files here")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        make_kitchen(
            folder / "kitchen",
            size=KitchenSize(2, 2, 40.0, width=96, height=64, fps=16, sample_rate=16000),
            progress=False,
        )
        subprocess.run(command(folder, "undisturbed", epochs=options.epochs, workers=0), check=True)
        expected = end_of(folder / "outputs" / "undisturbed")
        print(f"undisturbed: {expected['position']['step']} steps")
        print("\n| loader workers | trials | kills | of them while a checkpoint was written | survived | equal |")
        print("|---|---|---|---|---|---|")
        failed = False
        for workers in (0, 1, 2):
            trials = [number for number in range(options.trials) if number % 3 == workers]
            survived, same, moments = 0, 0, Counter[str]()
            for number in trials:
                name = f"trial_{number:02d}"
                moments += trial(folder, name, epochs=options.epochs, workers=workers, kills=options.kills, draw=draw)
                found = end_of(folder / "outputs" / name)
                survived += found["position"]["epoch"] == options.epochs
                same += equal(found, expected)
            writing = moments["while a checkpoint was written"]
            print(
                f"| {workers} | {len(trials)} | {writing + moments['between']} | {writing} | {survived} | {same} |",
                flush=True,
            )
            failed |= not survived == same == len(trials)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
