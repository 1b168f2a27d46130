"""Damage of a video's files and of its record: named, never used, and no more made anew than is damaged."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.media import PacketIndex
from earmark.preparation import MomentSearch, StoreError, prepare, verify
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

SHIFTED = with_column("time_seconds", lambda times: [time + 0.25 for time in times])


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return make_truth(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def root(truth: Truth, tmp_path: Path) -> Path:
    return shutil.copytree(truth.root, tmp_path / "store")


# --- packet indexes ---


def _index(change: Callable[[PacketIndex], dict[str, Any]]) -> Change:
    """Return a change of the columns of b's packet index."""

    def changed(root: Path) -> None:
        path = root / "videos/sub/b.index.npz"
        with np.load(path) as arrays:
            columns = dict(arrays)
        np.savez(path, **(columns | change(PacketIndex.load(path))))

    return changed


def _claim_rows(root: Path) -> None:
    """Have the header of a column claim 2^40 frames."""
    path = root / "videos/sub/b.index.npz"
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    for name in ("frame_offsets.npy", "frame_sizes.npy", "frame_checksums.npy"):
        claimed = members[name].replace(b"(64,), }" + b" " * 11, f"({2**40},), }}".encode())
        assert len(claimed) == len(members[name])
        assert claimed != members[name]
        members[name] = claimed
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _compress(root: Path) -> None:
    """Have a column of zeros unpack to a thousand times its size."""
    path = root / "videos/sub/b.index.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("frame_offsets.npy", "w") as member:
        for _ in range(8):
            member.write(bytes(1 << 20))


def _pad(root: Path) -> None:
    """Make it larger than an index of that file can be."""
    path = root / "videos/sub/b.index.npz"
    num_bytes = (root / "videos/sub/b.mov").stat().st_size
    path.write_bytes(bytes(num_bytes + (1 << 20)) + path.read_bytes())


def _swapped(index: PacketIndex) -> dict[str, Any]:
    order = np.arange(index.num_frames)
    order[[30, 31]] = 31, 30
    return {name: getattr(index, name)[order] for name in ("frame_offsets", "frame_sizes", "frame_checksums")}


