"""Stores in object storage, read through whole files that this machine keeps.

Beside the path of a sample: `earmark.clips.store` reads the files that this fetches. A prepared video is read at
random for many epochs, so it is fetched once, whole, by whichever process of the machine needs it first; the others
wait for it.
"""

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from filelock import FileLock

from earmark.atomic import replacing, temporaries
from earmark.preparation.catalog import StoreError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["RemoteFolder", "default_cache_dir", "is_url"]

# What brings the schemes of the large storages; of others fsspec's own message says it.
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "earmark[s3]"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("ssh", "sftp"), "paramiko"),
    "hf": "huggingface_hub",
}


def is_url(root: str | os.PathLike[str]) -> bool:
    """Return whether a store is named by a URL, such as ``s3://bucket/folder``.

    Example:
        >>> is_url("s3://bucket/kitchen"), is_url("data/kitchen")
        (True, False)
    """
    return re.match(r"[A-Za-z][\w+.-]*://", str(root)) is not None


def default_cache_dir() -> Path:
    """Return where fetched files are kept: ``$EARMARK_CACHE``, or ``earmark`` in the user's cache folder.

    A disk of the machine itself is meant: files are locked, and many processes read them at random.
    """
    if "EARMARK_CACHE" in os.environ:
        return Path(os.environ["EARMARK_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "earmark"


class RemoteFolder:
    """A folder of an object storage, and the local folder that its files are fetched to.

    Any protocol that fsspec knows will do; credentials and endpoints are given as fsspec and the storage's own library
    take them (for S3: the variables and files of AWS). A file appears under its name only when it is whole, whichever
    process is killed meanwhile.

    Args:
        url: Of the folder, such as ``s3://bucket/folder``.
        cache_dir: Where fetched files are kept, a folder for each URL; None for `default_cache_dir`.

    Attributes:
        url: The URL, without a slash at the end.
        folder: The local folder.

    Example:
        >>> RemoteFolder("s3://bucket/kitchen/").url
        's3://bucket/kitchen'
    """

    def __init__(self, url: str, cache_dir: Path | None = None) -> None:
        self.url = url.rstrip("/")
        name = re.sub(r"[^\w.-]", "_", self.url.rpartition("/")[2])
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        self.folder = (cache_dir or default_cache_dir()) / f"{name}-{digest}"

    def refresh(self, name: str, *, again: bool = False) -> Path:
        """Fetch a file unless the local copy is up to date; return its local path.

        Args:
            name: Path below the folder.
            again: Fetch it although it is: what is here has turned out to be wrong.

        Raises:
            StoreError: If the file cannot be fetched; the message names its URL.
        """
        target, version_file = self._target(name), self._target(f"{name}.version")
        with self._lock(target):
            try:
                filesystem, path = self._source(name)
                filesystem.invalidate_cache()
                version = filesystem.ukey(path)
                known = version_file.read_text() if target.exists() and version_file.exists() else None
                if again or known != version:
                    _remove_leftovers(target)
                    _remove_leftovers(version_file)
                    version_file.unlink(missing_ok=True)
                    with replacing(target) as temporary:
                        filesystem.get_file(path, str(temporary))
                    with replacing(version_file) as temporary:
                        temporary.write_text(version)
            except Exception as error:  # every storage has errors of its own
                raise self._error(name, error) from error
        return target

    def fetch(self, name: str, *, num_bytes: int | None = None, again: bool = False) -> Path:
        """Fetch a file that never changes, unless it is here already; return its local path.

        Args:
            name: Path below the folder.
            num_bytes: Its size: a local file of another size is fetched again. None accepts any.
            again: Fetch it although it is here: what is here has turned out to be wrong.

        Raises:
            StoreError: If the file cannot be fetched or has another size; the message names its URL.
        """
        target = self._target(name)
        if again or not _is_there(target, num_bytes):
            with self._lock(target):
                if again or not _is_there(target, num_bytes):  # else another process has just fetched it
                    _remove_leftovers(target)
                    try:
                        filesystem, path = self._source(name)
                        with replacing(target) as temporary:
                            filesystem.get_file(path, str(temporary))
                            size = temporary.stat().st_size
                            if num_bytes not in (None, size):
                                raise ValueError(f"{size} bytes, the catalog says {num_bytes}")
                    except Exception as error:  # every storage has errors of its own
                        raise self._error(name, error) from error
        return target

    def _source(self, name: str) -> "tuple[AbstractFileSystem, str]":
        import fsspec

        # made at each call: fsspec keeps one for each process, and a forked process must not use its parent's
        filesystem, path = fsspec.url_to_fs(f"{self.url}/{name}")
        return filesystem, path

    def _target(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name:
            raise StoreError(f"{self.url}: {name!r} is not a file below the store")
        return self.folder / name

    def _lock(self, target: Path) -> FileLock:
        target.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(target.with_name(f".{target.name}.lock"))

    def _error(self, name: str, error: Exception) -> StoreError:
        hint = _missing_package(self.url) if isinstance(error, ImportError) else ""
        return StoreError(
            f"{self.url}/{name}: cannot be fetched to {self.folder}: {error or type(error).__name__}{hint}"
        )


def _missing_package(url: str) -> str:
    """Return which package brings a URL's scheme, as the end of a message; empty where that is not known."""
    scheme = url.partition("://")[0]
    package = _PACKAGES.get(scheme.lower())
    return "" if package is None else f"; `pip install '{package}'` brings {scheme}://"


def _is_there(target: Path, num_bytes: int | None) -> bool:
    try:
        return num_bytes in (None, target.stat().st_size)
    except OSError:
        return False


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left of a file; the caller holds its lock, so that nobody is writing one."""
    for temporary, path in temporaries(target.parent):
        if path == target:
            temporary.unlink(missing_ok=True)
