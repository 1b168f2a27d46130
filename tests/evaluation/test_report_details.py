"""The page of an evaluation beside its table: what is shown is what was given, and nothing runs or is lost."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from earmark.datasets.annotation_files import RowFaults
from earmark.evaluation import (
    ClassAccuracy,
    ColumnResult,
    Estimate,
    Example,
    Row,
    Score,
    TaskResult,
    compare,
    write_report,
)
from earmark.evaluation.answers import TargetAnswers
from earmark.evaluation.frame_strips import LARGEST_FRAME, clock_text
from earmark.evaluation.judged_clips import ClipAnswer, JudgedClip, answers_to, choose_samples, right_and_confident
from earmark.evaluation.metrics import majority_correct, top_k_correct
from earmark.evaluation.published_results import PUBLISHED, tables_of
from earmark.evaluation.report_details import LEFT_OUT_SHOWN, ResultDetails
from tests.helpers.read_page import Page

RIGHT = ClipAnswer("verb", "open", "open", 0.78, right=True)
ATTACK = "<script>alert(1)</script>\"'&"


def made_up(column: str, *, num_classes: int, num_samples: int, seed: int = 0) -> TargetAnswers:
    """Return answers that are better for frequent classes, and a baseline that is worse."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, num_classes + 1) ** 1.2
    labels = rng.choice(num_classes, num_samples, p=shares / shares.sum())

    def scores(strength: float) -> npt.NDArray[np.float32]:
        drawn = np.log(shares) + 2 * rng.normal(size=(num_samples, num_classes))
        drawn[np.arange(num_samples), labels] += strength * rng.random(num_samples)
        return drawn.astype(np.float32)

    names = [f"{column}-{number}" for number in range(num_classes)]
    train_counts = (7 * num_samples * shares / shares.sum()).astype(np.int64)
    return TargetAnswers(column, names, labels, scores(5), scores(1), train_counts)


def result_of(targets: list[TargetAnswers], videos: npt.NDArray[np.str_]) -> TaskResult[ColumnResult]:
    """Return the numbers of made-up answers."""
    columns = []
    for target in targets:
        train = np.repeat(np.arange(len(target.names)), target.train_counts)
        assert target.baseline_scores is not None

        def score(k: int, target: TargetAnswers = target, train: npt.NDArray[np.int64] = train) -> Any:
            return compare(
                top_k_correct(target.scores, target.labels, k),
                baseline=top_k_correct(target.baseline_scores, target.labels, k),  # type: ignore[arg-type]
                majority=majority_correct(train, target.labels, k),
                chance=100 * k / len(target.names),
                videos=videos,
                k=k,
            )

        right = target.predictions == target.labels
        classes = tuple(
            ClassAccuracy(target.names[label], 100 * right[target.labels == label].mean(), 1.0, 5)
            for label in np.unique(target.labels)
        )
        columns.append(
            ColumnResult(
                target.column, len(target.names), len(train), len(right), len(set(videos)), score(1), score(5), classes
            )
        )
    options = {"test_clips_per_action": 3, "interval": "95 % over videos"}
    return TaskResult(tuple(columns), options, num_test_videos=len(set(videos)))


def written(
    tmp_path: Path, details: ResultDetails, results: TaskResult[ColumnResult] | None = None, **rest: Any
) -> Page:
    if results is None:
        few = made_up("verb", num_classes=6, num_samples=80)
        results = result_of([few], np.array([f"P{number % 30}" for number in range(80)]))
    path = tmp_path / "report.html"
    given = {"title": "run", "summary": {}, "metrics": None, "examples": []} | rest
    write_report(path, results=results, details=details, **given)
    return Page(path)


def clip(frames: npt.NDArray[np.uint8] | None = None, **changes: Any) -> JudgedClip:
    answers = (
        ClipAnswer("verb", "open", "open", 0.78, right=True),
        ClipAnswer("noun", "tap", "pan", 0.45, right=False),
    )
    shown = np.full((8, 32, 48, 3), 90, np.uint8) if frames is None else frames
    arguments = {
        "video_id": "P01_02",
        "start_seconds": 72.5,
        "stop_seconds": 75.0,
        "answers": answers,
        "confident": True,
    }
    return JudgedClip(frames=shown, **(arguments | changes))


def natural_frame(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a frame that JPEG finds about as hard as a kitchen: smooth parts, edges and a little noise."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.zeros((height, width, 3))
    for _ in range(40):
        y, x, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(4, 60)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        frame[inside] = rng.integers(0, 255, 3) + 20 * np.sin(columns[inside] / 7)[:, None]
    return np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)


