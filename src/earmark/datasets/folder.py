"""Any folder of videos as a data set: no labels, no splits.

Path of a sample: folder --datasets--> video records --prepare--> prepared videos.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from earmark.datasets.records import VIDEO_SUFFIXES, ActionRecord, DatasetError, VideoRecord, printable

__all__ = ["Folder"]


class Folder:
    """Every video below a folder, found by suffix; other files are ignored.

    A video is named by its path below the folder without the suffix, or with it where two videos would share a name.
    Names that start with a dot are passed over, and so are links that lead out of the folder.

    Args:
        base_path: The folder.
        exclude: Folders below it to leave out, such as the one that prepared videos are written to.

    Attributes:
        name: ``folder``.
        classes: Empty: nothing is labelled.

    Raises:
        DatasetError: If the folder is missing or holds no video.

    Example:
        >>> import pathlib, tempfile
        >>> base_path = pathlib.Path(tempfile.mkdtemp())
        >>> (base_path / "bench").mkdir()
        >>> (base_path / "bench" / "drill.MP4").touch()
        >>> [video.video_id for video in Folder(base_path).videos()]
        ['bench/drill']
    """

    name = "folder"

    def __init__(self, base_path: str | os.PathLike[str], *, exclude: Sequence[str | os.PathLike[str]] = ()) -> None:
        self.base_path = Path(base_path).absolute()
        self.classes: dict[str, list[str]] = {}
        if not self.base_path.is_dir():
            what = "not a folder" if self.base_path.exists() else "no such folder"
            raise DatasetError(f"{self.base_path}: {what}")
        found = sorted(_videos_below(self.base_path, {Path(folder).resolve() for folder in exclude}))
        if not found:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise DatasetError(f"{self.base_path}: no video below this folder (suffixes looked for: {suffixes})")
        shared = Counter(path.with_suffix("") for path in found)
        shared.update(found)  # a.mp4.mkv would be named as a.mp4 is beside a.mov
        self._videos = [
            VideoRecord(
                video_id=printable((path if shared[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix()),
                path=self.base_path / path,
                split="all",
            )
            for path in found
        ]

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos, sorted by path.

        Args:
            split: Only None and ``all`` exist.

        Raises:
            DatasetError: If another split is asked for.
        """
        if split not in (None, "all"):
            raise DatasetError(f"{self.base_path}: a plain folder has no split {split!r}, only 'all'")
        return list(self._videos)

    def actions(self, split: str) -> list[ActionRecord]:
        """Refuse: a plain folder has no annotations.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"{self.base_path}: a plain folder has no annotated actions (split {split!r} asked for)")


def _videos_below(base_path: Path, excluded: set[Path]) -> Iterator[Path]:
    """Yield the path, relative to the folder, of every video below it."""
    inside = base_path.resolve()
    for folder, subfolders, names in os.walk(base_path):  # links to folders are not followed
        subfolders[:] = [
            name for name in subfolders if not name.startswith(".") and Path(folder, name).resolve() not in excluded
        ]
        for name in names:
            path = Path(folder, name)
            is_video = path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
            if is_video and path.is_file() and path.resolve().is_relative_to(inside):
                yield path.relative_to(base_path)
