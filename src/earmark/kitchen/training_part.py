"""The training videos of a kitchen as a kitchen of their own, some of them held out as its validation split.

Choices such as a learning rate are made on it, so that the kitchen's own validation split is not touched by them. No
video is copied: the folders of the participants are links.
"""

import csv
import shutil
import zlib
from pathlib import Path

import numpy as np

from earmark.atomic import replacing
from earmark.datasets.kitchen import Kitchen
from earmark.kitchen.presets import KitchenError

__all__ = ["write_training_part"]

TRAIN, VALIDATION = "EPIC_100_train.csv", "EPIC_100_validation.csv"
UNSEEN = "EPIC_100_unseen_participant_ids_validation.csv"  # of a validation split that is not in here
# What says nothing of a split.
COPIED = ("EPIC_100_noun_classes.csv", "EPIC_100_verb_classes.csv", "EPIC_100_video_info.csv")


def write_training_part(kitchen: Path, out: Path, *, share: float = 0.2, seed: int = 0) -> Path:
    """Write a kitchen of another one's training videos: its validation split is a share of them, the rest its training.

    The draw depends on the seed and on which videos there are. A folder that is there already is written again, the
    same.

    Args:
        kitchen: A finished kitchen.
        out: Folder to write.
        share: Of the training videos to hold out, at least one and never all.
        seed: Of the draw.

    Returns:
        `out`.

    Raises:
        KitchenError: If the kitchen has fewer than two training videos, or the folder holds something else.
        earmark.datasets.DatasetError: If it is no finished kitchen.

    Example:
        >>> write_training_part(Path("earmark_data/kitchen/small"), Path("tuning"))  # doctest: +SKIP
    """
    annotations = Kitchen(kitchen).annotations_path
    if (out / "annotations" / UNSEEN).exists() or (out.exists() and not out.is_dir()):
        raise KitchenError(f"{out}: holds something else than a part of a kitchen")
    header, *rows = _rows(annotations / TRAIN)
    column = header.index("video_id")
    videos = sorted({row[column] for row in rows})
    if len(videos) < 2:
        raise KitchenError(f"{kitchen}: has {len(videos)} training videos; some can be held out of two or more")
    count = min(max(round(share * len(videos)), 1), len(videos) - 1)
    drawn = np.random.default_rng([seed, zlib.crc32(b"training part")]).permutation(videos)[:count]
    held_out = frozenset(drawn.tolist())
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    _write(out / "annotations" / TRAIN, [header, *(row for row in rows if row[column] not in held_out)])
    _write(out / "annotations" / VALIDATION, [header, *(row for row in rows if row[column] in held_out)])
    for name in COPIED:
        shutil.copyfile(annotations / name, out / "annotations" / name)
    for folder in sorted(kitchen.glob("P[0-9][0-9]")):
        link = out / folder.name
        if not link.is_symlink():
            link.symlink_to(folder.resolve(), target_is_directory=True)
    for name in ("kitchen.json", "events.parquet"):
        shutil.copyfile(kitchen / name, out / name)
    return out


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _write(path: Path, rows: list[list[str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
