"""What is done of a video whose features are being computed: parts of its rows, each written whole or not at all.

Path of a sample: features of batches --parts--> the file of the video (`earmark.evaluation.feature_writing`).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from earmark.atomic import replacing

__all__ = ["FeatureParts"]

_NAME = re.compile(r"(\d{9})-(\d{9})\.([0-9a-f]{16})\.npz")


class FeatureParts:
    """The rows of a video that are computed, in parts that follow one another from row 0 on.

    Parts made by another model or of other data, those after a gap and damaged ones are removed: they are computed
    again.

    Args:
        folder: Where they lie; made when the first is added.
        key: What they depend on, in hexadecimal.
        num_rows: Rows of the whole video.
        batch_size: Of which all parts but the last hold a multiple, so that what follows is batched as before.
    """

    def __init__(self, folder: Path, key: str, *, num_rows: int, batch_size: int) -> None:
        self._folder, self._key, self._num_rows_of_video = folder, key[:16], num_rows
        self._paths: list[Path] = []
        self.num_rows = 0
        self.dims: dict[str, int] = {}
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.is_dir():  # a video's id may be the folder of others
                continue
            match = _NAME.fullmatch(path.name)
            if match is None or not self._follows(path, match, batch_size):
                path.unlink(missing_ok=True)

    @property
    def is_complete(self) -> bool:
        """Whether all rows of the video are there."""
        return self.num_rows == self._num_rows_of_video

    def _follows(self, path: Path, match: re.Match[str], batch_size: int) -> bool:
        """Take a part that continues those before it; return whether it does."""
        first, stop = int(match[1]), int(match[2])
        if match[3] != self._key or first != self.num_rows or stop > self._num_rows_of_video:
            return False
        if stop % batch_size and stop != self._num_rows_of_video:
            return False
        try:
            with np.load(path, allow_pickle=False) as part:
                found = {name: part[name] for name in part.files}  # each is compared with its checksum
        except Exception:  # a damaged one may raise anything
            return False
        dims = {name: rows.shape[1] for name, rows in found.items() if rows.ndim == 2 and rows.dtype == np.float32}
        if len(dims) != len(found) or any(len(rows) != stop - first for rows in found.values()):
            return False
        if self.dims not in ({}, dims) or not dims:
            return False
        self._paths.append(path)
        self.num_rows, self.dims = stop, dims
        return True

    def add(self, rows: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Write the next rows.

        Args:
            rows: float32 (n, D) by name.

        Raises:
            OSError: If they cannot be written.
        """
        first, number = self.num_rows, len(next(iter(rows.values())))
        path = self._folder / f"{first:09}-{first + number:09}.{self._key}.npz"
        with replacing(path) as temporary:
            np.savez(temporary, **rows)  # type: ignore[arg-type]
        self._paths.append(path)
        self.num_rows += number
        self.dims = {name: values.shape[1] for name, values in rows.items()}

    def blocks(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the rows of a name, part by part."""
        for path in self._paths:
            with np.load(path, allow_pickle=False) as part:
                yield part[name]

    def remove(self) -> None:
        """Remove all parts, and folders that are empty then."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths, self.num_rows, self.dims = [], 0, {}
        for folder in (self._folder, *self._folder.parents):
            if folder.name == ".parts":
                break
            with suppress(OSError):
                folder.rmdir()
