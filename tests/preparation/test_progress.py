import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from earmark.preparation.catalog import PreparedVideo, stretched
from earmark.preparation.progress import PrepareReport, ProgressBars, progress_bars


def text_of(report: PrepareReport) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_the_table_says_what_was_made_and_what_was_refused_and_why() -> None:
    videos = (
        PreparedVideo("a", "a.mp4", duration_seconds=5400.0, has_audio=True, num_moments=900, num_bytes=10**9),
        PreparedVideo("b", "b.mp4", duration_seconds=1800.0, num_bytes=10**9, status="degraded", reason="no sound"),
        PreparedVideo("c", "c.mp4", status="refused", reason="the file is empty"),
    )
    text = text_of(PrepareReport(Path("store"), videos, num_reused=1, detector="replai", num_elsewhere=7))
    rows = [tuple(cell.strip() for cell in line.split("│")[1:3]) for line in text.splitlines() if "│" in line]
    assert rows == [
        ("store", "store"),
        ("videos", "3 (1 already done); 7 of other parts are to come"),
        ("prepared", "2 (1 ok)"),
        ("degraded", "1"),
        ("without sound", "1: kept for evaluation, left out of pretraining"),
        ("refused", "1"),
        ("length", "2.0 hours"),
        ("moments", "900 (7.5 per minute), detector replai"),
        ("size", "2.00 GB (1.00 GB per hour)"),
        ("degraded", "b: no sound"),
        ("refused", "c: the file is empty"),
    ]


def test_videos_that_hold_more_than_their_sources_are_counted_and_named() -> None:
    stored: dict[str, Any] = {"width": 228, "height": 128, "has_audio": True}
    source: dict[str, Any] = {"source_width": 228, "source_height": 128, "source_fps": 15.99}
    source["source_audio_rate"] = 16000
    small = [
        PreparedVideo(name, "", **stored, **source | {"source_width": 170, "source_height": 96}) for name in "stuvw"
    ]
    upright = PreparedVideo("x", "", width=128, height=228, source_width=96, source_height=170)
    slow = PreparedVideo("y", "", **stored, **source | {"source_fps": 12.0})
    dull = PreparedVideo("z", "", **stored, **source | {"source_audio_rate": 8000})
    refused = PreparedVideo("r", "", source_width=2, source_height=2, status="refused")
    videos = (PreparedVideo("a", "", **stored, **source), *small, upright, slow, dull, refused)
    found = stretched(videos, fps=16, sample_rate=16000)
    assert found == {
        "smaller pictures": ["s", "t", "u", "v", "w", "x"],
        "fewer frames per second": ["y"],
        "sound of a lower rate": ["z"],
    }
    text = text_of(PrepareReport(Path("store"), videos, num_reused=0, detector="earmark", stretched=found))
    assert "smaller pictures than is stored in 6 of the sources: s, t, u, v, w and 1 more" in text
    assert "sound of a lower rate than is stored in 1 of the sources: z" in text
    assert "stretched" not in text_of(PrepareReport(Path("store"), videos[:1], num_reused=0, detector="earmark"))


def test_the_bars_tell_videos_hours_rate_and_time_left() -> None:
    bars = ProgressBars(4, 7200.0, lambda: 600.0)
    bars.video_done(1200.0)
    bars.refresh()
    videos, hours = bars.progress.tasks
    assert (videos.completed, videos.total, videos.fields["text"]) == (1, 4, "1/4")
    assert (hours.completed, hours.total) == (1800.0, 7200.0)
    assert bars.rate_text(1800.0, 60.0) == "0.50/2.00 h, 30.0 x real time, 0:03:00 left"
    assert bars.rate_text(0.0, 60.0) == "0.00/2.00 h"


def test_where_no_terminal_is_a_line_tells_the_time_left_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 5.0, 60.0, 61.0, 95.0])
    monkeypatch.setattr("earmark.preparation.progress.time.monotonic", lambda: next(seconds))
    bars = ProgressBars(4, 7200.0, lambda: 600.0)
    bars.video_done(1200.0)
    for _ in range(3):
        bars.refresh()
    assert capsys.readouterr().err == "videos 1/4  0.50/2.00 h, 30.0 x real time, 0:03:00 left\n"
    bars.video_done(5400.0)
    bars.refresh()  # at its end the table says more
    assert capsys.readouterr().err == ""


def test_the_bars_are_drawn_on_standard_error_only_when_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (False, True):
        with progress_bars(2, 20.0, shown=shown) as video_done:
            video_done(10.0)
            video_done(10.0)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("videos" in err and "hours" in err and "2/2" in err) == shown