def test_a_page_at_the_size_of_epic_kitchens_stays_under_3_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = [made_up("verb", num_classes=97, num_samples=9668), made_up("noun", num_classes=300, num_samples=9668)]
    videos = np.array([f"P{number % 138:03d}" for number in range(9668)])
    right, confidence = right_and_confident(targets)
    pool = np.stack([natural_frame(rng, 256, 455) for _ in range(8)])
    clips = []
    for wanted in (right, ~right):
        for samples in choose_samples(wanted, confidence, videos.tolist(), num_confident=3, num_drawn=3, seed=0):
            clips += [
                clip(
                    pool[rng.permutation(8)[:4]],
                    video_id=str(videos[sample]),
                    answers=answers_to(sample, targets),
                )
                for sample in samples
            ]
    details = ResultDetails(
        statements={"Seeds": "three"},
        answers=targets,
        clips=clips,
        published=(PUBLISHED["epic_kitchens", "action_recognition"],),
        left_out={"train actions": [(f"P01_01_{number}", f"video 'P{number}' is not there") for number in range(5000)]},
    )
    sound = rng.normal(0, 2000, 32000).astype(np.int16)
    examples = [
        Example(f"P{n}", 9.0, pool[:4], pool[4:], sound, 16000, caption="open tap", score=2.0) for n in range(6)
    ]
    metrics = [{"kind": "step", "step": step, "loss": 5 / (1 + step), "lr": 0.1} for step in range(500)]
    page = written(tmp_path, details, result_of(targets, videos), examples=examples, metrics=metrics)
    assert len(clips) == 12
    assert page.source.count('<td class="same"') == 4 * 26  # the diagonals of 25 classes and the others
    assert len(page.source.encode()) < 3_000_000


def test_the_matrix_holds_the_shares_of_each_row(tmp_path: Path) -> None:
    labels = np.array([0] * 4 + [1] * 2)
    scores = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 1, 1]]
    names = ["open", "close", "cut"]
    page = written(
        tmp_path, ResultDetails(answers=[TargetAnswers("verb", names, labels, scores, None, np.array([9, 5, 0]))])
    )
    assert "verb 2 of 6 wrong" in page.text
    cells = re.findall(r'<td(?: class="same")?(?: style="--s:([\d.]+)[^"]*" title="([^"]*)")?>(\d*)</td>', page.source)
    shown = [(share, number) for share, _, number in cells[1:10]]  # after the corner
    assert shown == [
        *[("0.50", "50"), ("0.25", "25"), ("0.25", "25")],
        *[("", ""), ("1.00", "100"), ("", "")],
        *[("", ""), ("", ""), ("", "")],  # never true, but predicted
    ]
    assert cells[2][1] == "open taken for close: 1 of 4"
    assert "open close 1 of 4 25" in page.text
    assert "random encoder" not in page.text.partition("What is taken for what")[2]


def test_points_lie_where_the_numbers_are(tmp_path: Path) -> None:
    labels = np.array([0] * 4 + [1] * 2 + [2] * 2)
    scores = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1, 1, 0, 0]]
    baseline = np.eye(3, dtype=np.float32)[[0] * 8]
    names, counts = ["open", "close", "cut"], np.array([100, 10, 0])
    answers = TargetAnswers("verb", names, labels, scores, baseline, counts)
    page = written(tmp_path, ResultDetails(answers=[answers]))
    circles = [attrs for tag, attrs in page.tags if tag == "circle"]
    titles = re.findall(r"<circle[^>]*><title>([^<]*)</title>", page.source)
    places = {
        (str(attrs["class"]), title): (float(attrs["cx"] or 0), float(attrs["cy"] or 0))
        for attrs, title in zip(circles, titles, strict=True)
    }
    # from 74 (1 action, right of the place for none) to 470 (10 ** 2.5), and from 232 (0 %) to 12 (100 %)
    assert places == {
        ("encoder", "open: 50.0 % of 4 test, 100 training"): (390.8, 122.0),
        ("encoder", "close: 100.0 % of 2 test, 10 training"): (232.4, 12.0),
        ("encoder", "cut: 0.0 % of 2 test, 0 training"): (57.0, 232.0),
        ("baseline", "open: 100.0 % of 4 test, 100 training"): (390.8, 12.0),
        ("baseline", "close: 0.0 % of 2 test, 10 training"): (232.4, 232.0),
        ("baseline", "cut: 0.0 % of 2 test, 0 training"): (57.0, 232.0),
    }
    assert "none 1 2 0.0 0.0 10 to 31 1 2 100.0 0.0 100 to 316 1 4 50.0 100.0" in page.text
    means = [attrs for tag, attrs in page.tags if tag == "line" and attrs["class"] == "mean encoder"]
    assert [attrs["y1"] for attrs in means] == ["232.0", "12.0", "122.0"]


