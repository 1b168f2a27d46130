"""Files of an EPIC-KITCHENS download that are not what they should be: doubled, misspelt, of other content.

Nothing is opened here but the list of checksums.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from earmark.datasets.annotation_files import RowError, RowFaults, csv_rows, quoted
from earmark.datasets.epic_kitchens import EpicKitchens
from earmark.datasets.listing import is_readable_file, media_named
from earmark.datasets.records import VIDEO_SUFFIXES, VideoRecord

__all__ = ["absent_annotations", "checksums", "stray_files"]

_NAME = re.compile(r"p(\d+)[ _-]+(\d+)", re.IGNORECASE | re.ASCII)
_ALIKE = (
    0.85  # share of the letters of two names: "(1)" behind a name and other cases are, other official files are not
)
_PARTICIPANT = re.compile(r"p\d+", re.IGNORECASE | re.ASCII)


def stray_files(epic: EpicKitchens, videos: Sequence[VideoRecord]) -> tuple[str, ...]:
    """Return a line for each video file that is not read: of a misspelt name, doubled, or of no listed video.

    Args:
        epic: The data set.
        videos: Its whole videos of all splits, as found.
    """
    read = {video.video_id: video.path for video in videos}
    participants = dict.fromkeys(video.participant_id for video in videos)
    try:
        inside = sorted(path.name for path in epic.base_path.iterdir() if _PARTICIPANT.fullmatch(path.name))
    except OSError:  # told by what reads it
        inside = []
    seen: set[Path] = set()
    problems = []
    for folder in epic.places([*participants, *inside]):
        try:
            real = folder.resolve()
            names = [] if real in seen else sorted(path.name for path in folder.iterdir())
        except OSError:  # most of the places are not there
            continue
        seen.add(real)
        for path in media_named(folder, names, VIDEO_SUFFIXES):
            known = read.get(path.stem)
            match = _NAME.fullmatch(path.stem)
            meant = f"P{int(match[1]):02d}_{int(match[2]):02d}" if match else None
            if known is not None and not is_readable_file(known):
                problems.append(f"{path}: not read: video {path.stem} is looked for as {known}")
            elif known is not None and not _same(path, known):
                problems.append(f"{path}: video {path.stem} again; {known} is read")
            elif known is None and meant in read:
                problems.append(f"{path}: misspelt, not read: the video is called {meant}")
            elif known is None:
                problems.append(f"{path}: not a video of the annotations, not read")
    return tuple(problems)


def absent_annotations(epic: EpicKitchens) -> tuple[str, ...]:
    """Return a line for each split whose csv file is not there; of the test split only if one of a like name is.

    Args:
        epic: The data set.
    """
    try:
        names = sorted(path.name for path in epic.annotations_path.iterdir())
    except OSError:  # told by what reads it
        return ()
    problems = []
    for split, expected in epic.annotation_files.items():
        if split in epic.splits:
            continue
        like = [name for name in names if name not in epic.annotation_files.values() and _alike(name, expected)]
        if like or not split.startswith("test"):
            misspelt = f"; {', '.join(like)} lies there: misspelt?" if like else ""
            path = epic.annotations_path / expected
            problems.append(f"{path}: not there, so there is no {split} split{misspelt}")
    return tuple(problems)


def checksums(path: Path) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
    """Read the MD5 checksums of videos from a list in the form of the official downloader's ``data/md5.csv``.

    Its columns are md5, file_remote_path and version; a corrected file has two checksums, each of which is right. Files
    that are no videos are passed over.

    Returns:
        By video id; and the rows that were left out.

    Raises:
        DatasetError: If it is no such list.
    """
    faults = RowFaults(path)
    found: dict[str, set[str]] = {}
    num_rows = 0
    for place, (digest, name) in csv_rows(path, ("md5", "file_remote_path"), faults):
        try:
            if not re.fullmatch("[0-9a-fA-F]{32}", digest, re.ASCII):
                raise RowError(f"md5 is {quoted(digest)}, expected 32 hexadecimal digits")
        except RowError as error:
            faults.add(place, error)
            continue
        num_rows += 1
        if Path(name).suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(Path(name).stem, set()).add(digest.lower())
    faults.require_rows(num_rows)
    return {video_id: frozenset(digests) for video_id, digests in found.items()}, faults.lines()


def _alike(name: str, expected: str) -> bool:
    return SequenceMatcher(None, name.lower(), expected.lower()).ratio() >= _ALIKE


def _same(path: Path, other: Path) -> bool:
    try:
        return path == other or path.samefile(other)
    except OSError:
        return False
