"""Damage of the tables and the description of a store: named, never used, and made anew without a video."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.preparation import StoreError, prepare, verify
from tests.helpers.damaged_store import (
    Change,
    Truth,
    assert_named,
    assert_refused_or_right,
    assert_repaired,
    make_truth,
    rewrite,
    with_column,
    with_parameters,
    with_value,
)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return make_truth(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def root(truth: Truth, tmp_path: Path) -> Path:
    return shutil.copytree(truth.root, tmp_path / "store")


MOMENTS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "shifted": (
        with_column("time_seconds", lambda times: [time + 0.25 for time in times]),
        "2 moments other than in the record: at 1.0.. s time_seconds is",
    ),
    "one shifted": (
        with_value("time_seconds", 3, 2.75),
        "1 moment other than in the record: at 2.750 s time_seconds is 2.75, the record says 2.4",
    ),
    "NaN": (
        with_value("time_seconds", 0, float("nan")),
        "1 of its times are none: the first is that of row 0, nan s of 'a'",
    ),
    "infinite": (with_value("time_seconds", 1, float("inf")), "1 of its times are none: .* row 1, inf s of 'a'"),
    "negative": (
        with_column("time_seconds", lambda times: [-time for time in times]),
        "4 of its times are none: .* row 0, -",
    ),
    "null": (with_value("time_seconds", 2, None), "1 of its rows have no time_seconds"),
    "no id": (with_value("video_id", 2, None), "1 of its rows have no video_id"),
    "score": (
        with_value("score", 0, 99.0),
        "1 moment other than in the record: at 0.7.. s score is 99, the record says",
    ),
    "segment": (with_value("segment_id", 0, 7), "1 moment other than .* segment_id is 7, the record says 0"),
    "dropped": (lambda table: table.slice(1), "1 moment, the record says 2"),
    "doubled": (lambda table: pa.concat_tables([table, table.slice(3)]), "3 moments, the record says 2"),
    "all lost": (lambda table: table.slice(0, 0), "0 moments, the record says 2"),
    "swapped ids": (with_column("video_id", lambda ids: ids[::-1]), "2 moments other than in the record: at 0.7"),
    "of nobody": (with_value("video_id", 0, "nobody"), "moments of a video without a record"),
    "of a mute one": (with_column("video_id", lambda ids: ["mute"] * 4), "4 moments, the record says 0"),
}


@pytest.mark.parametrize("keep_metadata", [True, False], ids=["digest kept", "digest lost"])
@pytest.mark.parametrize("name", MOMENTS)
def test_changed_moments_are_named_and_never_used(truth: Truth, root: Path, name: str, keep_metadata: bool) -> None:
    change, expected = MOMENTS[name]
    rewrite(root / "moments.parquet", change, keep_metadata=keep_metadata)
    faults = verify(root, progress=False).faults
    assert {fault.damaged for fault in faults} == {"tables"}
    assert_named(faults, f"moments.parquet: .*{expected}")
    # the number of a segment is not read: readers count segments by their times
    harmless = name == "segment" and not keep_metadata
    assert (assert_refused_or_right(root, truth) == 0) == harmless
    assert_repaired(root, truth)


CATALOG: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "dropped": (lambda table: table.slice(1), "has no row of this video, which has a record"),
    "refused dropped": (lambda table: table.slice(0, 3), "has no row of this video, which has a record"),
    "doubled": (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "video 'a' stands in 2 rows"),
    "refused": (with_value("status", 2, "refused"), "status is 'refused', the record says 'ok'"),
    "refused, without its file": (
        lambda table: with_value("prepared_path", 2, "")(with_value("status", 2, "refused")(table)),
        "status is 'refused', the record says 'ok'",
    ),
    "ok": (with_value("status", 1, "ok"), "status is 'ok', the record says 'degraded'"),
    "unknown status": (with_value("status", 0, "fine"), "status of 'a' is 'fine'"),
    "no id": (with_value("video_id", 0, None), "1 of its rows have no video_id"),
    "no size": (with_value("num_bytes", 0, None), "1 of its rows have no num_bytes"),
    "longer": (with_value("duration_seconds", 2, 400.0), "'sub/b' has 64 frames in 400.0 s"),
    "endless": (with_value("duration_seconds", 2, float("inf")), "'sub/b' lasts inf s"),
    "huge picture": (with_value("width", 0, 2**40), "'a' has pictures of 1099511627776 x 128"),
    "other picture": (with_value("width", 0, 64), "width is 64, the record says 228"),
    "fewer frames": (with_value("num_frames", 0, -5), "'a' holds less than nothing"),
    "more moments": (with_value("num_moments", 0, 3), "num_moments is 3, the record says 2"),
    "mute": (
        lambda table: with_value("num_samples", 0, 0)(with_value("has_audio", 0, False)(table)),
        "has_audio is False, the record says True",
    ),
    "swapped ids": (
        with_column("video_id", lambda ids: [ids[2], ids[1], ids[0], ids[3]]),
        "file of 'sub/b' is 'videos/a.mov'",
    ),
    "other index": (with_value("index_digest", 0, "0" * 64), "index_digest is '0"),
    "text for numbers": (
        lambda table: table.set_column(
            table.column_names.index("num_frames"), "num_frames", pa.array(["many"] * len(table))
        ),
        "num_frames is of type string, not int64",
    ),
}


@pytest.mark.parametrize("keep_metadata", [True, False], ids=["digest kept", "digest lost"])
@pytest.mark.parametrize("name", CATALOG)
def test_a_changed_catalog_is_named_and_never_used(truth: Truth, root: Path, name: str, keep_metadata: bool) -> None:
    change, expected = CATALOG[name]
    rewrite(root / "videos.parquet", change, keep_metadata=keep_metadata)
    faults = verify(root, progress=False).faults
    assert {fault.damaged for fault in faults} == {"tables"}
    assert_named(faults, f"videos.parquet: .*{expected}")
    # a refused source that is gone from a catalog without a digest takes nothing from its readers
    harmless = name == "refused dropped" and not keep_metadata
    assert (assert_refused_or_right(root, truth) == 0) == harmless
    assert_repaired(root, truth)


def test_a_changed_split_is_told_by_the_digest(truth: Truth, root: Path) -> None:
    """The data set says the split, so the record may say another: only the digest knows."""
    rewrite(root / "videos.parquet", with_value("split", 0, "test"), keep_metadata=True)
    (fault,) = verify(root, progress=False).faults
    assert (fault.video_id, fault.damaged) == ("", "tables")
    assert fault.reason == f"{root / 'videos.parquet'}: its rows are not those that were written"
    with pytest.raises(StoreError, match=r"videos\.parquet: its rows are not those that were written"):
        PreparedStore(root)
    assert_repaired(root, truth)


def test_parameters_changed_in_the_catalog_are_told(truth: Truth, root: Path) -> None:
    path = root / "videos.parquet"
    table = pq.read_table(path)
    metadata = {name: value.replace(b'"fps": 16', b'"fps": 8') for name, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert_named(verify(root, progress=False).faults, "videos.parquet: fps=16, but the catalog was written with fps=8")
    assert assert_refused_or_right(root, truth) == 1
    assert_repaired(root, truth)


@pytest.mark.parametrize("table", ["videos.parquet", "moments.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"PAR1 no table PAR1"])
def test_a_table_that_cannot_be_read_is_a_fault_and_made_anew(
    truth: Truth, root: Path, table: str, content: bytes | None
) -> None:
    (root / table).unlink()
    if content is not None:
        (root / table).write_bytes(content)
    (fault,) = verify(root, progress=False).faults
    assert (fault.video_id, fault.damaged) == ("", "tables")
    assert fault.reason.startswith(f"{root / table}: ")
    assert assert_refused_or_right(root, truth) == 1
    assert_repaired(root, truth)


def test_a_table_of_more_rows_than_bytes_is_not_unpacked(root: Path) -> None:
    path = root / "moments.parquet"
    table = pq.read_table(path)
    rows = pa.table(
        [
            pa.array([value] * 2_000_000, kind)
            for value, kind in zip(("a", 1.0, 1.0, 1.0, 0), table.schema.types, strict=True)
        ],
        schema=table.schema,
    )
    pq.write_table(rows, path)
    assert path.stat().st_size < 50_000
    with pytest.raises(StoreError, match=r"moments\.parquet: 2000000 rows in \d+ bytes"):
        PreparedStore(root)


def test_videos_left_from_an_earlier_run_are_no_fault(truth: Truth, root: Path) -> None:
    records = [record for record in Folder(truth.sources).videos() if record.video_id != "a"]
    prepare(records, root, progress=False)
    assert verify(root, progress=False).faults == ()
    assert "a" not in PreparedStore(root).videos


# --- the description ---


def _description(text: str) -> Change:
    return lambda root: (root / "store.json").write_text(text) and None


DESCRIPTIONS: dict[str, tuple[Change, str]] = {
    "fps=8": (with_parameters(fps=8), "fps=8, the records say fps=16"),
    "fps=32": (with_parameters(fps=32), "fps=32, the records say fps=16"),
    "fps=1e308": (with_parameters(fps=1e308), r"\(fps is 1e[+]308\)"),
    "audio_rate=8000": (with_parameters(audio_rate=8000), "audio_rate=8000, the records say audio_rate=16000"),
    "segment_seconds=5": (
        with_parameters(segment_seconds=5.0),
        "segment_seconds=5.0, the records say segment_seconds=10.0",
    ),
    "quality=10": (with_parameters(quality=10), "quality=10, the records say quality=90"),
    "another detector": (with_parameters(detector="replai"), "detector=replai, the records say detector=earmark"),
    "around": (
        with_parameters(around="moments", around_seconds=1.0),
        "around=moments, around_seconds=1.0, the records say",
    ),
    "without fps": (with_parameters(fps=None), r"not the description of a prepared store \('fps' is missing\)"),
    "without audio_rate": (with_parameters(audio_rate=None), r"\('audio_rate' is missing\)"),
    "fps of text": (with_parameters(fps="16"), r"\(fps is '16'\)"),
    "fps of NaN": (with_parameters(fps=float("nan")), r"\(fps is nan\)"),
    "fps below zero": (with_parameters(fps=-16), r"\(fps is -16\)"),
    "fps of 400 digits": (with_parameters(fps=10**400), r"\(fps is 1000"),
    "segments of nothing": (with_parameters(segment_seconds=1e-9), r"\(segment_seconds is 1e-09\)"),
    "half a sample": (with_parameters(audio_rate=16000.5), r"\(audio_rate is 16000.5\)"),
    "no parameters": (_description('{"format_version": 1}'), r"\('parameters' is missing\)"),
    "null": (_description('{"format_version": 1, "parameters": null}'), "not the description of a prepared store"),
    "version null": (_description('{"format_version": null, "parameters": {}}'), r"\(format_version is None\)"),
    "version infinite": (_description('{"format_version": Infinity, "parameters": {}}'), r"\(format_version is inf\)"),
    "a list": (_description("[]"), "not the description of a prepared store"),
    "deep": (_description("[" * 100_000), "not the description of a prepared store"),
    "not json": (_description("fps: 16"), "not the description of a prepared store"),
    "lost": (lambda root: (root / "store.json").unlink(), "not a prepared store"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_changed_description_is_named_and_never_gone_by(truth: Truth, root: Path, name: str) -> None:
    change, expected = DESCRIPTIONS[name]
    change(root)
    (fault,) = verify(root, progress=False).faults
    assert (fault.video_id, fault.damaged) == ("", "description")
    assert str(root) in fault.reason
    assert_named([fault], expected)
    assert assert_refused_or_right(root, truth) == 1
    assert_repaired(root, truth)


def test_a_changed_description_of_a_store_without_digests_is_seen_at_the_first_use(truth: Truth, root: Path) -> None:
    for table in ("videos.parquet", "moments.parquet"):
        rewrite(root / table, lambda table: table, keep_metadata=False)
    with_parameters(audio_rate=8000)(root)
    store = PreparedStore(root)
    with pytest.raises(StoreError, match=r"store\.json: audio_rate=8000, but 'a' was prepared with audio_rate=16000"):
        store.sound("a", 0.0, 100)
    with_parameters(audio_rate=16000, fps=8)(root)
    with pytest.raises(StoreError, match=r"store\.json: fps=8: video 'a' has 48 frames in 3\.0 s"):
        PreparedStore(root)
