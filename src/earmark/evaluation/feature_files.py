"""Files of features of whole videos: one for each video, with all that is needed to know what they are features of.

Path of a sample: clips --encoder--> features --file--> search, probes, models of others. `load_features` reads what
`earmark.evaluation.feature_writing` writes.

A file holds arrays with one row for each place (window, moment or clip of an action), and a description as JSON:

    start_seconds, end_seconds   float64 (N,): what the features are of; of a moment, from its first clip to its last
    video, audio                 float32 (N, D): features by encoder; of moments video_before, video_after, and
                                 video_change, the latter minus the former
    time_seconds, score          of moments, float64 (N,)
    action_id, clip, label_verb  of actions, and whatever other labels there are; -1 where an action has none
    metadata                     the description

In ``.npz`` they are arrays of these names, in ``.hdf5`` data sets (``metadata`` is a text in both), in ``.parquet``
columns, features as lists of fixed size, beside a column ``video_id`` (``metadata`` is in the schema's metadata). None
needs pickle.
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from earmark.atomic import replacing
from earmark.json_text import parse_json

__all__ = ["FORMATS", "FORMAT_VERSION", "FeatureFileError", "VideoFeatures", "load_features", "read_metadata"]

FORMAT_VERSION = 1
Format = Literal["npz", "parquet", "hdf5"]
FORMATS: tuple[Format, ...] = ("npz", "parquet", "hdf5")
FEATURE_NAMES = ("video", "video_before", "video_after", "video_change", "audio")
_METADATA = "metadata"
_MAX_METADATA_BYTES = 2**24
_GROUP_ROWS = 4096  # of parquet: whatever the blocks were that rows came in, so that the bytes are the same
_STREAM_BYTES = 2**22

Array = npt.NDArray[Any]
Blocks = Callable[[str], Iterator[npt.NDArray[np.float32]]]


class FeatureFileError(ValueError):
    """A file of features cannot be read or written; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """The features of one video.

    Attributes:
        video_id: The video.
        features: float32 (N, D) by name, see the head of this file.
        start_seconds: float64 (N,), where what each row is about starts in the video.
        end_seconds: float64 (N,), where it ends.
        columns: What else is known of each row, arrays of N by name.
        metadata: The description: window, stride and frame rate, crop, encoders with the fingerprints of their weights,
            how the video was prepared and the fingerprint of its data, versions.
    """

    video_id: str
    features: Mapping[str, npt.NDArray[np.float32]]
    start_seconds: npt.NDArray[np.float64]
    end_seconds: npt.NDArray[np.float64]
    columns: Mapping[str, Array]
    metadata: Mapping[str, Any]