def test_a_clip_shows_its_frames_answers_and_place(tmp_path: Path) -> None:
    right = clip(answers=(RIGHT,), confident=False, start_seconds=3725.25, stop_seconds=3727.5)
    page = written(tmp_path, ResultDetails(clips=[clip(), right], answers_of="seed 3"))
    shown = page.text.partition("Clips answered right and wrong")[2]
    assert "Answers of seed 3." in shown
    assert "Answered right verb open 78 % P01_02, 1:02:05.25 to 1:02:07.50, drawn" in shown
    wrong = "Answered wrong verb open 78 % noun tap , taken for pan 45 % P01_02, 1:12.50 to 1:15.00, most confident"
    assert wrong in shown
    frames = [simplejpeg.decode_jpeg(content) for content in page.uris("image/jpeg")]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 8
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert alts[::4] == [
        "4 frames of P01_02 from 1:02:05.25 to 1:02:07.50",
        "4 frames of P01_02 from 1:12.50 to 1:15.00",
    ]
    only_right = written(tmp_path, ResultDetails(clips=[right])).text
    assert "Answered wrong None." in only_right


def test_large_frames_are_made_smaller_and_keep_their_shape(tmp_path: Path) -> None:
    frames = np.zeros((2, 256, 512, 3), np.uint8)
    frames[:, :, 256:] = 200
    page = written(tmp_path, ResultDetails(clips=[clip(frames)]))
    shown = [simplejpeg.decode_jpeg(content) for content in page.uris("image/jpeg")]
    assert [frame.shape for frame in shown] == [(LARGEST_FRAME, 2 * LARGEST_FRAME, 3)] * 2
    assert (np.abs(shown[0][:, :120].astype(int)) < 8).all()
    assert (np.abs(shown[0][:, 136:].astype(int) - 200) < 8).all()


def test_every_picture_says_its_size_before_it_is_decoded(tmp_path: Path) -> None:
    metrics = [{"kind": "step", "step": step, "loss": 1.0} for step in (1, 2)]
    details = ResultDetails(clips=[clip()], answers=[made_up("verb", num_classes=4, num_samples=40)])
    page = written(tmp_path, details, metrics=metrics)
    pictures = [attrs for tag, attrs in page.tags if tag in {"img", "svg"}]
    assert len(pictures) == 4 + 1 + 1
    for attrs in pictures:
        assert int(attrs["width"] or 0) > 0
        assert int(attrs["height"] or 0) > 0


@pytest.mark.parametrize("frames", [np.zeros((8, 3, 32, 48), np.uint8), np.zeros((0, 32, 48, 3), np.uint8)])
def test_frames_of_the_wrong_kind_are_refused_by_name(tmp_path: Path, frames: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=re.escape("P01_02 at 72.50 s: frames must be uint8 (T, H, W, 3), got uint8 ")):
        written(tmp_path, ResultDetails(clips=[clip(frames)]))
    assert not (tmp_path / "report.html").exists()


def test_published_rows_stand_below_ours_with_their_source_and_what_differs(tmp_path: Path) -> None:
    targets = [made_up("verb", num_classes=8, num_samples=200), made_up("noun", num_classes=9, num_samples=200)]
    results = result_of(targets, np.array([f"P{number % 25}" for number in range(200)]))
    table = PUBLISHED["epic_kitchens", "action_recognition"]
    page = written(tmp_path, ResultDetails(published=(table,)), results)
    section = page.text.partition("Beside published results")[2]
    assert "RepLAI 31.71 11.25 73.54 30.54" in section
    assert "majority class of the validation file not in the paper, counted in its labels 20.04" in section
    assert "arxiv.org/abs/2209.13583" in section
    for difference in table.differences:
        assert difference in section
    cells = []
    for k in ("top1", "top5"):
        for column in results.columns:
            estimate = getattr(column, k).encoder
            cells.append(f"{estimate.value:.2f} {estimate.low:.2f} to {estimate.high:.2f}")
    assert f"encoder judged here {' '.join(cells)} random encoder never trained" in section
    assert section.index("most frequent classes") < section.index("RepLAI from scratch")


