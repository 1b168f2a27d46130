"""Which media files are below a folder, and what in it could not be searched.

Nothing is opened here. Faults of a file are reported by the code that opens it, so everything that is named like a
media file is listed, broken links included.
"""

import os
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Listing", "is_readable_file", "media_below", "media_named", "reason_of"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found below a folder.

    Attributes:
        paths: The files, sorted; each begins with the folder as it was given.
        problems: What was left out that might hold more of them, each with its path and the reason.
    """

    paths: tuple[Path, ...]
    problems: tuple[str, ...]


def media_below(
    folder: str | os.PathLike[str],
    suffixes: AbstractSet[str],
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    within: bool = False,
) -> Listing:
    """List the media files below a folder by their suffix.

    Names that begin with a dot are skipped. Links to folders are not followed, since they may lead in a circle.

    Args:
        folder: Where to look.
        suffixes: In lower case, with their dots.
        exclude: Folders to skip, such as those that are written to.
        within: Leave out links to files that lie outside the folder.

    Returns:
        The files; and as problems the folders that cannot be read and the links that are not followed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.WAV").touch()
        >>> (folder / "sub").symlink_to("/")
        >>> listing = media_below(folder, {".wav"})
        >>> [path.name for path in listing.paths], [text.partition(": ")[2] for text in listing.problems]
        (['a.WAV'], ['a link to a folder, which is not followed'])
    """
    excluded = {os.path.realpath(path) for path in exclude}
    inside = Path(os.path.realpath(folder))
    unreadable: list[OSError] = []
    paths, problems = [], []
    for base, subfolders, names in os.walk(folder, onerror=unreadable.append):
        for name in sorted(subfolders):
            path = Path(base, name)
            passed_over = name.startswith(".") or os.path.realpath(path) in excluded
            if not passed_over and path.is_symlink():
                problems.append(f"{path}: a link to a folder, which is not followed")
            if passed_over or path.is_symlink():
                subfolders.remove(name)
        for path in media_named(Path(base), names, suffixes):
            if within and path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                problems.append(f"{path}: a link to a file outside {folder}, left out")
            else:
                paths.append(path)
    problems += [f"{error.filename}: {reason_of(error)}, nothing below it is read" for error in unreadable]
    return Listing(tuple(sorted(paths)), tuple(sorted(problems)))


def media_named(folder: Path, names: Collection[str], suffixes: AbstractSet[str]) -> list[Path]:
    """Return the paths of those names in a folder that are media files' and do not begin with a dot."""
    return [folder / name for name in names if Path(name).suffix.lower() in suffixes and not name.startswith(".")]


def is_readable_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is there and can be reached; unlike `Path.is_file` it never raises."""
    return os.path.isfile(path)  # noqa: PTH113 - up to Python 3.13 Path.is_file raises where access is denied


def reason_of(error: OSError) -> str:
    """Return in a few words why a file or folder could not be read.

    Example:
        >>> reason_of(FileNotFoundError(2, "No such file or directory"))
        'no such file or directory'
    """
    return (error.strerror or type(error).__name__).lower()
