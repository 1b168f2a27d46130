"""`evaluate.submission`: the answers of a model as a challenge's file, validated as the challenge would.

Beside the path of a sample: `earmark.cli.evaluate` calls this when the answers are there.
"""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli.config import ConfigError
from earmark.cli.config_schema import EGO4D_TASKS
from earmark.cli.judged import Judged
from earmark.cli.terminal import say
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.datasets import DatasetRecords
    from earmark.evaluation import SupervisionLevels, Task

__all__ = ["require_submittable", "submit"]


def require_submittable(path: Path, dataset: "DatasetRecords", task: str) -> Path:
    """Return the folder of the official files that a submission is validated against, before the long work starts.

    Args:
        path: Of the file to write.
        dataset: What is judged.
        task: By what.

    Raises:
        ConfigError: If the data set has no such files, or no challenge of the task.
        OSError: If the file cannot be written.
    """
    from earmark.atomic import require_writable
    from earmark.datasets import Ego4D, EpicKitchens, EpicKitchens55

    if isinstance(dataset, Ego4D):
        if task not in EGO4D_TASKS:
            raise ConfigError(f"evaluate.submission: Ego4D has no challenge of {task}")
        require_writable(path.parent)
        return dataset.annotations_path
    if not isinstance(dataset, EpicKitchens) or isinstance(dataset, EpicKitchens55):
        raise ConfigError(
            f"evaluate.submission: data {dataset.name} belongs to no challenge; EPIC-KITCHENS-100, a kitchen and Ego4D "
            "do"
        )
    require_writable(path.parent)
    return dataset.annotations_path


def submit(task: "Task[Any, Any]", scores: Any, path: Path, *, judged: Judged, annotations: Path) -> None:
    """Write the file, and read it as `earmark score` does.

    Args:
        task: Whose answers.
        scores: The answers.
        path: Of the file.
        judged: What gave them.
        annotations: Folder of the official files.

    Raises:
        ConfigError: If the task has no challenge, or the file is not what the challenge takes, as where rows of the
            annotations were left out; each fault is named.
    """
    from earmark.evaluation import SubmissionError, score_submission

    levels = supervision_levels(judged)
    try:
        notes = task.write_submission(path, scores, levels=levels)
        scores_of = {file: score_submission(file, annotations) for file in task.submission_paths(path)}
    except SubmissionError as error:
        raise ConfigError(f"evaluate.submission: {path} is not valid: {error}") from error
    except ValueError as error:
        raise ConfigError(f"evaluate.submission: {error}") from error
    for note in (*notes, *chain.from_iterable(scored.notes for scored in scores_of.values())):
        say(note)
    for file, scored in scores_of.items():
        what, number = next(iter(scored.counts.items()))
        levels_written = ", ".join(f"{name} {level}" for name, level in scored.levels.items())
        written = f"; {levels_written}" if levels_written else ""
        say(f"submission: {file}, valid for {scored.challenge}, {counted(number, what.removesuffix('s'))}{written}")


def supervision_levels(judged: Judged) -> "SupervisionLevels":
    """Return the challenges' levels of what a model was trained on, as far as its checkpoint tells.

    A run on Ego4D has 3 for pretraining, and any other, or weights of which it is not known, 4; a random encoder has 0.
    Heads are trained on all labels of the training split.
    """
    from earmark.evaluation import SupervisionLevels

    data = judged.stored.get("config", {}).get("data", {}).get("name")
    has_weights = judged.path is not None or any(
        encoder.args.pretrained or encoder.args.weights is not None for encoder in judged.configs.values()
    )
    pretraining = (3 if data == "ego4d" else 4) if has_weights else 0
    return SupervisionLevels(pretraining=pretraining, training_labels=3, training_data=3)
