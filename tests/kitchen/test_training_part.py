"""The kitchen of a kitchen's training videos: nothing of the validation split is in it, and nothing is lost."""

import csv
from pathlib import Path

import pytest

from earmark.datasets import Kitchen
from earmark.kitchen import KitchenError, KitchenSize, make_kitchen
from earmark.kitchen.training_part import write_training_part, write_training_share

SMALL = KitchenSize(3, 5, 6, width=64, height=64, fps=8, sample_rate=16000)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kitchen(tmp_path_factory.mktemp("whole") / "kitchen", size=SMALL, test_split=False, progress=False).path


def rows_of(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / "annotations" / f"EPIC_100_{split}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ids(rows: list[dict[str, str]], column: str) -> set[str]:
    return {row[column] for row in rows}


def test_held_out_are_whole_training_videos_and_none_of_the_validation_split(kitchen: Path, tmp_path: Path) -> None:
    part = write_training_part(kitchen, tmp_path / "part", share=0.3)
    whole, train, held_out = rows_of(kitchen, "train"), rows_of(part, "train"), rows_of(part, "validation")
    assert sorted(map(str, train + held_out)) == sorted(map(str, whole))
    assert not ids(train, "video_id") & ids(held_out, "video_id")
    assert not ids(train + held_out, "video_id") & ids(rows_of(kitchen, "validation"), "video_id")
    assert len(ids(held_out, "video_id")) == round(0.3 * len(ids(whole, "video_id")))
    videos = Kitchen(part).videos()
    assert ids(held_out, "video_id") == {video.video_id for video in videos if video.split == "validation"}
    assert {video.split for video in videos} == {"train", "validation"}
    assert all(video.path.is_file() for video in videos)
    assert Kitchen(part).classes == Kitchen(kitchen).classes


def test_the_draw_depends_on_the_seed_alone_and_a_second_call_writes_the_same(kitchen: Path, tmp_path: Path) -> None:
    def text(folder: Path) -> str:
        return (folder / "annotations/EPIC_100_validation.csv").read_text(encoding="utf-8")

    first = text(write_training_part(kitchen, tmp_path / "part"))
    assert text(write_training_part(kitchen, tmp_path / "part")) == first
    assert text(write_training_part(kitchen, tmp_path / "again")) == first
    others = {text(write_training_part(kitchen, tmp_path / f"seed{seed}", seed=seed)) for seed in range(1, 6)}
    assert len(others | {first}) > 1


def test_a_whole_kitchen_is_not_written_over(kitchen: Path, tmp_path: Path) -> None:
    with pytest.raises(KitchenError, match="holds something else"):
        write_training_part(kitchen, kitchen)
    (tmp_path / "file").touch()
    with pytest.raises(KitchenError, match="file: holds something else"):
        write_training_part(kitchen, tmp_path / "file")


def test_one_training_video_cannot_be_divided(tmp_path: Path) -> None:
    size = KitchenSize(1, 2, 5, width=64, height=64, fps=8, sample_rate=16000)
    kitchen = make_kitchen(tmp_path / "kitchen", size=size, test_split=False, progress=False).path
    with pytest.raises(KitchenError, match="has 1 training video"):
        write_training_part(kitchen, tmp_path / "part")


def test_shares_are_of_training_videos_alone_and_lie_in_larger_ones(kitchen: Path, tmp_path: Path) -> None:
    whole = rows_of(kitchen, "train")
    num_videos = len(ids(whole, "video_id"))
    assert num_videos == 8
    before: set[str] = set()
    for share, count in ((0.1, 1), (0.25, 2), (0.5, 4), (1.0, 8)):
        part = tmp_path / f"share{share}"
        assert write_training_share(kitchen, part, share=share) == count
        rows = rows_of(part, "train")
        drawn = ids(rows, "video_id")
        assert len(drawn) == count
        assert before < drawn
        assert [row for row in whole if row["video_id"] in drawn] == rows  # all of a video, and nothing else
        videos = Kitchen(part).videos()
        assert {video.video_id for video in videos} == drawn
        assert {video.split for video in videos} == {"train"}
        assert all(video.path.is_file() for video in videos)
        before = drawn
    others = {
        str(sorted(ids(rows_of(tmp_path / f"seed{seed}", "train"), "video_id")))
        for seed in range(5)
        if write_training_share(kitchen, tmp_path / f"seed{seed}", share=0.25, seed=seed)
    }
    assert len(others) > 1


@pytest.mark.parametrize("share", [0.0, 1.5, -0.25])
def test_a_share_that_is_none_is_refused(share: float, kitchen: Path, tmp_path: Path) -> None:
    with pytest.raises(KitchenError, match=r"share=.*must be above 0 and at most 1"):
        write_training_share(kitchen, tmp_path / "part", share=share)
