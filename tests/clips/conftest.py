"""A small store, which several files of tests read."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore


@pytest.fixture
def store(tmp_path: Path) -> "PreparedStore":
    from earmark.clips.store import PreparedStore  # here: without torch, test files are skipped by name
    from earmark.preparation.catalog import PreparedVideo
    from tests.helpers.made_store import add_video, finish_store

    rows = [
        add_video(tmp_path, "P01/P01_01"),
        add_video(tmp_path, "short", num_frames=20, num_samples=30011),
        add_video(tmp_path, "mute", num_frames=10, has_audio=False),
        PreparedVideo("broken", "/videos/broken.mp4", status="refused", reason="not media"),
    ]
    finish_store(tmp_path, rows, {"P01/P01_01": [1.5, 4.25, 7.0], "short": [0.6]})
    return PreparedStore(tmp_path)
