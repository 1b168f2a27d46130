"""The description, the catalog and the moments of a store: written with digests, and held against them when read.

In the path of a sample this file stands between preparing and reading clips. Opening a store reads these three files
and nothing of a single video, so whatever can be seen from them alone is seen here; what a video's own record says is
compared when the video is first used (`earmark.clips.store`) and by `earmark.preparation.verify`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earmark.atomic import replacing
from earmark.moments import read_moments, with_detector, write_moments
from earmark.preparation.catalog import CATALOG_SCHEMA, STORE_VERSION, DamagedTablesError, PreparedVideo, StoreError

__all__ = [
    "Catalog",
    "MomentsOfStore",
    "catalog_problems",
    "check_parameters",
    "differing_parameters",
    "load_catalog",
    "load_moments",
    "parameter_problems",
    "read_catalog",
    "read_moments_of_store",
    "read_parameters",
    "write_catalog",
    "write_description",
    "write_moments_of_store",
]

STATUSES = ("ok", "degraded", "refused")
DIGEST_KEY = b"earmark_digest"
PARAMETERS_KEY = b"earmark_store_parameters"
MAX_PARAMETER = 1e9  # above any rate or length of a segment, far below where numbers lose their last digit
MAX_SIDE = 65535  # of a JPEG
MAX_SECONDS = 366 * 86400.0  # longer than any recording, short enough that its segments can be counted
ADDED_COLUMNS = ("index_digest", "file_digest")  # which older catalogs lack


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog of a store, as it was found.

    Attributes:
        videos: A row for each source.
        parameters: The parameters of the store that the catalog carries; None in one of an older version.
        is_as_written: Whether its rows are those that were written; None in a catalog without a digest, of an older
            version.
    """

    videos: list[PreparedVideo]
    parameters: dict[str, Any] | None
    is_as_written: bool | None


@dataclass(frozen=True, slots=True)
class MomentsOfStore:
    """The table of moments of a store, as it was found.

    Attributes:
        table: As `earmark.moments.read_moments` returns it; the ids as a dictionary array.
        is_as_written: As that of `Catalog`.
    """

    table: pa.Table
    is_as_written: bool | None


