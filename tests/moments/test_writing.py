"""What is written of moments: each format is read back by its own rules."""

import csv
import json
import math
import os
import re
import xml.etree.ElementTree as ET
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from earmark.moments import Moment, read_moments
from earmark.moments.writing import LABEL_SUFFIXES, TABLE_SUFFIXES, FileMoments, record, write_labels, write_table
from tests.helpers.webvtt import vtt_cues

MOMENTS = (
    Moment(0.0004, 2.5, 3.0, 0, -20.25),
    Moment(0.0008, 1.5, 1.0, 0, -math.inf),
    Moment(59.9996, 1.25, 1.0, 5, -3.0),
    Moment(60.5, 4.0, 2.0, 6, -6.0),
    Moment(7325.125, 9.0, 8.0, 732, -1.0),
)
FOUND = FileMoments("a & <b>", "dir/a & <b>.mp4", MOMENTS, 7326.0, ("the sound ends early",))
OTHER = FileMoments("c", "c.wav", (Moment(3.0, 1.0, 1.0, 0, -9.0),), 10.0)
BROKEN = FileMoments("d", "d.wav", error="d.wav: no such file")


def write_all(path: Path) -> None:
    write_table(path, [FOUND, OTHER, BROKEN], detector="replai", parameters={"min_score": 1.0})


# --- tables ---


def test_csv_holds_every_number_exactly(tmp_path: Path) -> None:
    write_all(tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["time_seconds"]) for row in rows] == [m.time_seconds for m in (*MOMENTS, *OTHER.moments)]
    assert [float(row["loudness_db"]) for row in rows][:2] == [-20.25, -math.inf]
    assert [row["video_id"] for row in rows] == ["a & <b>"] * 5 + ["c"]
    assert {row["path"] for row in rows} == {"dir/a & <b>.mp4", "c.wav"}


