#!/usr/bin/env python3
"""Earmark under every Python that it names, with the newest and with the oldest libraries that pyproject.toml allows.

    .ci/matrix.py                                 every leg
    .ci/matrix.py --only 3.11-oldest 3.13-newest  some of them
    .ci/matrix.py --jobs 2                        two at once; each prints all that it printed when it is done
    .ci/matrix.py --requirements oldest --python 3.13 --without-torch   what a leg installs, and nothing else

A leg is a fresh environment with Earmark and its libraries, in which the tests of media, moments, preparing, locks,
configuration and commands run. Where it has torch, a tiny demo runs too. torch without CUDA is to be had for Python
3.11 alone (5 GB elsewhere), so other legs go without, and run what needs none; --torch-everywhere gives it to them all.
The version of torch is that of constraints.txt in every leg unless --oldest-torch asks for the oldest: 3 GB of CUDA.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")
TORCH_PYTHON = "3.11"
COMES_WITH_TORCH = ("torch", "lightning-fabric", "tensorboard")
TESTS = re.compile(
    r"test_.*(media|moments|onset|prepar|lock|config|cli|doctor|depend|without_torch)|/(media|moments|preparation|cli)/"
)
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<specifier>[^;]*)(;\s*python_version\s*>=\s*'(?P<python>[\d.]+)')?")


@dataclass(frozen=True)
class Leg:
    """One environment: which Python, which libraries."""

    python: str
    age: str
    with_torch: bool
    oldest_torch: bool = False

    @property
    def name(self) -> str:
        """As it is given to --only."""
        return f"{self.python}-{self.age}"


def requirements(python: str, age: str, *, with_torch: bool) -> dict[str, str]:
    """Return the specifier of each library as pyproject.toml has it, or for "oldest" its lower bound alone.

    Args:
        python: Version of Python, such as ``3.12``: lines for newer ones do not hold.
        age: "newest" or "oldest".
        with_torch: Whether torch and what comes with it are among them.
    """
    found: dict[str, str] = {}
    for text in PROJECT["dependencies"]:
        match = REQUIREMENT.fullmatch(text)
        if match is None:
            raise SystemExit(f"pyproject.toml: {text!r} is not NAME>=VERSION with or without a Python")
        since = match["python"]
        if since is not None and numbers(since) > numbers(python):
            continue
        if match["name"] in COMES_WITH_TORCH and not with_torch:
            continue
        specifier = match["specifier"].strip()
        if age == "oldest":
            bounds = [part.removeprefix(">=") for part in specifier.split(",") if part.startswith(">=")]
            if len(bounds) != 1:
                raise SystemExit(f"pyproject.toml: {text!r} has no lower bound")
            if match["name"] in found and numbers(found[match["name"]].removeprefix("==")) > numbers(bounds[0]):
                continue
            specifier = f"=={bounds[0]}"
        found[match["name"]] = specifier
    return found


def numbers(version: str) -> list[int]:
    """Return a version as something that can be compared."""
    return [int(part) for part in version.split(".") if part.isdigit()]


def python_command(version: str) -> str | None:
    """Return a Python of a version: from PATH or from pyenv; None if neither has one that runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in candidates:
        if candidate is None:
            continue
        done = subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False)
        if not done.returncode:
            return candidate
    return None


def outcome_of(leg: Leg, scratch: Path) -> str:
    """Run a leg, print all that it printed when it is done, and say how it ended."""
    python = python_command(leg.python)
    if python is None:
        return f"NOT RUN: no Python {leg.python} on PATH or in pyenv"
    began = time.monotonic()
    output = scratch / f"{leg.name}.txt"
    try:
        with output.open("w") as file:
            run_leg(leg, python, scratch, partial(run, output=file))
        outcome = f"passed in {time.monotonic() - began:.0f} s"
    except subprocess.CalledProcessError as error:
        outcome = f"FAILED: {error.cmd[0]} {' '.join(error.cmd[1:4])} ended with {error.returncode}"
    shutil.rmtree(scratch / leg.name, ignore_errors=True)
    header = f"== {leg.name}, {'with' if leg.with_torch else 'without'} torch"
    print(f"\n{header}\n{output.read_text(errors='replace')}", end="", flush=True)  # in one piece beside other legs
    return outcome


