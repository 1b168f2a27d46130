"""What this machine has, and what is missing for what: `earmark doctor`.

Beside the path of a sample: nothing calls it but the command line.
"""

import argparse
import importlib
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from earmark import __version__
from earmark.cli.terminal import DONE, FAILED, num_cpus, print_json, screen
from earmark.wording import visible

__all__ = ["Finding", "add_arguments", "examine", "run"]

LIBRARIES = {
    "numpy": "everything",
    "scipy": "finding moments",
    "simplejpeg": "reading and writing prepared videos",
    "pyarrow": "the catalog and the moments of a store",
    "joblib": "preparing several videos at once",
    "lightning_fabric": "pretraining",
    "hydra": "pretrain and evaluate",
    "rich": "tables and progress",
    "matplotlib": "the report",
    "tensorboard": "TensorBoard logs",
    "cv2": "Audible Kitchen",
    "safetensors": "reading and writing weights",
}
PACKAGES = {  # that bring the libraries, where these are not their names
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "lightning_fabric": "lightning-fabric",
    "submitit": "'earmark[slurm]'",
    "torchvision": "'earmark[torchvision]'",
    "transformers": "'earmark[hf]'",
    "wandb": "'earmark[wandb]'",
}
OPTIONAL_LIBRARIES = {
    "torchvision": "the video encoders r3d_18, s3d, swin3d_t and others",
    "transformers": "the encoders hf_video and hf_audio",
    "wandb": "Weights & Biases",
    "submitit": "submitting to SLURM from here",
}
CODECS = (  # name in FFmpeg, mode of PyAV, what it is needed for, whether the core needs it
    ("h264", "r", "reading most videos", True),
    ("aac", "r", "the sound of most videos", True),
    ("mjpeg", "w", "preparing videos", True),
    ("pcm_s16le", "w", "preparing videos", True),
    ("libx264", "w", "Audible Kitchen", True),
    ("aac", "w", "Audible Kitchen", True),
    ("hevc", "r", "reading H.265 videos", False),
    ("vp9", "r", "reading .webm videos", False),
    ("opus", "r", "the sound of .webm and .mkv videos", False),
)
LEAST_FREE_DISK_GB = 2.0  # the demo and a small kitchen with room to spare
LEAST_FREE_MEMORY_GB = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        name: What was looked at.
        found: What was found; what is wrong with it where it is not ok.
        needed_for: What depends on it; empty for plain information.
        required: Whether the core needs it.
        ok: Whether it is as needed.
        install: The command that fixes it; empty where it is ok or no command would.
    """

    name: str
    found: str
    needed_for: str = ""
    required: bool = True
    ok: bool = True
    install: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    folder = Path("earmark_data")
    parser.add_argument(
        "--data-dir", type=Path, default=folder, metavar="DIR", help="where data will be written (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list with an object for each finding")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found.

    Args:
        options: As parsed.

    Returns:
        The exit code: 1 if something that the core needs is missing.
    """
    findings = examine(options.data_dir)
    missing = [finding for finding in findings if finding.required and not finding.ok]
    if options.json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print_table(findings, missing)
    return FAILED if missing else DONE


def _print_table(findings: Sequence[Finding], missing: Sequence[Finding]) -> None:
    from rich.table import Table  # which may be what is missing: --json needs none
    from rich.text import Text

    table = Table("", "what", "found", "needed for", "fixed by", title=f"earmark {__version__}", title_justify="left")
    table.columns[2].overflow = "fold"
    for finding in findings:
        mark = ("ok", "green") if finding.ok else ("missing", "red") if finding.required else ("absent", "yellow")
        table.add_row(Text(*mark), finding.name, visible(finding.found), finding.needed_for, finding.install)
    console = screen()
    console.print(table)
    if missing:
        names = ", ".join(finding.name for finding in missing)
        console.print(Text.assemble(("missing for the core:", "red"), f" {names}"))
    else:
        console.print("Everything that the core needs is here.")


def convolution_problem(torch_version: str, cudnn_version: int, cuda_version: str) -> tuple[str, str] | None:
    """Say what is known to be wrong with the 3-D convolutions of a torch that is built for CUDA.

    Args:
        torch_version: Such as ``2.9.0+cu128``.
        cudnn_version: As torch gives it, such as 91002 for 9.10.2.
        cuda_version: Such as ``12.8``.

    Returns:
        What is wrong and the command that fixes it; None if no fault is known.

    Example:
        >>> convolution_problem("2.9.0+cu128", 91002, "12.8")
        ("torch 2.9.0 has cuDNN's switched off, which is slow", "pip install 'torch>2.9.0'")
        >>> convolution_problem("2.13.0", 92000, "13.0") is None
        True
    """
    if torch_version.partition("+")[0] == "2.9.0":
        return "torch 2.9.0 has cuDNN's switched off, which is slow", "pip install 'torch>2.9.0'"
    major, minor, patch = cudnn_version // 10000, cudnn_version // 100 % 100, cudnn_version % 100
    if not (9, 8) <= (major, minor) <= (9, 14):
        return None
    what = "wrong" if (minor, patch) == (10, 2) else "slow"
    package = f"nvidia-cudnn-cu{cuda_version.partition('.')[0]}"
    return f"cuDNN {major}.{minor}.{patch} is {what} in bfloat16", f"pip install '{package}>=9.15'"


