"""Writing moments for other programs: tables, and labels that annotation tools and players open beside the media.

Tables (``.csv``, ``.json``, ``.parquet``) hold the
moments of any number of files. Labels hold those of one: ``.txt`` for Audacity's label tracks, ``.vtt`` (WebVTT) for
players and browsers, ``.eaf`` for ELAN. All times are in seconds on the media file's clock.
"""

import csv
import json
import math
import mimetypes
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from earmark.atomic import replacing
from earmark.moments.detector import Moment
from earmark.moments.table import moments_table
from earmark.wording import printable, visible

__all__ = ["LABEL_SUFFIXES", "TABLE_SUFFIXES", "FileMoments", "record", "write_labels", "write_table"]

LABEL_SECONDS = 1.0  # a moment has no length; where a format needs one it lasts this long, or until the next moment
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class FileMoments:
    """What was found in one media file.

    Attributes:
        name: what the file is called in tables and in the names of files made from it; unique among those of a call.
        path: of the media file, as it was given.
        moments: in order of time.
        duration_seconds: of the recording.
        notes: what is unusual about it, in words, such as sound that ends before the picture.
        error: why nothing could be read, or None.
    """

    name: str
    path: str
    moments: tuple[Moment, ...] = ()
    duration_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None


def record(found: FileMoments) -> dict[str, Any]:
    """Return what was found in a file as plain data that JSON can hold (silence, -inf dB, becomes None).

    Example:
        >>> record(FileMoments("a", "a.wav", error="a.wav: no such file"))
        {'path': 'a.wav', 'error': 'a.wav: no such file'}
        >>> record(FileMoments("a", "a.wav", (Moment(1.5, 2.0, 3.0, 0),), 10.0))["moments"]
        [{'time_seconds': 1.5, 'score': 2.0, 'height': 3.0, 'loudness_db': None, 'segment_id': 0}]
    """
    path = printable(found.path)
    if found.error is not None:
        return {"path": path, "error": printable(found.error)}
    rows = [
        {
            "time_seconds": moment.time_seconds,
            "score": moment.score,
            "height": moment.height,
            "loudness_db": moment.loudness_db if math.isfinite(moment.loudness_db) else None,
            "segment_id": moment.segment_id,
        }
        for moment in found.moments
    ]
    notes = [printable(note) for note in found.notes]
    return {"path": path, "duration_seconds": found.duration_seconds, "notes": notes, "moments": rows}


