"""Checkpoints: written so that no crash can damage one, read as untrusted data.

In the path of a sample this file stands between training, which writes checkpoints, and evaluation, which reads them. A
checkpoint is a file of torch's zip format that holds tensors and plain data only. `save_checkpoint` adds two entries to
what it is given: ``format_version`` and ``versions`` (of earmark, torch and python).
"""

import logging
import platform
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from earmark import __version__
from earmark.atomic import replacing, temporaries
from earmark.encoders.own_checkpoint import FORMAT_VERSION
from earmark.encoders.torch_file import read_torch_file
from earmark.encoders.torch_outline import DamagedTorchFileError, TorchFileError, read_outline

_EPOCH_NAME = re.compile(r"checkpoint_\d{4,}\.pt")
_LATEST_NAME = re.compile(r"latest_(\d{8,})\.pt")

_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message names the file and the reason."""


class DamagedCheckpointError(CheckpointError):
    """A file that is not whole: cut off, or changed since it was written."""


def epoch_checkpoint_path(directory: Path, num_epochs: int) -> Path:
    """Return the name of the checkpoint after so many epochs; such files are kept for good.

    Example:
        >>> epoch_checkpoint_path(Path("checkpoints"), 10).name
        'checkpoint_0010.pt'
    """
    return directory / f"checkpoint_{num_epochs:04d}.pt"


def latest_checkpoint_path(directory: Path, num_steps: int) -> Path:
    """Return the name of the checkpoint after so many steps; only the newest of such files are kept.

    Example:
        >>> latest_checkpoint_path(Path("checkpoints"), 1230).name
        'latest_00001230.pt'
    """
    return directory / f"latest_{num_steps:08d}.pt"


def best_checkpoint_path(directory: Path) -> Path:
    """Return the name of the checkpoint that the probe found best; a resume does not look at it.

    Example:
        >>> best_checkpoint_path(Path("checkpoints")).name
        'best.pt'
    """
    return directory / "best.pt"


def keep_as(name: Path, path: Path) -> None:
    """Give a checkpoint a further name, whatever had that name before; without a copy where the disk can do so.

    Args:
        name: The further name, in the folder of `path`.
        path: A checkpoint that is whole.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "latest_00000001.pt"
        >>> save_checkpoint(path, {"position": {"step": 1}})
        >>> keep_as(best_checkpoint_path(path.parent), path)
        >>> load_checkpoint(best_checkpoint_path(path.parent))["position"]["step"]
        1
    """
    with replacing(name) as temporary:
        try:
            temporary.hardlink_to(path)
        except OSError:  # a disk without hard links
            shutil.copyfile(path, temporary)


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that the file is either the whole new one or, after a crash at any time, the one before.

    See `earmark.atomic.replacing`.

    Args:
        path: File to write; its folder is made if need be.
        state: Tensors and plain data, by name.

    Raises:
        OSError: If the file can't be written, on a full disk for instance.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "latest_00000001.pt"
        >>> save_checkpoint(path, {"position": {"epoch": 0, "batch": 1, "step": 1}})
        >>> load_checkpoint(path)["position"]["step"]
        1
    """
    versions = {"earmark": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    # Given a name instead of an open file, torch would write the temporary name into the file.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"format_version": FORMAT_VERSION, "versions": versions, **state}, file)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it can run code.

    Args:
        path: File written by `save_checkpoint`.

    Returns:
        What was saved, with ``format_version`` and ``versions``.

    Raises:
        DamagedCheckpointError: If the file is cut off or its checksums don't match.
        CheckpointError: If there is no such file, it is not Earmark's, or a newer Earmark wrote it.
    """
    return _read(Path(path), read_torch_file)


def latest_checkpoint(directory: str | Path) -> Path | None:
    """Return the path of the checkpoint that `load_latest_checkpoint` reads.

    Args:
        directory: Folder of checkpoints; it need not exist.

    Returns:
        The path, or None where there is no checkpoint at all.

    Raises:
        CheckpointError: As `load_latest_checkpoint`.
    """
    newest = load_latest_checkpoint(directory)
    return None if newest is None else newest[0]


def load_latest_checkpoint(directory: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the whole checkpoint of a folder that has the most steps behind it.

    A damaged file is skipped, with a warning in the log that names it.

    Args:
        directory: Folder of checkpoints; it need not exist.

    Returns:
        The path and what `load_checkpoint` returns of it, or None where there is no checkpoint at all.

    Raises:
        CheckpointError: If the newest whole one can't be used (see `load_checkpoint`), or every one is damaged: a run
            must not start from nothing where there was progress.
    """
    damaged = []
    steps: dict[Path, int] = {}
    for path in sorted(Path(directory).glob("*.pt")):
        try:
            if match := _LATEST_NAME.fullmatch(path.name):
                steps[path] = int(match[1])
            elif _EPOCH_NAME.fullmatch(path.name):  # named by epochs; the step is inside
                steps[path] = _num_steps(path)
        except DamagedCheckpointError as error:
            damaged.append(path)
            _log.warning("skipped: %s", error)
    for path in sorted(steps, key=steps.__getitem__, reverse=True):
        try:
            return path, load_checkpoint(path)
        except DamagedCheckpointError as error:
            damaged.append(path)
            _log.warning("skipped: %s", error)
    if damaged:
        raise CheckpointError(f"{directory}: every checkpoint is damaged: {', '.join(path.name for path in damaged)}")
    return None


def _num_steps(path: Path) -> int:
    """Return how many steps a checkpoint has behind it; its tensors are not read."""
    try:
        return int(_read(path, read_outline)["position"]["step"])
    except KeyError as error:
        raise CheckpointError(f"{path}: not the checkpoint of a training run (it has no position)") from error


def _read(path: Path, reader: Callable[[Path], Any]) -> dict[str, Any]:
    """Read a checkpoint, or its outline."""
    try:
        state = reader(path)
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error
    except DamagedTorchFileError as error:
        raise DamagedCheckpointError(str(error)) from error
    except TorchFileError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(state, dict) or "format_version" not in state:
        raise CheckpointError(f"{path}: not an Earmark checkpoint (it has no format_version)")
    return state


def remove_old_latest(directory: Path, *, retain: int) -> None:
    """Remove all but the newest `retain` step checkpoints, and what a killed process left half written.

    Example:
        >>> remove_old_latest(Path("no such folder"), retain=2)
    """
    steps = {path: int(match[1]) for path in directory.glob("*.pt") if (match := _LATEST_NAME.fullmatch(path.name))}
    newest_first = sorted(steps, key=steps.__getitem__, reverse=True)
    half_written = [temporary for temporary, path in temporaries(directory) if path.suffix == ".pt"]
    for path in [*newest_first[retain:], *half_written]:
        path.unlink(missing_ok=True)


def rng_state() -> dict[str, Any]:
    """Return the state of the global generators of python, NumPy and torch (CPU, and the current CUDA device if used).

    Returns:
        Plain data and tensors, for a checkpoint and `set_rng_state`.

    Example:
        >>> state = rng_state()
        >>> first = torch.rand(3)
        >>> set_rng_state(state)
        >>> bool((torch.rand(3) == first).all())
        True
    """
    name, keys, position, has_gauss, cached_gaussian = np.random.get_state(legacy=True)  # noqa: NPY002
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached_gaussian),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call, unused-ignore]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put back what `rng_state` returned; the CUDA part is left out where there is no CUDA.

    Args:
        state: From `rng_state`, possibly by way of a checkpoint.
    """
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached_gaussian = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached_gaussian))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