def examine(data_dir: str | os.PathLike[str]) -> list[Finding]:
    """Look at everything that Earmark depends on; nothing here fails on a broken installation.

    Args:
        data_dir: Where data will be written; it need not exist.

    Example:
        >>> [finding.name for finding in examine(".")][:2]
        ['python', 'processor']
    """
    findings = [
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        _processor(),
        *_torch(),
        *_media(),
        *(_library(name, needed_for, required=True) for name, needed_for in LIBRARIES.items()),
        _disk(Path(data_dir)),
        _memory(),
        *(_library(name, needed_for, required=False) for name, needed_for in OPTIONAL_LIBRARIES.items()),
    ]
    return findings


def _processor() -> Finding:
    threads = f"{os.cpu_count()} threads"
    try:
        return Finding("processor", f"{num_cpus()} of {threads} usable")
    except ImportError:  # joblib, which counts them, may be what is missing
        return Finding("processor", threads)


def _library(name: str, needed_for: str, *, required: bool) -> Finding:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken installation may raise anything
        absent = isinstance(error, ModuleNotFoundError)
        found = "not installed" if absent else f"cannot be imported: {str(error).splitlines()[0]}"
        package = PACKAGES.get(name, name)
        install = f"pip install {package}" if absent else f"pip install --force-reinstall {package}"
        return Finding(name, found, needed_for, required, ok=False, install=install)
    return Finding(name, str(getattr(module, "__version__", "installed")), needed_for, required)


def _torch() -> list[Finding]:
    torch_finding = _library("torch", "everything but finding moments and preparing", required=True)
    if not torch_finding.ok:
        return [torch_finding]
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    install = ""
    if gpus:
        found = ", ".join(gpus)
    elif torch.version.cuda is None:
        found = "none: this torch is built for the CPU"
        if shutil.which("nvidia-smi"):
            install = "pip install --force-reinstall torch"
    else:
        found = f"none that torch (CUDA {torch.version.cuda}) can use"
    findings = [
        torch_finding,
        Finding("torch threads", str(torch.get_num_threads())),
        Finding("GPU", found, "pretraining in hours instead of days", False, ok=bool(gpus), install=install),
    ]
    cudnn_version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if torch.version.cuda is not None and cudnn_version is not None:
        problem, install = convolution_problem(torch.__version__, cudnn_version, torch.version.cuda) or ("", "")
        findings.append(
            Finding("3-D convolutions", problem or "sound", "encoders on a GPU", False, ok=not problem, install=install)
        )
    return findings


def _media() -> list[Finding]:
    av_finding = _library("av", "reading and writing videos", required=True)
    if not av_finding.ok:
        return [av_finding]
    import av

    versions = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in av.library_versions.items())
    findings = [av_finding, Finding("FFmpeg in PyAV", versions)]
    for name, mode, needed_for, required in CODECS:
        try:
            av.Codec(name, mode)  # type: ignore[arg-type]
            ok = True
        except ValueError:  # av.codec.codec.UnknownCodecError
            ok = False
        what = f"{name} {'decoder' if mode == 'r' else 'encoder'}"
        # PyAV built from source takes the FFmpeg of the system, which may lack it.
        install = "" if ok else "pip install --force-reinstall --only-binary av av"
        findings.append(Finding(what, "there" if ok else "missing", needed_for, required, ok, install))
    return findings


def _disk(data_dir: Path) -> Finding:
    existing = next((folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.is_dir()), None)
    if existing is None:
        return Finding("disk", f"{data_dir}: no such place", "kitchens, prepared videos and runs", ok=False)
    free_gb = shutil.disk_usage(existing).free / 1e9
    writable = os.access(existing, os.W_OK)
    found = f"{free_gb:.1f} GB free at {existing}" + ("" if writable else ", which cannot be written")
    ok = writable and free_gb >= LEAST_FREE_DISK_GB
    return Finding("disk", found, f"data; {LEAST_FREE_DISK_GB:g} GB are enough for the demo", ok=ok)


def _memory() -> Finding:
    needed_for = f"the demo needs about {LEAST_FREE_MEMORY_GB:g} GB"
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free_gb = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024 / 1e9
    except (OSError, StopIteration, ValueError):
        return Finding("memory", "unknown on this system", needed_for, required=False)
    return Finding("memory", f"{free_gb:.1f} GB free", needed_for, required=False, ok=free_gb >= LEAST_FREE_MEMORY_GB)
