"""The training videos of a kitchen, or a share of them, as a kitchen of their own.

With some of them held out as its validation split, choices such as a learning rate are made on it, so that the
kitchen's own validation split is not touched by them. With a share of them, it is seen what less video teaches. No
video is copied: the folders of the participants are links.
"""

import csv
import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from earmark.atomic import replacing
from earmark.datasets.kitchen import Kitchen
from earmark.kitchen.presets import KitchenError

__all__ = ["num_videos_of_share", "training_videos", "write_training_part", "write_training_share"]

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
    videos = training_videos(kitchen)
    if len(videos) < 2:
        raise KitchenError(f"{kitchen}: has {len(videos)} training videos; some can be held out of two or more")
    count = min(max(round(share * len(videos)), 1), len(videos) - 1)
    drawn = np.random.default_rng([seed, zlib.crc32(b"training part")]).permutation(videos)[:count]
    held_out = frozenset(drawn.tolist())
    return _write_part(kitchen, out, {TRAIN: frozenset(videos) - held_out, VALIDATION: held_out})


def write_training_share(kitchen: Path, out: Path, *, share: float, seed: int = 0) -> int:
    """Write a kitchen of a share of another one's training videos; it has no other split.

    The draw depends on the seed and on which videos there are, and draws of one seed are nested: the videos of a share
    are among those of a larger one. A folder that is there already is written again.

    Args:
        kitchen: A finished kitchen.
        out: Folder to write.
        share: Of the training videos, above 0 and at most 1; at least one video.
        seed: Of the draw.

    Returns:
        How many videos it has.

    Raises:
        KitchenError: If the share is out of bounds, the kitchen has no training video, or the folder holds something
            else.
        earmark.datasets.DatasetError: If it is no finished kitchen.

    Example:
        >>> write_training_share(Path("earmark_data/kitchen/small"), Path("half"), share=0.5)  # doctest: +SKIP
        10
    """
    if not 0 < share <= 1:
        raise KitchenError(f"share={share:g}: must be above 0 and at most 1")
    videos = training_videos(kitchen)
    if not videos:
        raise KitchenError(f"{kitchen}: has no training video")
    count = num_videos_of_share(len(videos), share)
    drawn = np.random.default_rng([seed, zlib.crc32(b"training share")]).permutation(videos)[:count]
    _write_part(kitchen, out, {TRAIN: frozenset(drawn.tolist())})
    return count


def num_videos_of_share(num_videos: int, share: float) -> int:
    """Return how many of some training videos a share of them has."""
    return max(round(share * num_videos), 1)


def training_videos(kitchen: Path) -> list[str]:
    """Return the names of a kitchen's training videos, sorted."""
    header, *rows = _rows(Kitchen(kitchen).annotations_path / TRAIN)
    column = header.index("video_id")
    return sorted({row[column] for row in rows})


def _write_part(kitchen: Path, out: Path, videos_of: Mapping[str, Collection[str]]) -> Path:
    """Write a kitchen of some of another one's training videos, by the csv file that is to list them."""
    annotations = Kitchen(kitchen).annotations_path
    if (out / "annotations" / UNSEEN).exists() or (out.exists() and not out.is_dir()):
        raise KitchenError(f"{out}: holds something else than a part of a kitchen")
    header, *rows = _rows(annotations / TRAIN)
    column = header.index("video_id")
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for name, videos in videos_of.items():
        _write(out / "annotations" / name, [header, *(row for row in rows if row[column] in videos)])
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
