import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earmark.cli.main import main
from earmark.clips.store import PreparedStore
from earmark.datasets import Folder
from earmark.media import PacketIndex
from earmark.preparation import prepare
from earmark.preparation.catalog import StoreError
from earmark.preparation.verifying import Fault, invalidate, verify
from tests.helpers.clicking import make_video


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    for name in ("a", "b"):
        make_video(folder / "sources" / f"{name}.mp4", seconds=4.0, times=(1.0, 2.5))
    prepare(Folder(folder / "sources").videos(), folder / "store", progress=False)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "store", tmp_path / "store")
    return tmp_path / "store"


def truncate(root: Path) -> str:
    path = root / "videos/b.mov"
    path.write_bytes(path.read_bytes()[:-5000])
    return f"{path}: "


def flip_a_byte_of_a_picture(root: Path) -> str:
    path = root / "videos/b.mov"
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    content = bytearray(path.read_bytes())
    content[int(index.frame_offsets[24] + index.frame_sizes[24] // 2)] ^= 1
    path.write_bytes(content)
    return f"{path}: frame 24 (1.500 s) has changed since it was written"


def flip_a_byte_of_the_sound(root: Path) -> str:
    path = root / "videos/b.mov"
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    content = bytearray(path.read_bytes())
    content[int(index.sound_offsets[2]) + 100] ^= 1
    path.write_bytes(content)
    return f"{path}: 1 run of sound changed since written, the first at byte {int(index.sound_offsets[2])}"


def shift_the_index(root: Path) -> str:
    path = root / "videos/b.index.npz"
    index = PacketIndex.load(path)
    index.frame_offsets[3] += 1
    index.save(path)
    return f"{path}: not a packet index (two packets overlap at byte {index.frame_offsets[4]})"


def name_a_shorter_frame(root: Path) -> str:
    path = root / "videos/b.index.npz"
    index = PacketIndex.load(path)
    index.frame_sizes[3] -= 1
    index.save(path)
    return f"{path}: wrong index: frame_sizes are not those of b.mov"


def flip_a_byte_and_rebuild_the_index(root: Path) -> str:
    flip_a_byte_of_a_picture(root)
    path = root / "videos/b.index.npz"
    PacketIndex.of_file(root / "videos/b.mov").save(path)
    return f"{path}: its checksums differ from those written with the video"


def lose_the_video(root: Path) -> str:
    (root / "videos/b.mov").unlink()
    return f"{root / 'videos/b.mov'}: No such file or directory"


def lose_the_index(root: Path) -> str:
    (root / "videos/b.index.npz").unlink()
    return f"{root / 'videos/b.index.npz'}: is missing"


def lose_the_record(root: Path) -> str:
    (root / "videos/b.json").write_text("{")
    return f"{root / 'videos/b.json'}: the record cannot be read"


def put_another_video_in_its_place(root: Path) -> str:
    shutil.copy(root / "videos/a.mov", root / "videos/b.mov")
    with (root / "videos/b.mov").open("ab") as file:
        file.write(b"\0" * 8)
    return f"{root / 'videos/b.mov'}: "


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_byte_of_a_picture,
        flip_a_byte_of_the_sound,
        shift_the_index,
        name_a_shorter_frame,
        flip_a_byte_and_rebuild_the_index,
        lose_the_video,
        lose_the_index,
        lose_the_record,
        put_another_video_in_its_place,
    ],
)
def test_every_kind_of_damage_is_found_and_named(made: Path, store: Path, damage: Callable[[Path], str]) -> None:
    assert verify(store, progress=False).faults == ()
    expected = damage(store)
    report = verify(store, progress=False)
    assert {fault.video_id for fault in report.faults} == {"b"}
    assert any(fault.reason.startswith(expected) for fault in report.faults), report.faults
    whole = (made / "store/videos/b.mov").read_bytes()
    invalidate(store, ["b"])
    again = prepare(Folder(made / "sources").videos(), store, progress=False)
    assert again.num_reused == 1
    assert (store / "videos/b.mov").read_bytes() == whole
    assert verify(store, progress=False).faults == ()


