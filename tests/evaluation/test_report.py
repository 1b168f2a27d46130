"""The page: everything that was given is on it, nothing from outside runs, nothing is asked of a server."""

import dataclasses
import io
import json
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from matplotlib.image import imread

from earmark.evaluation import (
    ClassAccuracy,
    ColumnResult,
    Estimate,
    Example,
    Score,
    Seen,
    TaskResult,
    write_report,
)
from earmark.evaluation.report import POINTS_SHOWN
from tests.helpers.read_page import Page

ATTACK = "<script>alert(1)</script>\"'&"


def write(tmp_path: Path, **options: Any) -> Page:
    path = tmp_path / "run" / "report.html"
    nothing: dict[str, Any] = {"title": "run", "summary": {}, "metrics": None, "results": None, "examples": []}
    write_report(path, **(nothing | options))
    return Page(path)


def step(number: int, **values: float | None) -> dict[str, Any]:
    return {"kind": "step", "step": number, "epoch": 1, **values}


def results(
    *,
    baseline: bool = True,
    class_name: str = "cut",
    value: float = 31.5,
    num_actions: int = 1234,
    num_videos: int | None = 40,
    seen: tuple[Seen, ...] = (),
) -> TaskResult[ColumnResult]:
    def score(k: int, value: float) -> Score:
        return Score(
            k=k,
            encoder=Estimate(value, value - 4.25, value + 4.75),
            baseline=Estimate(value - 10, value - 14, value - 6) if baseline else None,
            gain=Estimate(10.0, 2.5, 17.5) if baseline else None,
            majority=Estimate(12.5, 10.5, 14.5),
            chance=k * 10.0,
        )

    classes = (ClassAccuracy(class_name, 66.7, 33.3 if baseline else None, 30),)
    column = ColumnResult("verb", 10, 2000, num_actions, num_videos, score(1, value), score(5, value + 30), classes)
    options = {"test_clips_per_action": 5, "interval": "95 % over videos"}
    return TaskResult((column,), options, num_test_videos=num_videos, seen=seen)


def example(**changes: Any) -> Example:
    rng = np.random.default_rng(0)
    tone = np.zeros(32000)
    tone[16000:] = 8000 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    arguments: dict[str, Any] = {
        "video_id": "P01_02",
        "time_seconds": 72.5,
        "frames_before": np.full((8, 32, 48, 3), 40, np.uint8),
        "frames_after": np.full((8, 32, 48, 3), (200, 30, 90), np.uint8),
        "sound": (tone + rng.normal(0, 5, 32000)).astype(np.int16),
        "sample_rate": 16000,
    }
    return Example(**(arguments | changes))


def test_page_without_anything_says_what_is_missing(tmp_path: Path) -> None:
    page = write(tmp_path, metrics=[])
    assert "No evaluation yet" in page.text
    assert "No training metrics yet: metrics.jsonl is missing or holds no step." in page.text
    assert "No example moments were given." in page.text
    assert "No training metrics were given." in write(tmp_path).text
    assert page.open == []  # every tag is closed


def test_annotations_that_could_not_be_used_are_told_in_the_results_and_on_the_page(tmp_path: Path) -> None:
    left_out = ("EPIC_100_train.csv: row 7: stop_timestamp is missing", "EPIC_100_train.csv: row 9: \x1b[2J")
    result = dataclasses.replace(results(num_videos=30), left_out=left_out)
    (caution,) = result.cautions
    assert caution == f"Not all annotations could be used; 2 problems, the first: {left_out[0]}."
    assert caution in write(tmp_path, results=result).text
    content = json.loads(result.to_json())
    assert (content["cautions"], content["left_out"]) == ([caution], list(left_out))
    assert not results(num_videos=30).cautions


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        title=ATTACK,
        summary={ATTACK: ATTACK},
        metrics=[{"kind": ATTACK, ATTACK: 1.0}],
        results=results(class_name=ATTACK),
        examples=[example(video_id=ATTACK, caption=ATTACK)],
    )
    assert "<script" not in page.source
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert page.text.count(ATTACK) == 7  # title twice, name and value, class, video, caption: shown as they are
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_page_asks_nothing_of_any_server(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        metrics=[step(1, loss=1.0), step(2, loss=0.5)],
        results=results(),
        examples=[example()],
    )
    for tag, attrs in page.tags:
        assert tag not in {"link", "script", "iframe", "object", "base", "form"}
        for name in {"src", "srcset", "href"} & attrs.keys():
            assert (attrs[name] or "").startswith("data:")
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policies = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"]