def write_description(root: Path, parameters: Mapping[str, Any]) -> None:
    """Write ``store.json``, which makes a folder a store."""
    content = {"format_version": STORE_VERSION, "parameters": dict(parameters)}
    with replacing(root / "store.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2))


def read_parameters(root: Path) -> dict[str, Any]:
    """Return the parameters that every video of a store was prepared with.

    Raises:
        StoreError: If the folder is not a store, or one of a newer version, or its description is incomplete.
    """
    path = root / "store.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, parameters = content["format_version"], with_detector(content["parameters"])
        if type(version) is not int or version < 1:
            raise ValueError(f"format_version is {version!r}")
        if version <= STORE_VERSION:  # those of a newer one may be others
            check_parameters(parameters)
    except FileNotFoundError as error:
        raise StoreError(f"{root}: not a prepared store (no store.json); make one with `earmark prepare`") from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise StoreError(f"{path}: not the description of a prepared store ({why})") from error
    if version > STORE_VERSION:
        raise StoreError(f"{path}: written by a newer Earmark (format {version}, this one reads up to {STORE_VERSION})")
    return parameters


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError where nothing could be read by the parameters of a store."""
    least = {"fps": 1, "audio_rate": 4000, "segment_seconds": 1}
    if parameters.get("around") is not None:
        least["around_seconds"] = 0
    for name, smallest in least.items():
        value = parameters[name]
        if type(value) not in (int, float) or not smallest <= value <= MAX_PARAMETER:
            raise ValueError(f"{name} is {value!r}")
    if type(parameters["audio_rate"]) is not int:
        raise ValueError(f"audio_rate is {parameters['audio_rate']!r}")


def write_catalog(
    root: Path, videos: Iterable[PreparedVideo], parameters: Mapping[str, Any], *, metadata: Mapping[bytes, bytes]
) -> None:
    """Write the catalog, with a digest of its rows.

    Args:
        root: The store.
        videos: Its rows.
        parameters: Of the store.
        metadata: What else the file shall say of itself.
    """
    content = pa.Table.from_pylist([asdict(video) for video in videos], schema=CATALOG_SCHEMA)
    digest = _catalog_digest({name: content[name].to_pylist() for name in content.column_names})
    own = {DIGEST_KEY: digest, PARAMETERS_KEY: json.dumps(dict(parameters), sort_keys=True)}
    with replacing(root / "videos.parquet") as temporary:
        pq.write_table(content.replace_schema_metadata({**metadata, **own}), temporary)


def load_catalog(root: Path) -> Catalog:
    """Read the catalog of a store, whether or not its rows are those that were written.

    Raises:
        StoreError: If it is missing, cannot be read, or has values missing.
    """
    path = root / "videos.parquet"
    try:
        _check_size(path)
        table = pq.read_table(path)
        present = [name for name in CATALOG_SCHEMA.names if name not in ADDED_COLUMNS or name in table.column_names]
        table = table.select(present)
        for name in present:
            if table[name].type != CATALOG_SCHEMA.field(name).type:
                raise ValueError(f"{name} is of type {table[name].type}, not {CATALOG_SCHEMA.field(name).type}")
            if table[name].null_count:
                raise ValueError(f"{table[name].null_count} of its rows have no {name}")
        metadata = table.schema.metadata or {}
        parameters = json.loads(metadata[PARAMETERS_KEY]) if PARAMETERS_KEY in metadata else None
        columns = {name: table[name].to_pylist() for name in present}
        digest = _catalog_digest(columns) if DIGEST_KEY in metadata else None
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the catalog is missing; run `earmark prepare` again to finish the store") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not a catalog of prepared videos ({error})") from error
    columns |= {name: [""] * table.num_rows for name in ADDED_COLUMNS if name not in columns}
    videos = [PreparedVideo(*row) for row in zip(*(columns[name] for name in CATALOG_SCHEMA.names), strict=True)]
    return Catalog(
        videos,
        parameters if isinstance(parameters, dict) else None,
        None if digest is None else digest.encode() == metadata[DIGEST_KEY],
    )


def read_catalog(root: Path, parameters: Mapping[str, Any] | None = None) -> list[PreparedVideo]:
    """Return a row for each source of a store, refused ones included.

    Args:
        root: The store.
        parameters: As ``store.json`` has them: the catalog must have been written with these; None to accept any.

    Raises:
        StoreError: If the catalog is missing, cannot be read, is not as it was written, contradicts itself or
            ``store.json``; the message names the file and the reason.
    """
    path = root / "videos.parquet"
    catalog = load_catalog(root)
    for problem in catalog_problems(catalog.videos):
        raise DamagedTablesError(f"{path}: {problem}")
    if catalog.is_as_written is False:
        raise DamagedTablesError(f"{path}: its rows are not those that were written")
    if parameters is not None:
        for problem in parameter_problems(catalog, parameters):
            raise DamagedTablesError(f"{root / 'store.json'}: {problem}")
    return catalog.videos


def catalog_problems(videos: Sequence[PreparedVideo]) -> list[str]:
    """Return where rows of a catalog contradict one another or themselves, whatever the store holds."""
    counts = Counter([video.video_id for video in videos])
    problems = [f"video {name!r} stands in {count} rows" for name, count in counts.items() if count > 1]
    for video in videos:  # no call of a function in a row that is well: there may be ten thousand
        width, height, num_samples = video.width, video.height, video.num_samples
        if video.status not in STATUSES:
            problems.append(f"status of {video.video_id!r} is {video.status!r}")
        elif (video.status == "refused") == (video.prepared_path != ""):
            problems.append(f"{video.video_id!r} is {video.status}, its file is {video.prepared_path!r}")
        elif video.status == "degraded" and not video.reason:
            problems.append(f"{video.video_id!r} is degraded without a reason")
        elif video.num_frames < 0 or num_samples < 0 or video.num_moments < 0 or video.num_bytes < 0:
            problems.append(f"{video.video_id!r} holds less than nothing")
        elif not (0 <= width <= MAX_SIDE and 0 <= height <= MAX_SIDE):
            problems.append(f"{video.video_id!r} has pictures of {width} x {height}")
        elif not 0 <= video.duration_seconds < MAX_SECONDS:
            problems.append(f"{video.video_id!r} lasts {video.duration_seconds} s")
        elif video.has_audio != (num_samples > 0):
            problems.append(f"{video.video_id!r} has {num_samples} samples of sound, has_audio={video.has_audio}")
    return problems


def parameter_problems(catalog: Catalog, parameters: Mapping[str, Any]) -> list[str]:
    """Return in what ``store.json`` contradicts the catalog."""
    problems = []
    if catalog.parameters is not None and catalog.parameters != parameters:
        ours = ", ".join(differing_parameters(parameters, catalog.parameters))
        theirs = ", ".join(differing_parameters(catalog.parameters, parameters))
        problems.append(f"{ours}, but the catalog was written with {theirs}")
    if not problems and parameters.get("around") is None:  # of whole videos the length says how fast they are
        fps = float(parameters["fps"])
        wrong = [
            video
            for video in catalog.videos
            if video.status != "refused" and not -0.5 < video.duration_seconds * fps - video.num_frames < 0.5
        ]
        problems += [
            f"fps={fps:g}: video {video.video_id!r} has {video.num_frames} frames in {video.duration_seconds} s"
            for video in wrong
        ]
    return problems


def differing_parameters(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Return which parameters of one differ from those of another, as ``name=value``.

    Example:
        >>> differing_parameters({"fps": 8, "quality": 90}, {"fps": 16, "quality": 90})
        ['fps=8']
    """
    names = sorted({*parameters, *others})
    return [f"{name}={parameters.get(name)}" for name in names if parameters.get(name) != others.get(name)]


def write_moments_of_store(root: Path, table: pa.Table) -> None:
    """Write the table of moments of a store, with a digest of its rows.

    Args:
        root: The store.
        table: Of `earmark.moments.moments_table`.
    """
    digest = {DIGEST_KEY: _moments_digest(table)}
    write_moments(root / "moments.parquet", table.replace_schema_metadata({**(table.schema.metadata or {}), **digest}))


def load_moments(root: Path) -> MomentsOfStore:
    """Read the table of moments of a store, whether or not its rows are those that were written.

    Raises:
        StoreError: If it is missing, cannot be read, has values missing or times that are none.
    """
    path = root / "moments.parquet"
    try:
        _check_size(path)
        table = read_moments(path)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: is missing; run `earmark prepare` again to finish the store") from error
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: not a moments table ({error})") from error
    except ValueError as error:
        raise StoreError(str(error)) from error
    names = table["video_id"].combine_chunks().dictionary_encode()
    table = table.set_column(table.column_names.index("video_id"), "video_id", names)
    digest = (table.schema.metadata or {}).get(DIGEST_KEY)
    return MomentsOfStore(table, None if digest is None else digest.decode(errors="replace") == _moments_digest(table))


def read_moments_of_store(root: Path) -> pa.Table:
    """Return the table of moments of a store (see `earmark.moments.read_moments`), the ids as a dictionary array.

    Raises:
        StoreError: If it is missing, cannot be read, or is not as it was written.
    """
    moments = load_moments(root)
    if moments.is_as_written is False:
        raise DamagedTablesError(f"{root / 'moments.parquet'}: its rows are not those that were written")
    return moments.table


def _check_size(path: Path) -> None:
    """Raise ValueError where a table claims more rows than its file can hold: each has a value of its own."""
    num_bytes, num_rows = path.stat().st_size, pq.read_metadata(path).num_rows
    if num_rows > num_bytes:
        raise ValueError(f"{path}: {num_rows} rows in {num_bytes} bytes")


def _catalog_digest(columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the digest of a catalog's rows; it depends on nothing else, such as how the file was written."""
    return hashlib.sha256(json.dumps(list(columns.items())).encode()).hexdigest()


def _moments_digest(table: pa.Table) -> str:
    """Return the digest of the rows of a table of moments, without an object for each: there can be millions."""
    content = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name == "video_id":
            column = column.dictionary_encode()  # numbered as they come
            content.update(json.dumps(column.dictionary.to_pylist()).encode())
            column = column.indices
        values = column.to_numpy(zero_copy_only=False)
        content.update(f"{name} {len(values)} ".encode())
        content.update(np.ascontiguousarray(values, "<f8" if values.dtype.kind == "f" else "<i8").tobytes())
    return content.hexdigest()