def test_every_flipped_byte_of_a_picture_is_found(store: Path) -> None:
    path = store / "videos/b.mov"
    index = PacketIndex.load(path.with_suffix(".index.npz"))
    whole = path.read_bytes()
    for at in np.linspace(0, index.frame_sizes[8] - 1, 12).astype(int):
        content = bytearray(whole)
        content[int(index.frame_offsets[8] + at)] ^= 4
        path.write_bytes(content)
        assert "frame 8 (0.500 s)" in " ".join(fault.reason for fault in verify(store, progress=False).faults)


def test_a_catalog_that_leads_elsewhere_is_a_fault(store: Path) -> None:
    table = pq.read_table(store / "videos.parquet")
    paths = pa.array(["videos/a.mov", "../b.mov"])
    column = table.column_names.index("prepared_path")
    pq.write_table(table.set_column(column, "prepared_path", paths), store / "videos.parquet")
    (fault,) = verify(store, progress=False).faults
    assert fault == Fault("b", f"{store / 'videos.parquet'}: file of 'b' is '../b.mov'", "tables")


def test_a_sound_store_counts_what_was_read(store: Path) -> None:
    report = verify(store, progress=False)
    videos = PreparedStore(store).videos.values()
    assert (report.num_videos, report.num_frames) == (2, sum(video.num_frames for video in videos))
    assert report.hours == pytest.approx(8 / 3600, rel=0.05)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a prepared store"):
        verify(tmp_path, progress=False)


def test_the_command_verifies_and_repairs(made: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["data=folder", f"data.args.base_path={made / 'sources'}", f"data.store={store}", "prepare.workers=1"]
    assert main(["prepare", "--verify", *data]) == 0
    assert "all is as it was written" in capsys.readouterr().out
    flip_a_byte_of_a_picture(store)
    assert main(["prepare", "--verify", *data]) == 1
    out = capsys.readouterr().out
    assert "b: " in out
    assert "frame 24 (1.500 s) has changed" in out
    assert main(["prepare", "--verify", "--repair", *data]) == 0
    assert main(["prepare", "--verify", *data]) == 0
    with pytest.raises(SystemExit):
        main(["prepare", "--repair", *data])


def test_the_command_repairs_the_description_and_the_tables_without_preparing_a_video(
    made: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["data=folder", f"data.args.base_path={made / 'sources'}", f"data.store={store}", "prepare.workers=1"]
    description = store / "store.json"
    whole, stamp = description.read_bytes(), (store / "videos/b.mov").stat().st_mtime_ns
    description.write_text(description.read_text().replace('"fps": 16', '"fps": 8'))
    table = pq.read_table(store / "videos.parquet")
    pq.write_table(table.slice(1), store / "videos.parquet")
    assert main(["prepare", "--verify", *data]) == 1
    out = capsys.readouterr().out
    assert f"the store: {description}: fps=8, the records say fps=16" in out
    assert f"a: {store / 'videos.parquet'}: has no row of this video, which has a record" in out
    assert "damaged: catalog or moments, store.json; --repair makes anew" in out
    assert main(["prepare", "--verify", "--repair", *data]) == 0
    assert description.read_bytes() == whole
    assert pq.read_table(store / "videos.parquet").equals(table, check_metadata=True)
    assert (store / "videos/b.mov").stat().st_mtime_ns == stamp
    assert main(["prepare", "--verify", *data]) == 0
    assert "all is as it was written" in capsys.readouterr().out


def test_the_command_says_what_an_older_store_does_not_hold(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = shutil.copytree(reference / "e2cc9bf" / "store", tmp_path / "old")
    assert main(["prepare", "--verify", "data=folder", f"data.args.base_path={tmp_path}", f"data.store={old}"]) == 0
    out = capsys.readouterr().out
    assert f"not compared, written by an older version: {old / 'videos'}: 2 records of 2: no digest of their own" in out
    assert "all is as it was written" in out
