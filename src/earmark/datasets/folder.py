"""Any folder of videos as a data set: no labels, no splits."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from earmark.datasets.listing import media_below
from earmark.datasets.records import VIDEO_SUFFIXES, ActionRecord, DatasetError, VideoRecord
from earmark.wording import printable

__all__ = ["Folder"]


class Folder:
    """Every video below a folder, found by suffix; other files are ignored.

    A video is named by its path below the folder without the suffix, or with it where two videos would share a name.
    Names that start with a dot are skipped. Folders that can't be read, links to folders and links that lead out of
    the folder are left out and listed in `problems`; a broken link counts as a video, which preparing refuses.

    Args:
        base_path: The folder.
        exclude: Folders below it to leave out, such as the one that prepared videos are written to.

    Attributes:
        name: ``folder``.
        classes: Empty: nothing is labelled.
        problems: What was left out that might hold more videos, each with its path and the reason.

    Raises:
        DatasetError: If the folder is missing, can't be read or holds no video.

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
        listing = media_below(self.base_path, VIDEO_SUFFIXES, exclude=exclude, within=True)
        self.problems = listing.problems
        found = [path.relative_to(self.base_path) for path in listing.paths]
        if not found:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            none = f"{self.base_path}: no video below this folder (suffixes looked for: {suffixes})"
            raise DatasetError("\n".join([none, *self.problems]))
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
