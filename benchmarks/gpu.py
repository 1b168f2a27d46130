"""All that is claimed of a GPU, measured by one command into one markdown file.

Sections, in this order; each is a process of its own with a time limit and writes its part as it goes, so that neither
a crash nor a limit loses what was measured before:

- ``tests``: the tests marked gpu.
- ``step``: the training step on ready inputs, in every way that `train_step.py` has, by batch size.
- ``transforms``: crops and log-mels on the device.
- ``kitchen``: generates and prepares the videos for those below, once a folder.
- ``loader``: `load_batches` into device memory, by threads and by worker processes.
- ``features``: features of labelled clips as `earmark evaluate` computes them, beside the loader alone; the probe.
- ``end_to_end``: `earmark pretrain` as a user starts it, for a minute, by what it writes down; what 100 epochs at the
  size of EPIC-KITCHENS-100 would take.

The limits add up to under 40 minutes, and 25 are expected of 16 cores; where a call may take ten, ask for sections one
by one with the same ``--out`` and ``--folder``: ``tests``, then ``step``, then ``kitchen loader``, then ``transforms
features``, then ``end_to_end``. Nothing is fetched. The package need not be installed.

    python benchmarks/gpu.py [--sections tests step ...] [--out DIR] [--folder DIR] [--hours 4] [--batches 256 128 512]

``--cpu`` runs every line of it in the smallest sizes on a machine without a GPU; its numbers mean nothing.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Seconds that a section may take, by its order in the file.
LIMITS = {
    "tests": 420,
    "step": 560,
    "transforms": 60,
    "kitchen": 420,
    "loader": 150,
    "features": 150,
    "end_to_end": 560,
}
NO_GPU = 2


def facts(*, cpu: bool) -> list[str]:
    """Return what the numbers hold for: card, driver, versions, commit."""
    import torch

    lines = [f"{time.strftime('%Y-%m-%d')}, commit {_output('git', 'rev-parse', '--short', 'HEAD') or 'unknown'}"]
    if cpu:
        lines.append("**the CPU in the smallest sizes: to try this script, not to measure**")
    else:
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[:1]
        lines.append(
            f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, driver {''.join(driver) or 'unknown'}, "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    lines.append(
        f"{len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {version('numpy')}"
    )
    return lines


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def compose(out: Path, *, cpu: bool) -> Path:
    """Put the parts that are there into one file, in the order of the sections."""
    parts = [out / f"{section}.md" for section in LIMITS if (out / f"{section}.md").exists()]
    lines = ["# Measured by benchmarks/gpu.py", "", *(f"- {fact}" for fact in facts(cpu=cpu))]
    for part in parts:
        lines += ["", f"## {part.stem.replace('_', ' ')}", "", part.read_text().strip()]
    target = out / "gpu.md"
    target.write_text("\n".join(lines) + "\n")
    return target


def run_section(section: str, arguments: list[str], out: Path) -> bool:
    """Run a section as a process with a time limit; return whether it ended well. Its part is in the folder anyway."""
    part = out / f"{section}.md"
    part.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("gpu_sections.py")), section, *arguments]
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    print(f"{section}, at most {LIMITS[section]} s", flush=True)
    started = time.monotonic()
    # a group of its own, so that a limit ends what it started too
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, start_new_session=True
    )
    try:
        code = process.wait(LIMITS[section])
        why = "" if code == 0 else f"ended with exit code {code}"
    except subprocess.TimeoutExpired:
        why = f"stopped after {LIMITS[section]} s, its limit"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with part.open("a") as file:
        file.write(f"\n{f'**{why}**; t' if why else 'T'}ook {time.monotonic() - started:.0f} s.\n")
    print(f"{section}: {why or 'done'}", flush=True)
    return not why


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--out", type=Path, default=Path("earmark_data/gpu_benchmark"), help="folder of the results")
    parser.add_argument("--folder", type=Path, default=Path("earmark_data/gpu_benchmark"), help="of kitchen and runs")
    parser.add_argument("--hours", type=float, default=4.0, help="of kitchen")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run of end_to_end, once it is warm")
    parser.add_argument("--batches", nargs="+", type=int, default=[256, 128, 512], help="of the step")
    parser.add_argument("--workers", type=int, help="of the run and of evaluation; one per core if not given")
    parser.add_argument("--cpu", action="store_true", help="try every line in the smallest sizes, without a GPU")
    options = parser.parse_args()
    import torch

    if not options.cpu and not torch.cuda.is_available():
        print("no GPU that torch can use here; --cpu tries every line of this script on the CPU", file=sys.stderr)
        return NO_GPU
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = ["--part", str(options.out.resolve()), "--folder", str(options.folder.resolve())]
    arguments += ["--hours", str(options.hours), "--seconds", str(options.seconds)]
    arguments += ["--batches", *map(str, options.batches), *(["--cpu"] if options.cpu else [])]
    arguments += ["--workers", str(options.workers or len(os.sched_getaffinity(0)))]
    ended_well = []
    for section in (section for section in LIMITS if section in options.sections):
        ended_well.append(run_section(section, arguments, options.out))
        target = compose(options.out, cpu=options.cpu)
    print(target.read_text())
    print(f"written to {target}")
    return 0 if all(ended_well) else 1


if __name__ == "__main__":
    raise SystemExit(main())
