"""`earmark runs`: what runs there are, how far they came and what their probes found.

Beside the path of a sample: it reads what `earmark.run_logging` and `earmark.run_lock` left in the run folders.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from earmark.cli_build import say, screen
from earmark.datasets.listing import reason_of
from earmark.run_lock import holder_of
from earmark.run_logging import METRICS_FILE

__all__ = ["Run", "list_runs", "runs_in"]


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the list.

    Attributes:
        name: Of the run's folder.
        state: "running", "finished", or "stopped", which the same command goes on with.
        epoch: Whole epochs done.
        epochs: Epochs that were asked for.
        step: Steps written down.
        loss: Of the last epoch, or of the last step before there was one; None before the first step.
        probe: What the best probe found: its first number, such as top-1 of verbs in %; None without one.
        probe_name: What that number is.
        probe_epoch: After how many epochs.
    """

    name: str
    state: str
    epoch: int
    epochs: int | None
    step: int
    loss: float | None
    probe: float | None
    probe_name: str | None
    probe_epoch: int | None


def list_runs(data_dir: Path, *, as_json: bool) -> bool:
    """Print the runs below a data folder.

    Args:
        data_dir: ``environment.data_dir`` of the runs.
        as_json: Print JSON instead of a table.

    Returns:
        Whether there is any.
    """
    runs = list(runs_in(data_dir / "outputs"))
    if as_json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    elif not runs:
        say(f"no runs in {data_dir / 'outputs'}")
    else:
        table = Table("run", "state", "epoch", "step", "loss", "best probe")
        for run in runs:
            loss = "" if run.loss is None else f"{run.loss:.4f}"
            probe = "" if run.probe is None else f"{run.probe_name} {run.probe:.2f} (epoch {run.probe_epoch})"
            epoch = f"{run.epoch}/{'?' if run.epochs is None else run.epochs}"
            table.add_row(run.name, run.state, epoch, str(run.step), loss, probe)
        screen().print(table)
    return bool(runs)


def runs_in(outputs: Path) -> Iterator[Run]:
    """Yield the runs of a folder by name; a folder that no training wrote to is none.

    Args:
        outputs: Folder of run folders; it need not exist.
    """
    for folder in _folders_in(outputs):
        config_path = folder / "config.yaml"
        lines = list(_lines(folder / METRICS_FILE))
        epochs = _epochs_asked_for(config_path)
        ended = [line for line in lines if line.get("kind") == "epoch"]
        done = int(ended[-1]["epoch"]) if ended else 0
        probes = [(scores[0][1], scores[0][0], line) for line in lines if (scores := _scores(line))]
        best = max(probes, key=lambda probe: probe[0]) if probes else None
        state = "finished" if epochs is not None and done >= epochs else "stopped"
        losses = [line["loss"] for line in ended or lines if line.get("loss") is not None]
        yield Run(
            name=folder.name,
            state="running" if holder_of(folder) else state,
            epoch=done,
            epochs=epochs,
            step=int(lines[-1]["step"]) if lines else 0,
            loss=losses[-1] if losses else None,
            probe=best[0] if best else None,
            probe_name=best[1].replace("_", " ") if best else None,
            probe_epoch=int(best[2]["epoch"]) if best else None,
        )


def _folders_in(outputs: Path) -> Iterator[Path]:
    """Yield the folders with a run's configuration, by name; one that can't be looked into is told."""
    try:
        entries = sorted(outputs.iterdir())
    except FileNotFoundError:
        return
    for folder in entries:
        try:
            (folder / "config.yaml").stat()
            yield folder
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            say(f"{folder}: {reason_of(error)}, left out")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a metrics file; one that a running or killed process has not finished is left out."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            yield line


def _scores(line: dict[str, Any]) -> list[tuple[str, float]]:
    if line.get("kind") != "probe":
        return []
    return [
        (name, value) for name, value in line.items() if name not in ("kind", "step", "epoch") and value is not None
    ]


def _epochs_asked_for(config_path: Path) -> int | None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        epochs = OmegaConf.select(OmegaConf.load(config_path), "optim.epochs")
    except (OmegaConfBaseException, YAMLError, OSError):
        return None
    return epochs if isinstance(epochs, int) else None