def load_features(path: str | Path) -> VideoFeatures:
    """Read the features of a video, as `earmark features` wrote them.

    Args:
        path: The file: ``.npz``, ``.parquet`` or ``.hdf5``.

    Returns:
        The features with all that is known of them.

    Raises:
        FeatureFileError: If it cannot be read, is of a newer version, or is not such a file. Nothing in it can run
            code.

    Example:
        >>> found = earmark.load_features("features/P01/P01_01.npz")  # doctest: +SKIP
        >>> found.features["video"].shape, found.metadata["window_seconds"]  # doctest: +SKIP
        ((1204, 512), 0.5)
    """
    path = Path(path)
    with _named_errors(path):
        metadata = read_metadata(path)
        arrays = _READERS[_format_of(path)](path)
        return _checked(arrays, metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a file of features says of itself; the features are not read.

    Raises:
        FeatureFileError: As `load_features`.
    """
    with _named_errors(path):
        text = _METADATA_READERS[_format_of(path)](path)
        if len(text) > _MAX_METADATA_BYTES:
            raise ValueError("its description is too long")
        metadata = parse_json(text)
        if not isinstance(metadata, dict) or not isinstance(metadata.get("video_id"), str):
            raise ValueError("it does not say of which video it is")
        version = metadata.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"of format {version!r}; this Earmark reads {FORMAT_VERSION}")
        return metadata


def write_feature_file(
    path: Path, *, metadata: Mapping[str, Any], columns: Mapping[str, Array], dims: Mapping[str, int], blocks: Blocks
) -> None:
    """Write the features of a video, block by block, so that memory does not grow with its length.

    The bytes depend on what is written alone, not on the sizes of the blocks.

    Args:
        path: The file; its suffix says the format. It is whole or not there.
        metadata: The description.
        columns: All but the features, arrays of N, ``start_seconds`` and ``end_seconds`` among them.
        dims: Size D of the features by name.
        blocks: Gives the features of a name, float32 (n, D) each, N rows in all.

    Raises:
        OSError: If it cannot be written.
    """
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    with replacing(path) as temporary:
        _WRITERS[_format_of(path)](temporary, text, columns, dims, blocks)


def require_format(name: Format) -> None:
    """Raise FeatureFileError unless files of this format can be written here."""
    if name == "hdf5" and importlib.util.find_spec("h5py") is None:
        raise FeatureFileError("writing HDF5 needs h5py: pip install 'earmark[hdf5]'")


# --- npz ---


def _write_npz(path: Path, text: str, columns: Mapping[str, Array], dims: Mapping[str, int], blocks: Blocks) -> None:
    number = len(columns["start_seconds"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in {_METADATA: np.array(text), **columns}.items():
            _write_member(archive, name, values.dtype, values.shape, iter([values]))
        for name, dim in dims.items():
            _write_member(archive, name, np.dtype("<f4"), (number, dim), blocks(name))


def _write_member(
    archive: zipfile.ZipFile, name: str, dtype: "np.dtype[Any]", shape: tuple[int, ...], blocks: Iterator[Array]
) -> None:
    member = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date, so that equal features are equal files
    member.external_attr = 0o644 << 16
    with archive.open(member, "w", force_zip64=True) as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data.cast("B") if block.size else b"")


def _read_npz(path: Path) -> dict[str, Array]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name != f"{_METADATA}.npy":
                arrays[name.removesuffix(".npy")] = _read_member(archive, name)
    return arrays


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which none of these files is")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version != (2, 0):
            raise ValueError(f"{name} is an array of version {version}")
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        # before memory is taken for what a header claims
        claimed, held = dtype.itemsize * int(np.prod(shape, dtype=object)), member.file_size - file.tell()
        if dtype.hasobject or fortran_order or claimed != held:
            raise ValueError(f"{name} holds {held:,} bytes, its header says {claimed:,}")
        content = bytearray(held)
        view, place = memoryview(content), 0
        while chunk := file.read(_STREAM_BYTES):  # compared with its checksum at the end
            view[place : place + len(chunk)] = chunk
            place += len(chunk)
        return np.frombuffer(content, dtype).reshape(shape)


def _npz_metadata(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(f"{_METADATA}.npy").file_size > 4 * _MAX_METADATA_BYTES:
            raise ValueError("its description is too long")
        values = _read_member(archive, f"{_METADATA}.npy")
        if values.dtype.kind != "U" or values.shape:
            raise ValueError("its description is no text")
        return str(values)


# --- parquet ---


def _write_parquet(
    path: Path, text: str, columns: Mapping[str, Array], dims: Mapping[str, int], blocks: Blocks
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = len(columns["start_seconds"])
    video_id = json.loads(text)["video_id"]
    fields = [pa.field("video_id", pa.string())]
    fields += [pa.field(name, pa.array(values[:0]).type) for name, values in columns.items()]
    fields += [pa.field(name, pa.list_(pa.float32(), dim)) for name, dim in dims.items()]
    schema = pa.schema(fields, metadata={_METADATA: text})
    rows = {name: _regrouped(blocks(name), _GROUP_ROWS) for name in dims}
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, number, _GROUP_ROWS):
            part = {name: values[first : first + _GROUP_ROWS] for name, values in columns.items()}
            arrays = [pa.array([video_id] * len(part["start_seconds"]), pa.string())]
            arrays += [pa.array(part[name], schema.field(name).type) for name in columns]
            for name, dim in dims.items():
                flat = pa.array(next(rows[name]).reshape(-1), pa.float32())
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, dim))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _regrouped(blocks: Iterator[npt.NDArray[np.float32]], size: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the rows of blocks in blocks of a size, the last one shorter."""
    held: list[npt.NDArray[np.float32]] = []
    number = 0
    for block in blocks:
        while number + len(block) >= size:
            yield np.concatenate([*held, block[: size - number]])
            block, held, number = block[size - number :], [], 0
        held.append(block)
        number += len(block)
    if number:
        yield np.concatenate(held)


def _read_parquet(path: Path) -> dict[str, Array]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None)
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of a table without rows, or an older pyarrow
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if column.null_count:
            raise ValueError(f"{name} has values missing")
        if pa.types.is_fixed_size_list(column.type):
            arrays[name] = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        elif pa.types.is_string(column.type):
            arrays[name] = np.array(column.to_pylist(), np.str_)
        else:
            arrays[name] = column.to_numpy(zero_copy_only=False)
    del arrays["video_id"]
    return arrays