def test_numbers_by_the_published_protocol_stand_below_the_full_ones_and_beside_the_published(tmp_path: Path) -> None:
    videos = np.array([f"P{number % 25}" for number in range(200)])
    full, small = (result_of([made_up("verb", num_classes=8, num_samples=200, seed=seed)], videos) for seed in (0, 1))
    small = dataclasses.replace(small, options={"protocol": "200 of 200 actions, one clip each"})
    table = PUBLISHED["epic_kitchens", "action_recognition"]
    page = written(tmp_path, ResultDetails(published=(table,)), dataclasses.replace(full, published=small))
    first, _, second = page.text.partition("by the published protocol 200 of 200 actions, one clip each")
    for part, result in ((first, full), (second.partition("Beside published")[0], small)):
        estimate = result.columns[0].top1.encoder
        assert f"encoder {estimate.value:.1f} {estimate.low:.1f} to {estimate.high:.1f}" in part
    estimate = small.columns[0].top1.encoder
    beside = page.text.partition("Beside published results")[2]
    assert f"encoder by the published protocol {estimate.value:.2f} {estimate.low:.2f} to {estimate.high:.2f}" in beside
    without = written(tmp_path, ResultDetails(published=(table,)), full).text
    assert "by the published protocol" not in without


def test_numbers_with_the_sound_stand_in_the_columns_of_those_with_it(tmp_path: Path) -> None:
    targets = [made_up("verb", num_classes=8, num_samples=200), made_up("noun", num_classes=9, num_samples=200)]
    results = result_of(targets, np.array([f"P{number % 25}" for number in range(200)]))
    table = PUBLISHED["ego4d", "action_recognition"]
    both = dataclasses.replace(results, options={"modalities": ["video", "audio"]})
    cells = [
        f"{column.top1.encoder.value:.1f} {column.top1.encoder.low:.1f} to {column.top1.encoder.high:.1f}"
        for column in results.columns
    ]
    seen, heard = (written(tmp_path, ResultDetails(published=[table]), of).text for of in (results, both))
    assert f"encoder judged here {cells[0]} {cells[1]} – – random encoder" in seen
    assert f"encoder judged here – – {cells[0]} {cells[1]} random encoder" in heard
    assert "RepLAI 22.5 14.7 23.1 15.8" in heard


def test_what_is_better_lower_is_told_by_its_arrow_and_its_sign(tmp_path: Path) -> None:
    """Of errors a number below that of the random encoder is good, and has its own unit and digits."""

    @dataclasses.dataclass(frozen=True)
    class Keyframe:
        error: Score
        num_test_videos: int | None = 30

        def rows(self) -> list[Row]:
            options: dict[str, Any] = {"unit": "s", "decimals": 3, "higher_is_better": False}
            return [Row("point of no return", self.error, 900, 30, majority_name="centre frame", **options)]

    def page(gain: float) -> str:
        estimate = Estimate(0.772 + gain, 0.762 + gain, 0.782 + gain)
        error = Score(
            None,
            estimate,
            Estimate(0.772, 0.762, 0.782),
            Estimate(gain, gain - 0.01, gain + 0.01),
            Estimate(0.8, 0.79, 0.81),
            0.9,
        )
        results = TaskResult((Keyframe(error),), {}, 30)
        tables = tables_of("ego4d", "oscc_pnr")
        write_report(
            tmp_path / "page.html",
            title="a",
            summary={},
            metrics=None,
            results=results,
            examples=[],
            details=ResultDetails(published=tables),
        )
        return Page(tmp_path / "page.html").source

    better, worse = page(-0.1), page(0.1)
    assert '<span class="gain good">-0.100 s against the random encoder</span>' in better
    assert '<span class="gain bad">+0.100 s against the random encoder</span>' in worse
    assert "The centre frame wins: 0.800 s" in worse
    assert "centre frame: 0.800 s" in better
    assert "wins" not in better
    text = Page(tmp_path / "page.html").text
    assert "point of no return, s ↓ of 900 actions of 30 videos; bars from 0 to 0.89 s" in text
    assert "encoder 0.872 0.862 to 0.882" in text
    assert "gain over the random encoder below 0 is better +0.100 +0.090 to +0.110" in text
    assert "encoder judged here 0.872 0.862 to 0.882 random encoder never trained 0.772" in text
    assert "centre frame 0.800 0.790 to 0.810 published, Ego4D v1" in text
    assert "RepLAI 66.30 66.80" in text  # state change accuracy, in the first of the two tables
    assert "RepLAI 0.772" in text


