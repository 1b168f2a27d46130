"""Tables of moments on disk."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earmark.moments import (
    Moment,
    moments_table,
    read_moments,
    write_moments,
)


def test_table_survives_the_disk(tmp_path: Path) -> None:
    found = {"b": [Moment(1.5, 2.0, 3.0, 0), Moment(11.0, 1.0, 0.5, 1)], "empty": [], "a": [Moment(0.1, 1.2, 3.4, 0)]}
    table = moments_table(found, detector="audio_peaks", parameters={"min_distance": 10, "min_prominence": 1.0})
    write_moments(tmp_path / "moments.parquet", table)
    assert [p.name for p in tmp_path.iterdir()] == ["moments.parquet"]
    read = read_moments(tmp_path / "moments.parquet")
    assert read.equals(table, check_metadata=True)
    assert read.schema.metadata == {
        b"detector": b"audio_peaks",
        b"parameters": b'{"min_distance": 10, "min_prominence": 1.0}',
    }
    assert read.column("video_id").to_pylist() == ["b", "b", "a"]


def test_a_table_without_any_moment_survives_the_disk(tmp_path: Path) -> None:
    write_moments(tmp_path / "moments.parquet", moments_table({}, detector="audio_peaks", parameters={}))
    assert read_moments(tmp_path / "moments.parquet").num_rows == 0


def test_an_interrupted_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "moments.parquet"
    old = moments_table({"a": [Moment(1.5, 2.0, 3.0, 0)]}, detector="audio_peaks", parameters={})
    write_moments(path, old)

    def fail(table: pa.Table, file: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_moments(path, moments_table({}, detector="audio_peaks", parameters={}))
    assert [p.name for p in tmp_path.iterdir()] == ["moments.parquet"]
    assert read_moments(path).equals(old)


def test_other_files_are_no_moments_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("not parquet")
    with pytest.raises(ValueError, match=r"x.parquet: not a moments table"):
        read_moments(path)
    pq.write_table(pa.table({"video_id": ["a"], "score": [1.0]}), path)
    with pytest.raises(ValueError, match=r"x.parquet: .*missing: time_seconds, height, segment_id"):
        read_moments(path)
    table = moments_table({"a": [Moment(1.5, 2.0, 3.0, 0)]}, detector="d", parameters={})
    pq.write_table(table.set_column(1, "time_seconds", pa.array(["soon"])), path)
    with pytest.raises(ValueError, match=r"x.parquet: .*expected"):
        read_moments(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("time_seconds", float("nan"), "1 of its times are none: the first is that of row 1, nan s of 'a'"),
        ("time_seconds", float("inf"), "1 of its times are none: the first is that of row 1, inf s of 'a'"),
        ("time_seconds", -2.0, "1 of its times are none: the first is that of row 1, -2.0 s of 'a'"),
        ("time_seconds", None, "1 of its rows have no time_seconds"),
        ("video_id", None, "1 of its rows have no video_id"),
        ("score", None, "1 of its rows have no score"),
    ],
)
def test_a_value_that_is_none_is_named(tmp_path: Path, name: str, value: float | None, reason: str) -> None:
    path = tmp_path / "m.parquet"
    table = moments_table({"a": [Moment(t, 2.0, 3.0, 0) for t in (0.5, 1.5, 2.5)]}, detector="d", parameters={})
    values = [value if row == 1 else old for row, old in enumerate(table[name].to_pylist())]
    changed = table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))
    write_moments(path, changed)
    with pytest.raises(ValueError, match=rf"m\.parquet: not a moments table, {reason}"):
        read_moments(path)