def _parquet_metadata(path: Path) -> str:
    import pyarrow.parquet as pq

    found = pq.read_schema(path).metadata or {}
    text: bytes = found[_METADATA.encode()]
    return text.decode()


# --- hdf5 ---


def _write_hdf5(path: Path, text: str, columns: Mapping[str, Array], dims: Mapping[str, int], blocks: Blocks) -> None:
    import h5py

    number = len(columns["start_seconds"])
    with h5py.File(path, "w") as file:
        file.create_dataset(_METADATA, data=text, dtype=h5py.string_dtype())
        for name, values in columns.items():
            if values.dtype.kind == "U":
                file.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=values)
        for name, dim in dims.items():
            target, place = file.create_dataset(name, (number, dim), np.dtype("<f4")), 0
            for block in blocks(name):
                target[place : place + len(block)] = block
                place += len(block)


def _read_hdf5(path: Path) -> dict[str, Array]:
    import h5py

    arrays = {}
    with h5py.File(path, "r") as file:
        for name, values in file.items():
            if not isinstance(values, h5py.Dataset) or values.external or values.is_virtual:
                raise ValueError(f"{name} is no array within the file")
            if name == _METADATA:
                continue
            if h5py.check_string_dtype(values.dtype) is not None:
                arrays[name] = np.array(values.asstr()[:].tolist(), np.str_)
            else:
                arrays[name] = values[:]
    return arrays


def _hdf5_metadata(path: Path) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        return str(file[_METADATA].asstr()[()])


# --- all formats ---

_WRITERS = {"npz": _write_npz, "parquet": _write_parquet, "hdf5": _write_hdf5}
_READERS = {"npz": _read_npz, "parquet": _read_parquet, "hdf5": _read_hdf5}
_METADATA_READERS = {"npz": _npz_metadata, "parquet": _parquet_metadata, "hdf5": _hdf5_metadata}


def _format_of(path: Path) -> Format:
    name = path.suffix.lower().removeprefix(".")
    for known in FORMATS:
        if name == known:
            return known
    raise FeatureFileError(f"{path}: not a file of features, which end in {', '.join(f'.{name}' for name in FORMATS)}")


def _checked(arrays: Mapping[str, Array], metadata: dict[str, Any]) -> VideoFeatures:
    features = {name: arrays[name] for name in FEATURE_NAMES if name in arrays}
    if not features:
        raise ValueError("holds no features")
    number = len(arrays["start_seconds"])
    for name, values in arrays.items():
        wanted = (2, np.dtype("f4")) if name in features else (1, values.dtype)
        if (values.ndim, values.dtype) != wanted or len(values) != number or values.dtype.kind not in "fiU":
            raise ValueError(f"{name} is not what the other arrays are of ({values.dtype} {values.shape})")
    columns = {name: values for name, values in arrays.items() if name not in features}
    start, end = columns.pop("start_seconds"), columns.pop("end_seconds")
    return VideoFeatures(metadata["video_id"], features, start, end, columns, metadata)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Raise as FeatureFileError, with the file's name, what reading a damaged one may raise."""
    try:
        yield
    except FeatureFileError:
        raise
    except FileNotFoundError as error:
        raise FeatureFileError(f"{path}: no such file") from error
    except ImportError as error:
        raise FeatureFileError(f"{path}: reading it needs {error.name}") from error
    except Exception as error:  # damage may raise anything
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)[:300] or type(error).__name__
        raise FeatureFileError(f"{path}: not a whole file of features: {reason}") from error