def run_leg(leg: Leg, python: str, scratch: Path, run: Callable[..., None]) -> None:
    """Make the environment of a leg and run its checks.

    Raises:
        subprocess.CalledProcessError: If one of them fails.
    """
    environment = scratch / leg.name
    run(python, "-m", "venv", environment)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip.append("--no-compile")  # what is imported is compiled then: a part of it
    wanted = requirements(leg.python, leg.age, with_torch=leg.with_torch)
    if not leg.oldest_torch:
        wanted.pop("torch", None)
        pip += ["--constraint", ROOT / "constraints.txt"]
    lines = [f"{name}{specifier}" for name, specifier in wanted.items()]
    if leg.with_torch and not leg.oldest_torch:
        lines.append("torch")
    run(*pip, *lines, "pytest>=8")
    run(*pip, "--no-deps", ROOT)
    command = environment / "bin/earmark"
    run(environment / "bin/python", "-m", "pip", "list", "--disable-pip-version-check", "--format", "freeze")
    tests = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if TESTS.search(str(path))]
    # Old libraries warn of new ones; that these are no errors there is all that differs.
    lenient = ["-W", "default"] if leg.age == "oldest" else []
    run(environment / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *lenient, *tests)
    if leg.with_torch:
        run(command, "demo", "--size", "tiny", "--out", scratch / f"{leg.name}-demo")
        return
    kitchen, data = scratch / f"{leg.name}-kitchen", scratch / f"{leg.name}-data"
    run(command, "kitchen", kitchen, "--preset", "tiny", "--kitchens", "1", "--videos", "1")
    run(command, "moments", kitchen)
    run(command, "prepare", "data=folder", f"data.args.base_path={kitchen}", f"environment.data_dir={data}")


def run(*command: object, output: TextIO) -> None:
    """Run a command and write it and what it prints to a file."""
    words = [str(word) for word in command]
    shown = " ".join(words)
    print("+", shown if len(shown) < 400 else shown[:400] + " ...", file=output, flush=True)
    # The installed package is what counts, not one that the shell's PYTHONPATH names; and what is compiled is kept.
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    subprocess.run(words, env=environ, cwd=ROOT, check=True, stdout=output, stderr=subprocess.STDOUT)


def main() -> int:
    """Run the legs and say how each ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="LEG", help="PYTHON-newest or PYTHON-oldest")
    parser.add_argument("--jobs", type=int, default=1, help="so many legs at once (default: 1)")
    parser.add_argument("--folder", type=Path, help="where the environments are made (default: for temporary files)")
    parser.add_argument("--torch-everywhere", action="store_true", help="torch for every Python")
    parser.add_argument("--oldest-torch", action="store_true", help="the oldest torch in the oldest legs")
    parser.add_argument("--requirements", choices=["newest", "oldest"], help="print what a leg installs")
    parser.add_argument("--python", choices=PYTHONS, default=PYTHONS[0], help="for --requirements")
    parser.add_argument("--without-torch", action="store_true", help="for --requirements")
    options = parser.parse_args()
    if options.requirements:
        for name, specifier in requirements(
            options.python, options.requirements, with_torch=not options.without_torch
        ).items():
            print(f"{name}{specifier}")
        return 0
    legs = [
        Leg(python, age, options.torch_everywhere or python == TORCH_PYTHON, options.oldest_torch and age == "oldest")
        for python in PYTHONS
        for age in ("newest", "oldest")
    ]
    unknown = set(options.only or ()) - {leg.name for leg in legs}
    if unknown:
        parser.error(f"no such leg: {', '.join(sorted(unknown))}")
    legs = [leg for leg in legs if not options.only or leg.name in options.only]
    if options.jobs > 1:  # each takes its share of the processors: all of them each would wait for one another
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch, ThreadPoolExecutor(options.jobs) as pool:
        names = [leg.name for leg in legs]
        outcomes = dict(zip(names, pool.map(partial(outcome_of, scratch=Path(scratch)), legs), strict=True))
    print()
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    failed = [name for name, outcome in outcomes.items() if outcome.startswith("FAILED")]
    missing = [name for name, outcome in outcomes.items() if outcome.startswith("NOT RUN")]
    return 1 if failed or (missing and os.environ.get("CI") == "true") or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