def test_csv_keeps_a_row_whole_whose_name_has_a_line_end(tmp_path: Path) -> None:
    for number, name in enumerate(("a\rb", "a\nb", "a\r\nb", 'a"\rb')):
        write_table(
            tmp_path / f"{number}.csv", [FileMoments(name, name, MOMENTS[:1], 10.0)], detector="earmark", parameters={}
        )
        with (tmp_path / f"{number}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["path"] for row in rows] == [name]


@pytest.mark.parametrize("path", ["a\0b.wav", "\ud800.wav"])
def test_elan_refuses_what_can_be_no_path_by_its_name(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match=r"(a\\x00b|\\ud800)\.wav: cannot be the path of a media file"):
        write_labels(tmp_path / "a.eaf", FileMoments("a", path, MOMENTS[:1], 10.0))
    assert not list(tmp_path.iterdir())


def test_parquet_is_a_moments_table_with_the_settings_in_its_metadata(tmp_path: Path) -> None:
    write_all(tmp_path / "m.PARQUET")
    assert read_moments(tmp_path / "m.PARQUET")["score"].to_pylist() == [2.5, 1.5, 1.25, 4.0, 9.0, 1.0]
    table = pq.read_table(tmp_path / "m.PARQUET")
    assert table["loudness_db"].to_pylist()[:2] == [-20.25, -math.inf]
    assert table["path"].to_pylist()[-1] == "c.wav"
    assert table.schema.metadata[b"detector"] == b"replai"
    assert json.loads(table.schema.metadata[b"parameters"]) == {"min_score": 1.0}


def test_json_is_strict_and_keeps_files_that_could_not_be_read(tmp_path: Path) -> None:
    write_all(tmp_path / "m.json")

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    first, second, third = json.loads((tmp_path / "m.json").read_text(), parse_constant=refuse)
    assert [moment["loudness_db"] for moment in first["moments"]][:2] == [-20.25, None]
    assert first["notes"] == ["the sound ends early"]
    assert (second["duration_seconds"], second["detector"], second["parameters"]) == (10.0, "replai", {"min_score": 1})
    assert third == {"path": "d.wav", "error": "d.wav: no such file"} == record(BROKEN)


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_a_table_without_moments_is_a_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    write_table(path, [FileMoments("a", "a.wav", (), 1.0)], detector="replai", parameters={})
    if suffix == ".parquet":
        assert read_moments(path).num_rows == 0
    elif suffix == ".csv":
        assert path.read_text() == "video_id,time_seconds,score,height,segment_id,loudness_db,path\n"
    else:
        assert json.loads(path.read_text())[0]["moments"] == []


@pytest.mark.parametrize("suffix", [*TABLE_SUFFIXES, *LABEL_SUFFIXES])
def test_a_name_that_is_not_utf_8_is_written_all_the_same(tmp_path: Path, suffix: str) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    found = FileMoments(name, name, OTHER.moments, 10.0)
    if suffix in TABLE_SUFFIXES:
        write_table(tmp_path / f"m{suffix}", [found], detector="replai", parameters={})
    else:
        write_labels(tmp_path / f"m{suffix}", found)
    if suffix in (".csv", ".json", ".eaf"):
        assert "caf%E9.wav" in (tmp_path / f"m{suffix}").read_text()


def test_an_unknown_suffix_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.xlsx.*\.csv"):
        write_table(tmp_path / "m.xlsx", [FOUND], detector="replai", parameters={})
    with pytest.raises(ValueError, match=r"m\.srt.*\.vtt"):
        write_labels(tmp_path / "m.srt", FOUND)
    assert not list(tmp_path.iterdir())


# --- labels ---


def test_audacity_labels_are_points_with_tabs_between(tmp_path: Path) -> None:
    write_labels(tmp_path / "m.txt", FOUND)
    fields = [line.split("\t") for line in (tmp_path / "m.txt").read_text().splitlines()]
    assert {len(row) for row in fields} == {3}
    assert all(start == end for start, end, _ in fields)
    assert [float(start) for start, _, _ in fields] == [m.time_seconds for m in MOMENTS]
    assert [label for _, _, label in fields][:2] == ["2.50, -20.2 dB", "1.50, -inf dB"]


def test_webvtt_cues_follow_each_other_and_never_are_empty(tmp_path: Path) -> None:
    write_labels(tmp_path / "m.vtt", FOUND)
    cues = vtt_cues((tmp_path / "m.vtt").read_text())
    assert [cue[:2] for cue in cues] == [(0, 1), (1, 1001), (60000, 60500), (60500, 61500), (7325125, 7326125)]
    assert cues[2][2] == "1.25, -3.0 dB"


EAF_CHILDREN = {
    "ANNOTATION_DOCUMENT": r"(LICENSE )*HEADER TIME_ORDER (TIER )*(LINGUISTIC_TYPE )*(LOCALE )*(CONSTRAINT )*",
    "HEADER": r"(MEDIA_DESCRIPTOR )*(LINKED_FILE_DESCRIPTOR )*(PROPERTY )*",
    "TIME_ORDER": r"(TIME_SLOT )*",
    "TIER": r"(ANNOTATION )*",
    "ANNOTATION": r"(ALIGNABLE_ANNOTATION |REF_ANNOTATION )",
    "ALIGNABLE_ANNOTATION": r"ANNOTATION_VALUE ",
}
EAF_REQUIRED = {
    "ANNOTATION_DOCUMENT": {"AUTHOR", "DATE", "VERSION"},
    "MEDIA_DESCRIPTOR": {"MEDIA_URL", "MIME_TYPE"},
    "TIME_SLOT": {"TIME_SLOT_ID"},
    "TIER": {"TIER_ID", "LINGUISTIC_TYPE_REF"},
    "ALIGNABLE_ANNOTATION": {"ANNOTATION_ID", "TIME_SLOT_REF1", "TIME_SLOT_REF2"},
    "LINGUISTIC_TYPE": {"LINGUISTIC_TYPE_ID"},
}


def test_elan_documents_have_the_structure_of_the_eaf_3_schema(tmp_path: Path) -> None:
    write_labels(tmp_path / "m.eaf", FOUND)
    root = ET.parse(tmp_path / "m.eaf").getroot()
    for element in root.iter():
        children = "".join(f"{child.tag} " for child in element)
        assert re.fullmatch(EAF_CHILDREN.get(element.tag, ""), children), element.tag
        assert EAF_REQUIRED.get(element.tag, set()) <= set(element.attrib), element.tag
    assert root.attrib["FORMAT"] == root.attrib["VERSION"] == "3.0"
    schema = root.attrib["{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation"]
    assert schema == "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
    assert datetime.fromisoformat(root.attrib["DATE"]).tzinfo
    header = root.find("HEADER")
    assert header is not None
    assert header.attrib["TIME_UNITS"] == "milliseconds"
    names = [e.attrib[key] for e in root.iter() for key in ("TIME_SLOT_ID", "ANNOTATION_ID") if key in e.attrib]
    assert len(set(names)) == len(names) == 15
    types = {element.attrib["LINGUISTIC_TYPE_ID"] for element in root.iter("LINGUISTIC_TYPE")}
    assert {tier.attrib["LINGUISTIC_TYPE_REF"] for tier in root.iter("TIER")} <= types


def test_elan_annotations_lie_where_the_moments_are_and_do_not_overlap(tmp_path: Path) -> None:
    write_labels(tmp_path / "m.eaf", FOUND)
    root = ET.parse(tmp_path / "m.eaf").getroot()
    slots = {slot.attrib["TIME_SLOT_ID"]: int(slot.attrib["TIME_VALUE"]) for slot in root.iter("TIME_SLOT")}
    spans = [
        (slots[a.attrib["TIME_SLOT_REF1"]], slots[a.attrib["TIME_SLOT_REF2"]])
        for a in root.iter("ALIGNABLE_ANNOTATION")
    ]
    assert spans == [(0, 1), (1, 1001), (60000, 60500), (60500, 61500), (7325125, 7326125)]
    assert [value.text for value in root.iter("ANNOTATION_VALUE")][-1] == "9.00, -1.0 dB"


def test_elan_finds_the_media_by_both_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_labels(tmp_path / "labels" / "m.eaf", FOUND)
    (media,) = ET.parse(tmp_path / "labels" / "m.eaf").getroot().iter("MEDIA_DESCRIPTOR")
    wanted = tmp_path.resolve() / "dir" / "a & <b>.mp4"
    assert Path(media.attrib["MEDIA_URL"].removeprefix("file://")) == wanted
    assert (tmp_path / "labels" / media.attrib["RELATIVE_MEDIA_URL"]).resolve() == wanted
    assert media.attrib["MIME_TYPE"] == "video/mp4"


@pytest.mark.parametrize("suffix", LABEL_SUFFIXES)
def test_no_moments_are_no_labels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    write_labels(path, FileMoments("a", "a\x01.wav", (), 1.0))
    if suffix == ".eaf":
        assert not list(ET.parse(path).getroot().iter("ANNOTATION"))
    else:
        assert path.read_text() == {".txt": "", ".vtt": "WEBVTT\n"}[suffix]