def test_summary_stands_in_the_order_given(tmp_path: Path) -> None:
    page = write(tmp_path, title="my run", summary={"Machine": "2 cores", "Data": "kitchen"})
    assert re.search(r"my run Machine 2 cores Data kitchen", page.text)


def test_every_number_of_the_result_is_on_the_page(tmp_path: Path) -> None:
    page = write(tmp_path, results=results())
    assert "5 clips per action, 40 test videos. Intervals: 95 % over videos." in page.text
    assert "verb top-1 of 10 classes, 1,234 actions of 40 videos" in page.text
    assert "encoder 31.5 27.2 to 36.2" in page.text
    assert "random encoder never trained 21.5 17.5 to 25.5" in page.text
    assert "majority class ignores the video 12.5 10.5 to 14.5" in page.text
    assert "gain over the random encoder +10.0 +2.5 to +17.5" in page.text
    assert "encoder 61.5 57.2 to 66.2" in page.text
    assert "cut 30 66.7 33.3" in page.text


def headline(page: Page) -> str:
    return page.text[page.text.index("verb top-1") :].partition("95 % interval")[0]


@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (31.5, "majority class: 12.5 %"),
        (12.5, "No better than the majority class: 12.5 %"),
        (12.0, "The majority class wins: 12.5 %"),
    ],
)
def test_the_headline_says_where_the_majority_class_wins(
    tmp_path: Path, baseline: bool, value: float, words: str
) -> None:
    page = write(tmp_path, results=results(baseline=baseline, value=value))
    assert words in headline(page)
    assert page.source.count("The majority class wins") == (value < 12.5)


def test_one_is_singular_and_few_or_seen_videos_are_a_caution(tmp_path: Path) -> None:
    seen = (Seen("pretraining saw", 1), Seen("the checkpoint was chosen by a probe on", 0), Seen("a run saw", None))
    text = write(tmp_path, results=results(num_actions=1, num_videos=1, seen=seen)).text
    assert "5 clips per action, 1 test video. " in text
    assert "of 10 classes, 1 action of 1 video" in text
    assert (
        "Caution: The interval rests on 1 test video, and says little of other videos; 20 or more are better." in text
    )
    assert "Caution: Pretraining saw 1 of 1 test video: other videos may score lower." in text
    assert "Caution: It is not known whether a run saw any of the test videos." in text
    assert "chosen by a probe" not in text
    text = write(tmp_path, results=results(num_videos=19)).text
    assert "Caution: The intervals rest on 19 test videos, and say little of other videos" in text
    assert "Caution" not in write(tmp_path, results=results(num_videos=20)).text
    assert "Caution" not in write(tmp_path, results=results(num_videos=None)).text


def test_result_without_baseline_shows_no_gain(tmp_path: Path) -> None:
    page = write(tmp_path, results=results(baseline=False))
    assert "random encoder" not in page.text
    assert "majority class: 12.5 %" in page.text


