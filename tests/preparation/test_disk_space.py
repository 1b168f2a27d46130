from pathlib import Path

import pytest

from earmark.datasets import Folder
from earmark.preparation import Transcoding, prepare
from earmark.preparation.disk_space import SourceLength, estimated_bytes, free_bytes, source_lengths
from tests.helpers.clicking import make_video

PARAMETERS = {"fps": 16, "short_side": 128, "quality": 90, "audio_rate": 16000}


def test_lengths_come_from_the_headers(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=3.0, times=())
    (tmp_path / "b.mp4").write_text("not a movie")
    lengths = source_lengths(Folder(tmp_path).videos())
    assert lengths["a"].seconds == pytest.approx(3.0, abs=0.05)
    assert lengths["a"].aspect == pytest.approx(16 / 9)
    assert lengths["b"] == SourceLength(0.0, 1.0)


@pytest.mark.parametrize(("short_side", "quality"), [(128, 90), (256, 75)])
def test_the_estimate_is_near_what_real_clips_take(media: Path, tmp_path: Path, short_side: int, quality: int) -> None:
    names = ("ego_stirring", "kinetics_segway", "ego_weeding", "hitting_bag", "drumstick_1")
    videos = [video for video in Folder(media).videos() if video.video_id in names]
    report = prepare(videos, tmp_path, transcoding=Transcoding(short_side=short_side, quality=quality), progress=False)
    parameters = PARAMETERS | {"short_side": short_side, "quality": quality}
    estimate = estimated_bytes(list(source_lengths(videos).values()), parameters)
    assert 0.6 < estimate / report.num_bytes < 1.7


def test_the_estimate_grows_with_everything_that_makes_files_larger() -> None:
    length = SourceLength(60.0, 16 / 9)
    least = estimated_bytes([length], PARAMETERS)
    for change in ({"fps": 30}, {"short_side": 256}, {"quality": 95}, {"audio_rate": 48000}):
        assert estimated_bytes([length], PARAMETERS | change) > least
    assert estimated_bytes([length, length], PARAMETERS) == pytest.approx(2 * least, abs=1)
    assert estimated_bytes([], PARAMETERS) == 0


def test_room_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there") > 0