INDEXES: dict[str, tuple[Change, str]] = {
    "lost": (lambda root: (root / "videos/sub/b.index.npz").unlink(), "is missing"),
    "cut": (
        lambda root: (path := root / "videos/sub/b.index.npz").write_bytes(path.read_bytes()[:-300]),
        "not a packet index",
    ),
    "2^40 frames": (_claim_rows, r"an array of shape \(1099511627776,\) in 512 bytes"),
    "a bomb": (_compress, "compressed to"),
    "too large": (_pad, "more than an index of that file can have"),
    "negative sizes": (_index(lambda index: {"frame_sizes": -index.frame_sizes}), "points outside the file"),
    "sizes of 2^62": (_index(lambda index: {"frame_sizes": index.frame_sizes + 2**62}), "points outside the file"),
    "beyond the file": (
        _index(lambda index: {"frame_offsets": index.frame_offsets + 10**9}),
        "points outside the file",
    ),
    "overlapping": (_index(lambda index: {"frame_offsets": index.frame_offsets[[0] * 64]}), "two packets overlap"),
    "swapped": (_index(_swapped), "wrong index: frame_offsets"),
    "objects": (_index(lambda index: {"frame_sizes": np.array([{}], object)}), "numbers of type object"),
    "floats": (_index(lambda index: {"frame_sizes": index.frame_sizes.astype(float)}), "numbers of type float64"),
    "checksums": (_index(lambda index: {"frame_checksums": index.frame_checksums ^ 1}), "checksums differ from those"),
    "windows": (_index(lambda index: {"windows": index.windows + np.array([[1, 0, 0, 0]])}), "wrong index: windows"),
    "window of 2^62": (
        _index(lambda index: {"windows": index.windows + np.array([[2**62, 0, 0, 0]])}),
        "too large a number",
    ),
    "file size": (_index(lambda index: {"file_size": np.array(index.file_size + 1)}), "wrong index: file_size"),
    "of a": (lambda root: shutil.copy(root / "videos/a.index.npz", root / "videos/sub/b.index.npz"), "index"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_damaged_index_is_named_and_made_anew(truth: Truth, root: Path, name: str) -> None:
    change, expected = INDEXES[name]
    change(root)
    faults = verify(root, progress=False).faults
    assert {(fault.video_id, fault.damaged) for fault in faults} == {("sub/b", "index")}
    assert_named(faults, f"b.index.npz: .*{expected}")
    copy = shutil.copytree(root, root.with_name("copy"))
    assert assert_refused_or_right(copy, truth) == 0  # a reader makes it anew, and it is the one that was
    assert_repaired(root, truth)


@pytest.mark.parametrize("name", ["lost", "swapped", "checksums", "2^40 frames"])
@pytest.mark.parametrize("at", ["picture", "sound", "header"])
def test_an_index_is_never_made_anew_from_a_damaged_video(truth: Truth, root: Path, name: str, at: str) -> None:
    index = PacketIndex.load(root / "videos/sub/b.index.npz")
    places = {
        "picture": index.frame_offsets[40] + 300,
        "sound": index.sound_offsets[1] + 99,
        "header": index.file_size - 9,
    }
    _flip(root / "videos/sub/b.mov", int(places[at]))
    INDEXES[name][0](root)
    faults = verify(root, progress=False).faults
    assert "video" in {fault.damaged for fault in faults}
    assert {fault.video_id for fault in faults} == {"sub/b"}
    copy = shutil.copytree(root, root.with_name("copy"))
    assert assert_refused_or_right(copy, truth) == 1
    assert_repaired(root, truth, again={"sub/b"})


def test_an_index_made_anew_from_damaged_bytes_is_not_believed(truth: Truth, root: Path) -> None:
    movie = root / "videos/sub/b.mov"
    _flip(movie, int(PacketIndex.load(movie.with_suffix(".index.npz")).frame_offsets[40]) + 300)
    PacketIndex.of_file(movie).save(movie.with_suffix(".index.npz"))
    assert_named(verify(root, progress=False).faults, "its checksums differ from those written with the video")
    assert assert_refused_or_right(root, truth) == 1
    assert_repaired(root, truth, again={"sub/b"})


# --- prepared files ---


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_every_changed_byte_of_a_video_is_told(truth: Truth, root: Path) -> None:
    """Those of the container, too, which no reader of clips looks at, but a player does."""
    movie = root / "videos/a.mov"
    for at in np.linspace(0, movie.stat().st_size - 1, 12).astype(int).tolist():
        _flip(movie, at)
        assert {fault.video_id for fault in verify(root, progress=False).faults} == {"a"}, at
        assert assert_refused_or_right(root, truth) <= 1
        _flip(movie, at)
    assert verify(root, progress=False).faults == ()


def test_another_video_of_the_same_size_is_told(truth: Truth, root: Path) -> None:
    movie, index = root / "videos/sub/b.mov", root / "videos/sub/b.index.npz"
    content = (root / "videos/a.mov").read_bytes()
    padding = movie.stat().st_size - len(content)
    movie.write_bytes(content + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8))
    PacketIndex.of_file(movie).save(index)
    assert_named(verify(root, progress=False).faults, "holds 48 frames")
    assert assert_refused_or_right(root, truth) == 1
    assert_repaired(root, truth, again={"sub/b"})


# --- records ---


def _record(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(root: Path) -> None:
        path = root / "videos/sub/b.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return changed


RECORDS: dict[str, tuple[Change, str]] = {
    "lost": (lambda root: (root / "videos/sub/b.json").unlink(), "the record is missing"),
    "not json": (lambda root: (root / "videos/sub/b.json").write_text("{"), "the record cannot be read"),
    "deep": (lambda root: (root / "videos/sub/b.json").write_text("[" * 10**5), "the record cannot be read"),
    "a list": (lambda root: (root / "videos/sub/b.json").write_text("[]"), "the record is of type list"),
    "of a": (
        lambda root: shutil.copy(root / "videos/a.json", root / "videos/sub/b.json"),
        "it is that of video 'a'",
    ),
    "moment shifted": (_record(lambda content: content["moments"][0].__setitem__(0, 1.25)), "its digest is another"),
    "moment dropped": (_record(lambda content: content["moments"].pop()), "its digest is another"),
    "fps": (_record(lambda content: content["parameters"].update(fps=8)), "its digest is another"),
    "frames": (_record(lambda content: content["video"].update(num_frames=5)), "its digest is another"),
    "status": (_record(lambda content: content["video"].update(status="refused")), "its digest is another"),
    "checksum": (_record(lambda content: content.update(checksum=1)), "its digest is another"),
    "without moments": (
        _record(lambda content: (content.pop("moments"), content.pop("digest"))),
        "'moments' is missing",
    ),
    "null id": (
        _record(lambda content: (content["video"].update(video_id=None), content.pop("digest"))),
        "video: video_id is of type NoneType, not str",
    ),
    "time of NaN": (
        _record(lambda content: (content["moments"][0].__setitem__(0, float("nan")), content.pop("digest"))),
        "a moment at nan s",
    ),
    "huge number": (
        _record(lambda content: (content["moments"][0].__setitem__(3, 10**30), content.pop("digest"))),
        "a moment's segment is out of range",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_is_named_and_its_video_prepared_anew(truth: Truth, root: Path, name: str) -> None:
    change, expected = RECORDS[name]
    change(root)
    faults = verify(root, progress=False).faults
    assert {(fault.video_id, fault.damaged) for fault in faults} == {("sub/b", "video")}
    assert_named(faults, f"b.json: .*{expected}")
    assert assert_refused_or_right(root, truth) == 1
    assert_repaired(root, truth, again={"sub/b"})


def test_a_record_that_was_never_written_here_is_removed(truth: Truth, root: Path) -> None:
    rewrite(root / "videos.parquet", lambda table: table, keep_metadata=False)
    shutil.copy(root / "videos/a.json", root / "videos/c.json")
    (fault,) = verify(root, progress=False).faults
    assert (fault.video_id, fault.damaged) == ("c", "video")
    assert_repaired(root, truth)
    assert not (root / "videos/c.json").exists()


def test_several_faults_are_repaired_at_once(truth: Truth, root: Path) -> None:
    with_parameters(fps=8)(root)
    rewrite(root / "videos.parquet", lambda table: table.slice(1), keep_metadata=True)
    rewrite(root / "moments.parquet", SHIFTED, keep_metadata=True)
    (root / "videos/mute.index.npz").unlink()
    _flip(root / "videos/sub/b.mov", 5000)
    report = verify(root, progress=False)
    assert {fault.damaged for fault in report.faults} == {"video", "index", "tables", "description"}
    assert_repaired(root, truth, again={"sub/b"})


# --- stores of older versions ---


@pytest.fixture
def old(reference: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reference / "e2cc9bf" / "store", tmp_path / "old")


def test_what_an_older_store_lacks_is_said_and_not_a_fault(old: Path) -> None:
    report = verify(old, progress=False)
    assert report.faults == ()
    assert report.not_compared == (
        f"{old / 'videos.parquet'}: holds no digest of its rows: they were compared one by one with the records",
        f"{old / 'moments.parquet'}: holds no digest of its rows: they were compared one by one with the records",
        f"{old / 'videos'}: 2 records of 2: no digest of their own",
        f"{old / 'videos'}: 2 records of 2: no digest of the video's file and index",
    )


OLD: dict[str, tuple[Change, str]] = {
    "moments": (
        lambda root: rewrite(root / "moments.parquet", SHIFTED, keep_metadata=True),
        "6 moments other than in the record",
    ),
    "a row": (
        lambda root: rewrite(root / "videos.parquet", lambda table: table.slice(1), keep_metadata=True),
        "has no row of this video",
    ),
    "a status": (
        lambda root: rewrite(root / "videos.parquet", with_value("status", 0, "refused"), keep_metadata=True),
        "status is 'refused', the record says 'ok'",
    ),
    "fps": (with_parameters(fps=8), "fps=8, the records say fps=16"),
    "audio rate": (with_parameters(audio_rate=8000), "audio_rate=8000, the records say audio_rate=16000"),
    "segments": (with_parameters(segment_seconds=5.0), "segment_seconds=5.0, the records say"),
    "a picture": (lambda root: _damage_and_forget(root / "videos/P01_01.mov"), "have changed since they were written"),
}


def _damage_and_forget(movie: Path) -> None:
    index = PacketIndex.load(movie.with_suffix(".index.npz"))
    _flip(movie, int(index.frame_offsets[16]) + 500)
    movie.with_suffix(".index.npz").unlink()


@pytest.mark.parametrize("name", OLD)
def test_damage_of_an_older_store_is_named_and_never_used(old: Path, name: str) -> None:
    change, expected = OLD[name]
    change(old)
    assert_named(verify(old, progress=False).faults, expected)
    with pytest.raises(StoreError, match=str(old)):
        PreparedStore(old).read("P01_01", [1.0], sound_start_seconds=1.0, num_samples=100)


def test_an_older_store_gets_its_digests_when_it_is_prepared_again(truth: Truth, tmp_path: Path) -> None:
    """Only the tables: what the old records say is gone by, and nothing is transcoded again."""
    root = tmp_path / "store"
    search = MomentSearch("replai")
    prepare(Folder(truth.sources).videos(), root, search=search, progress=False)
    for path in (root / "videos").rglob("*.json"):
        content = json.loads(path.read_text())
        del content["digest"], content["video"]["index_digest"], content["video"]["file_digest"]
        path.write_text(json.dumps(content))
    for table in ("videos.parquet", "moments.parquet"):
        rewrite(
            root / table,
            lambda table: table.select([name for name in table.column_names if "digest" not in name]),
            keep_metadata=False,
        )
    assert len(PreparedStore(root).videos) == 3
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.mov")}
    prepare(Folder(truth.sources).videos(), root, search=search, progress=False)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.mov")} == stamps
    report = verify(root, progress=False)
    assert report.faults == ()
    assert [reason.partition(": ")[2] for reason in report.not_compared] == [
        "3 records of 3: no digest of their own",
        "3 records of 3: no digest of the video's file and index",
    ]
    assert len(PreparedStore(root).videos) == 3
