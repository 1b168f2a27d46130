"""Where published weights are looked for, and what is said when they are not there."""

from pathlib import Path

import pytest

from earmark.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from earmark.encoders.published import PUBLISHED, find_weights

AVID_FILE = "AVID_Audioset_Cross-N1024_checkpoint.pth.tar"


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)


def test_every_published_file_is_of_an_encoder_that_there_is() -> None:
    assert set(PUBLISHED) <= set(VIDEO_ENCODERS) | set(AUDIO_ENCODERS)
    assert PUBLISHED["avid_r2plus1d_18"].file == PUBLISHED["avid_spec_cnn_9"].file == AVID_FILE


def test_the_file_given_wins_over_the_variable_and_that_over_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, folder = tmp_path / "named", tmp_path / "folder"
    for place in (named, folder):
        place.mkdir()
        (place / AVID_FILE).touch()
    (tmp_path / "mine.pth").touch()
    assert find_weights("avid_r2plus1d_18", folder=folder) == folder / AVID_FILE
    monkeypatch.setenv("EARMARK_WEIGHTS", str(named))
    assert find_weights("avid_r2plus1d_18", folder=folder) == named / AVID_FILE
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path / "mine.pth"))
    assert find_weights("avid_spec_cnn_9", folder=folder) == tmp_path / "mine.pth"
    monkeypatch.setenv("EARMARK_WEIGHTS", str(named / AVID_FILE))
    assert find_weights("avid_r2plus1d_18", given=tmp_path / "mine.pth") == tmp_path / "mine.pth"


def test_a_file_that_was_given_and_is_not_there_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / AVID_FILE).touch()
    with pytest.raises(FileNotFoundError, match=r"no weights for avid_r2plus1d_18 at mine\.pth"):
        find_weights("avid_r2plus1d_18", given="mine.pth", folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "page"),
    [
        ("avid_spec_cnn_9", AVID_FILE, "github.com/facebookresearch/AVID-CMA"),
        ("r3d_18", "r3d_18-b3b3357e.pth", "pytorch.org/vision"),
        ("cnn10", "Cnn10_mAP=0.380.pth", "zenodo.org/record/3987831"),
    ],
)
def test_the_error_says_which_file_to_fetch_from_where(name: str, file: str, page: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        find_weights(name, folder=tmp_path)
    assert all(part in str(caught.value) for part in (name, file, page, str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="EARMARK_WEIGHTS names no file"):
        find_weights(name)


def test_an_encoder_without_published_weights_says_so() -> None:
    with pytest.raises(FileNotFoundError, match=r"avid_r2plus1d_34 at hand .*none are published"):
        find_weights("avid_r2plus1d_34")