def write_table(
    path: str | Path, files: Sequence[FileMoments], *, detector: str, parameters: Mapping[str, Any]
) -> None:
    """Write the moments of any number of files as one table; the whole file or nothing.

    The columns of ``.csv`` and ``.parquet`` are video_id, time_seconds, score, height, segment_id (a parquet table is
    one that :func:`earmark.moments.read_moments` reads), loudness_db and path. ``.json`` is a list with an object for
    each file, those with an error too.

    Args:
        path: file to write; its suffix, one of ``TABLE_SUFFIXES``, chooses the format.
        files: what was found.
        detector: name of what found them.
        parameters: its settings, plain data; parquet keeps both in its metadata, JSON beside each file's moments.

    Raises:
        ValueError: if the suffix is not one of these.

    Example:
        >>> import tempfile
        >>> found = FileMoments("a", "a.wav", (Moment(1.5, 2.0, 3.0, 0, -20.0),), 10.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_table(f"{folder}/moments.csv", [found], detector="replai", parameters={})
        ...     print(Path(folder, "moments.csv").read_text())
        video_id,time_seconds,score,height,segment_id,loudness_db,path
        a,1.5,2.0,3.0,0,-20.0,a.wav
        <BLANKLINE>
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{path}: a table of moments ends in {', '.join(TABLE_SUFFIXES)}, not {suffix!r}")
    with replacing(path) as temporary:
        if suffix == ".json":
            settings = {"detector": detector, "parameters": dict(parameters)}
            objects = [record(found) | ({} if found.error is not None else settings) for found in files]
            temporary.write_text(json.dumps(objects, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
            return
        table = _table(files, detector, parameters)
        if suffix == ".parquet":
            pq.write_table(table, temporary)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                plain = csv.writer(stream, lineterminator="\n")
                quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
                plain.writerow(table.column_names)
                for row in table.to_pylist():
                    # a carriage return ends a line for readers, but not for this writer, which would not quote it
                    (quoted if "\r" in row["video_id"] + row["path"] else plain).writerow(row.values())


def write_labels(path: str | Path, found: FileMoments) -> None:
    r"""Write the moments of one file as labels for it; the whole file or nothing.

    ``.txt``: Audacity's label track, ``start<TAB>end<TAB>label``, each moment a point. ``.vtt``: WebVTT, each moment a
    cue that lasts a second, or until the next one. ``.eaf``: ELAN 3.0, annotations of the same length on the
    tier "moments"; the file refers to the media by its absolute path and by its path from the file's folder.

    Args:
        path: file to write; its suffix, one of ``LABEL_SUFFIXES``, chooses the format.
        found: what was found.

    Raises:
        ValueError: if the suffix is not one of these, or an ELAN file is to name media by what no path can be.

    Example:
        >>> import tempfile
        >>> found = FileMoments("a", "a.wav", (Moment(1.5, 2.0, 3.0, 0, -20.0),), 10.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_labels(f"{folder}/labels.txt", found)
        ...     Path(folder, "labels.txt").read_text()
        '1.500000\t1.500000\t2.00, -20.0 dB\n'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _LABELS:
        raise ValueError(f"{path}: labels end in {', '.join(LABEL_SUFFIXES)}, not {suffix!r}")
    text = _LABELS[suffix](found, Path(path))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _table(files: Sequence[FileMoments], detector: str, parameters: Mapping[str, Any]) -> pa.Table:
    table = moments_table(
        {printable(found.name): found.moments for found in files}, detector=detector, parameters=parameters
    )
    loudness = [moment.loudness_db for found in files for moment in found.moments]
    paths = [printable(found.path) for found in files for _ in found.moments]
    table = table.append_column("loudness_db", pa.array(loudness, pa.float64()))
    return table.append_column("path", pa.array(paths, pa.string()))


def _label(moment: Moment) -> str:
    return f"{moment.score:.2f}, {moment.loudness_db:.1f} dB"


def _spans(moments: Sequence[Moment]) -> Iterator[tuple[int, int, Moment]]:
    """Yield (start, end, moment), whole milliseconds: never empty, never overlapping."""
    last_end = 0
    for number, moment in enumerate(moments):
        start = max(round(1000 * moment.time_seconds), last_end)
        last_end = start + round(1000 * LABEL_SECONDS)
        if number + 1 < len(moments):
            last_end = max(start + 1, min(last_end, round(1000 * moments[number + 1].time_seconds)))
        yield start, last_end, moment


def _audacity(found: FileMoments, path: Path) -> str:
    lines = (f"{moment.time_seconds:.6f}\t{moment.time_seconds:.6f}\t{_label(moment)}\n" for moment in found.moments)
    return "".join(lines)


def _webvtt(found: FileMoments, path: Path) -> str:
    cues = (
        f"\n{number}\n{_webvtt_time(start)} --> {_webvtt_time(end)}\n{_label(moment)}\n"
        for number, (start, end, moment) in enumerate(_spans(found.moments), start=1)
    )
    return "WEBVTT\n" + "".join(cues)


def _webvtt_time(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _elan(found: FileMoments, path: Path) -> str:
    document = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "earmark",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            f"{{{_XSI}}}noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = ET.SubElement(document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    try:
        media, folder = Path(found.path).resolve(), path.resolve().parent
    except ValueError as error:  # a zero byte, or half a character
        raise ValueError(f"{visible(found.path)}: cannot be the path of a media file ({error})") from error
    ET.SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        {
            "MEDIA_URL": "file:///" + _in_xml(media.as_posix().lstrip("/")),
            "MIME_TYPE": mimetypes.guess_type(media.name)[0] or "unknown",
            "RELATIVE_MEDIA_URL": _in_xml(Path("./" + os.path.relpath(media, folder)).as_posix()),
        },
    )
    ET.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"}).text = str(len(found.moments))
    order = ET.SubElement(document, "TIME_ORDER")
    tier = ET.SubElement(document, "TIER", {"LINGUISTIC_TYPE_REF": "moment", "TIER_ID": "moments"})
    for number, (start, end, moment) in enumerate(_spans(found.moments), start=1):
        slots = (f"ts{2 * number - 1}", f"ts{2 * number}")
        for slot, milliseconds in zip(slots, (start, end), strict=True):
            ET.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slot, "TIME_VALUE": str(milliseconds)})
        names = {"ANNOTATION_ID": f"a{number}", "TIME_SLOT_REF1": slots[0], "TIME_SLOT_REF2": slots[1]}
        annotation = ET.SubElement(ET.SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", names)
        ET.SubElement(annotation, "ANNOTATION_VALUE").text = _label(moment)
    kind = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "moment", "TIME_ALIGNABLE": "true"}
    ET.SubElement(document, "LINGUISTIC_TYPE", kind)
    ET.indent(document)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(document, encoding="unicode") + "\n"


def _in_xml(path: str) -> str:
    """Return a path as ELAN writes it, spaces and all; only what no XML can hold is escaped."""
    return _NOT_IN_XML.sub(lambda match: quote(os.fsencode(match[0])), path)


_LABELS: dict[str, Callable[[FileMoments, Path], str]] = {".txt": _audacity, ".vtt": _webvtt, ".eaf": _elan}
LABEL_SUFFIXES = tuple(_LABELS)
TABLE_SUFFIXES = (".csv", ".json", ".parquet")