def test_interval_bars_lie_where_the_numbers_are(tmp_path: Path) -> None:
    page = write(tmp_path, results=results())
    # the highest number is 66.25, so the bars end at 70 %
    dots = [attrs["style"] for _, attrs in page.tags if attrs.get("class") == "dot encoder"]
    assert dots == [f"left:{100 * value / 70:.2f}%" for value in (31.5, 61.5)]
    whiskers = [attrs["style"] for _, attrs in page.tags if attrs.get("class") == "whisker majority"]
    assert whiskers[0] == f"left:{100 * 10.5 / 70:.2f}%;width:{100 * 4 / 70:.2f}%"


def curve_ends(page: Page) -> list[str]:
    return [attrs["alt"] or "" for tag, attrs in page.tags if tag == "img" and " over steps. " in (attrs["alt"] or "")]


def test_curves_show_what_was_logged_in_light_and_dark(tmp_path: Path) -> None:
    lines = [step(n, loss=5.0 - n, contrastive_loss=3.0, lr=0.1, extra=1.0) for n in (1, 2, 3)]
    page = write(tmp_path, metrics=[*lines, {"kind": "epoch", "step": 3, "loss": 99.0}])
    assert curve_ends(page) == [
        "Losses over steps. total: 4 to 2; audio-visual correspondence: 3 to 3",
        "Learning rate over steps. learning rate: 0.1 to 0.1",
    ]
    pictures = page.uris("image/svg+xml")
    assert len(pictures) == 4
    assert all(picture.startswith(b"<?xml") for picture in pictures)
    assert pictures[0] != pictures[1]
    assert [attrs["media"] for tag, attrs in page.tags if tag == "source"] == ["(prefers-color-scheme: dark)"] * 2


def test_where_the_time_of_a_gpu_went_is_drawn_with_all_its_parts(tmp_path: Path) -> None:
    shares = {"device_busy_share": 0.7, "data_wait_share": 0.1, "host_wait_share": 0.15, "launch_bound_share": 0.05}
    page = write(tmp_path, metrics=[step(n, **shares, peak_share=0.16) for n in (1, 2)])
    assert curve_ends(page) == [
        "Where the device's time went over steps. busy: 0.7 to 0.7; waiting for data: 0.1 to 0.1; "
        "waiting for the host: 0.15 to 0.15; work or launching: 0.05 to 0.05",
        "Share of the device's peak over steps. share of the peak: 0.16 to 0.16",
    ]
    colors = set(re.findall(rb"stroke: (#[0-9a-f]{6}); stroke-width: 1.6", page.uris("image/svg+xml")[0]))
    assert len(colors) == 4  # a line for each, none left out


def test_repeated_steps_count_once_and_damaged_lines_are_counted(tmp_path: Path) -> None:
    metrics = [
        step(1, loss=9.0),
        step(3, loss=7.0),
        step(2, loss=8.0),
        step(3, loss=1.0),  # done again after a resume
        step(4, loss=None),  # was not finite
        step(5, loss=float("nan")),
        {"kind": "step", "loss": 3.0},  # of which step?
    ]
    page = write(tmp_path, metrics=metrics, num_damaged_metrics=1)
    assert curve_ends(page) == ["Losses over steps. total: 9 to 1"]
    assert "2 damaged lines of metrics.jsonl left out." in page.text
    assert "left out" not in write(tmp_path, metrics=metrics[:3]).text


@pytest.mark.parametrize("huge", [1e308, -1e308, 10**400, float("inf")])
def test_numbers_too_large_to_draw_are_counted(tmp_path: Path, huge: float) -> None:
    numbers = [2.0, huge, *[huge] * 3, 1.0]
    metrics = [step(number, loss=loss) for number, loss in enumerate(numbers)]
    page = write(tmp_path, metrics=[*metrics, step(10**400, loss=1.0)])
    assert curve_ends(page) == ["Losses over steps. total: 2 to 1"]
    assert "Not drawn: 4 values not finite or too large." in page.text
    assert "1 damaged line of metrics.jsonl left out." in page.text
    assert curve_ends(write(tmp_path, metrics=metrics[1:-1])) == []