def test_measures_that_were_not_taken_are_left_empty_and_lower_is_marked(tmp_path: Path) -> None:
    page = written(tmp_path, ResultDetails(published=[PUBLISHED["ego4d", "lta"]]))
    assert "verb ED@20 ↓" in page.text
    assert "judged here" not in page.text  # this result has no edit distance
    page = written(tmp_path, ResultDetails(published=[PUBLISHED["epic_kitchens", "action_recognition"]]))
    assert re.search(r"encoder judged here [\d.]+ [\d.]+ to [\d.]+ – [\d.]+ [\d.]+ to [\d.]+ – random", page.text)


def test_a_reason_stands_in_place_of_published_results(tmp_path: Path) -> None:
    page = written(tmp_path, ResultDetails(not_published="these are 43 annotated samples"))
    assert "Published results are not shown: these are 43 annotated samples." in page.text
    assert "31.71" not in page.text
    assert "ublished results" not in written(tmp_path, ResultDetails()).text


def test_what_was_left_out_is_counted_by_reason_and_listed_up_to_a_number(tmp_path: Path) -> None:
    missing = [(f"P01_{number}", f"video 'P{number:03d}' is not in the store") for number in range(LEFT_OUT_SHOWN + 30)]
    late = [("P02_1", "starts at 12.50 s, the video ends at 10.00 s")]
    page = written(tmp_path, ResultDetails(left_out={"train actions": [*late, *missing], "validation actions": []}))
    assert "train actions: 231 left out" in page.text
    assert "video … is not in the store 230 starts at … s, the video ends at … s 1" in page.text
    assert page.text.count("is not in the store") == LEFT_OUT_SHOWN - 1 + 1
    assert "and 31 more, not listed" in page.text
    assert "P02_1: starts at 12.50 s" in page.text
    assert "validation actions" not in page.text


def test_names_from_outside_are_escaped_everywhere(tmp_path: Path) -> None:
    answers = dataclasses.replace(
        made_up(ATTACK, num_classes=30, num_samples=300), names=[f"{ATTACK}{number}" for number in range(30)]
    )
    bad = ClipAnswer(ATTACK, ATTACK, ATTACK, 0.5, right=False)
    details = ResultDetails(
        statements={ATTACK: ATTACK},
        answers=[answers],
        answers_of=ATTACK,
        clips=[clip(video_id=ATTACK, answers=(bad,))],
        not_published=ATTACK,
        left_out={ATTACK: [(ATTACK, ATTACK)]},
    )
    page = written(tmp_path, details)
    assert "<script" not in page.source
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.open == []
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    titles = [attrs["title"] or "" for tag, attrs in page.tags if tag == "td" and "title" in attrs]
    assert any(title.startswith(f"{ATTACK}0 taken for {ATTACK}") for title in titles)
    hidden = written(tmp_path, ResultDetails(statements={"a": "b\u202ec\x07"}))
    assert "\u202e" not in hidden.source
    assert "\x07" not in hidden.source


def test_the_same_details_give_the_same_bytes(tmp_path: Path) -> None:
    details = ResultDetails(answers=[made_up("verb", num_classes=30, num_samples=300)], clips=[clip()])
    assert written(tmp_path, details).source == written(tmp_path, details).source


def test_without_an_evaluation_nothing_of_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, title="run", summary={}, metrics=None, results=None, examples=[])
    assert "<svg" not in path.read_text()
    assert "How it was measured" not in path.read_text()


def test_times_are_shown_as_players_show_them() -> None:
    assert [clock_text(seconds) for seconds in (0.0, 59.994, 59.996, 3599.999)] == [
        "0:00.00",
        "0:59.99",
        "1:00.00",
        "1:00:00.00",
    ]


def test_rows_beyond_those_that_are_named_are_counted(tmp_path: Path) -> None:
    faults = RowFaults(Path("fho_lta_val.json"))
    for number in range(200_000):
        faults.add(f"clips[{number}]", f"video v{number} is not in ego4d.json")
    results = result_of([made_up("verb", num_classes=8, num_samples=200)], np.array(["a", "b"] * 100))
    results = dataclasses.replace(results, left_out=faults.lines())
    lines = [(text.partition(": ")[0], text.partition(": ")[2]) for text in faults.lines()]
    page = written(tmp_path, ResultDetails(left_out={"annotations": lines}), results)
    assert "annotations: 200,000 left out" in page.text
    assert "Not all annotations could be used; 200000 problems, the first: fho_lta_val.json" in page.text
