"""The table of moments: what the second station of a sample's path leaves on disk, for the store to read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earmark.atomic import replacing
from earmark.moments.detector import Moment

_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("time_seconds", pa.float64()),
        ("score", pa.float64()),
        ("height", pa.float64()),
        ("segment_id", pa.int64()),
    ]
)


def moments_table(moments: Mapping[str, Sequence[Moment]], *, detector: str, parameters: Mapping[str, Any]) -> pa.Table:
    """Put the moments of many videos into one table.

    Args:
        moments: video_id -> its moments.
        detector: name of what found them.
        parameters: its settings, plain data.

    Returns:
        Columns video_id, time_seconds, score, height, segment_id (training has no use for the loudness); the detector
        and its parameters (as JSON) in the schema's metadata.

    Example:
        >>> found = {"a": [Moment(1.5, 2.0, 3.0, 0)]}
        >>> table = moments_table(found, detector="replai", parameters={"distance": 10})
        >>> table.to_pylist(), table.schema.metadata[b"parameters"]
        ([{'video_id': 'a', 'time_seconds': 1.5, 'score': 2.0, 'height': 3.0, 'segment_id': 0}], b'{"distance": 10}')
    """
    rows = [(video_id, moment) for video_id, found in moments.items() for moment in found]
    columns = {
        "video_id": [video_id for video_id, _ in rows],
        "time_seconds": [moment.time_seconds for _, moment in rows],
        "score": [moment.score for _, moment in rows],
        "height": [moment.height for _, moment in rows],
        "segment_id": [moment.segment_id for _, moment in rows],
    }
    metadata = {"detector": detector, "parameters": json.dumps(dict(parameters), sort_keys=True)}
    return pa.table(columns, schema=_SCHEMA.with_metadata(metadata))


def write_moments(path: str | Path, table: pa.Table) -> None:
    """Write a moments table as parquet: the whole file or nothing.

    Args:
        path: of the file.
        table: of :func:`moments_table`.
    """
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_moments(path: str | Path) -> pa.Table:
    """Read a moments table.

    Args:
        path: a file of :func:`write_moments`.

    Returns:
        The table, as :func:`moments_table` made it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file, if it is no parquet file, columns are missing or of another type, a value is
            missing, or a time is none: negative, infinite, NaN.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # pyarrow reports damage as any of them
        raise ValueError(f"{path}: not a moments table ({error})") from error
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: not a moments table, columns are missing: {', '.join(missing)}")
    table = table.select(_SCHEMA.names)
    if table.schema.types != _SCHEMA.types:
        raise ValueError(f"{path}: not a moments table, expected {_SCHEMA.types}, found {table.schema.types}")
    for name in table.column_names:
        if table[name].null_count:
            raise ValueError(f"{path}: not a moments table, {table[name].null_count} of its rows have no {name}")
    times = table["time_seconds"].to_numpy()
    wrong = np.flatnonzero(~(np.isfinite(times) & (times >= 0)))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{path}: not a moments table, {len(wrong)} of its times are none: the first is that of row {row}, "
            f"{times[row]} s of {table['video_id'][row].as_py()!r}"
        )
    return table