def test_names_that_would_hide_what_is_beside_them_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    title, fact = "run\x1b[2J\u202e\udce9\ud800", {"a\x07": "b\u2066\nc"}
    write_report(path, title=title, summary=fact, metrics=None, results=None, examples=[])
    page = path.read_text(encoding="utf-8")
    assert "<h1>run\\x1b[2J\\u202e" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)


def test_long_curves_are_averaged_not_cut(tmp_path: Path) -> None:
    count = 10 * POINTS_SHOWN
    page = write(tmp_path, metrics=[step(n, loss=float(n)) for n in range(count)])
    assert curve_ends(page) == [f"Losses over steps. total: 4.5 to {count - 5.5:.4g}"]


def test_example_shows_its_frames_sound_and_moment(tmp_path: Path) -> None:
    page = write(tmp_path, examples=[example(caption="open drawer", score=2.414)])
    assert "open drawer P01_02 at 1:12.50 score 2.41" in page.text
    frames = [simplejpeg.decode_jpeg(content) for content in page.uris("image/jpeg")]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 8
    assert all(np.abs(frame.astype(int) - 40).max() <= 3 for frame in frames[:4])
    assert all(np.abs(frame.astype(int) - (200, 30, 90)).max() <= 5 for frame in frames[4:])
    (sound,) = page.uris("audio/wav")
    with wave.open(io.BytesIO(sound)) as reader:
        assert (reader.getnchannels(), reader.getframerate(), reader.getnframes()) == (1, 16000, 32000)
        np.testing.assert_array_equal(np.frombuffer(reader.readframes(32000), "<i2"), example().sound)
    assert "1.0 s moment +1.0 s" in page.text


def test_spectrogram_has_time_from_left_and_low_tones_below(tmp_path: Path) -> None:
    (content,) = write(tmp_path, examples=[example()]).uris("image/png")
    brightness = imread(io.BytesIO(content))[..., :3].sum(axis=2)
    assert brightness.shape == (80, 125)
    before, after = brightness[:, :60], brightness[:, 66:]
    assert after.max(axis=0).min() > 2  # the 440 Hz tone starts at the moment
    assert before.max() < 2
    loudest_row = after.mean(axis=1).argmax()
    assert 60 <= loudest_row < 75  # 440 Hz is 549 of 2840 mel: the 15th of 80 bins from below


def test_example_without_sound_says_so(tmp_path: Path) -> None:
    page = write(tmp_path, examples=[example(sound=np.zeros(0, np.int16))])
    assert "No sound to show." in page.text
    assert page.uris("audio/wav") == page.uris("image/png") == []


def test_digital_silence_gives_a_dark_spectrogram(tmp_path: Path) -> None:
    (content,) = write(tmp_path, examples=[example(sound=np.zeros(32000, np.int16))]).uris("image/png")
    assert imread(io.BytesIO(content))[..., :3].max() < 0.02


def test_time_rounds_up_to_the_next_minute(tmp_path: Path) -> None:
    assert "at 1:00.00" in write(tmp_path, examples=[example(time_seconds=59.999)]).text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames_before": np.zeros((8, 3, 32, 48), np.uint8)}, "P01_02 at 72.50 s: frames must be uint8"),
        ({"frames_after": np.zeros((8, 32, 48, 3), np.float32)}, "frames must be uint8"),
        ({"frames_after": np.zeros((0, 32, 48, 3), np.uint8)}, "frames must be uint8"),
        ({"sound": np.zeros(32000, np.float32)}, "sound must be int16"),
    ],
)
def test_example_of_the_wrong_kind_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, examples=[example(**changes)])
    assert not (tmp_path / "run" / "report.html").exists()


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    options = {
        "metrics": [step(1, loss=1.0), step(2, loss=0.5)],
        "results": results(),
        "examples": [example()],
    }
    assert write(tmp_path, **options).source == write(tmp_path, **options).source
