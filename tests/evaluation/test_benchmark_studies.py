"""Studies of a benchmark: each method's points are held against its own reference, and files say what was measured."""

import base64
import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from earmark.evaluation.benchmark import Measure, summarise
from earmark.evaluation.benchmark_figures import study_svg
from earmark.evaluation.benchmark_page import BenchmarkCell, ShownStudy, write_benchmark_page
from earmark.evaluation.benchmark_studies import (
    BenchmarkStudy,
    study_csv_text,
    study_of_plain_data,
    study_plain_data,
    summarise_study,
)

MEASURES = [Measure("verb top-1"), Measure("PNR error", "s", higher_is_better=False, decimals=3)]
LINES = {
    "replai": {
        "verb top-1": {
            "0.125": {0: 20.0, 1: 21.0, 2: 20.2},
            "0.5": {0: 30.1, 1: 30.0, 2: 31.9},
            "1": {0: 30.0, 1: 31.0, 2: 30.5},
        },
        "PNR error": {"1": {0: 0.5}},
    },
    "supervised": {"verb top-1": {"0.5": {0: 40.0, 1: 41.0, 2: 42.5}, "1": {0: 44.0, 1: 45.0, 2: 46.2}}},
}
BESIDE = {"verb top-1": {"random": {0: 15.0, 1: 16.0, 2: 15.1}}}
WHERE = {"0.125": 0.3, "0.5": 1.1, "1": 2.2}


def a_study(*, places: dict[str, float | None] | None = None) -> BenchmarkStudy:
    return summarise_study(
        "hours",
        title="Hours <of> video",
        words="Pretrained on a part.",
        axis="hours",
        log=True,
        places=dict(WHERE) if places is None else places,
        reference="1",
        lines=LINES,
        beside=BESIDE,
        measures=MEASURES,
        trivial={"verb top-1": 23.0},
    )


def test_points_are_compared_with_the_reference_of_the_same_method() -> None:
    study = a_study()
    assert study.is_curve
    assert study.measures == tuple(MEASURES)
    for line, scores in LINES.items():
        alone = summarise(scores, MEASURES, methods=list(WHERE), reference="1", trivial={"verb top-1": 23.0})
        assert study.lines[line] == alone
    found = study.lines["replai"].entries["0.125", "verb top-1"].difference
    assert found is not None
    assert found.mean == pytest.approx(-10.1)
    assert found.verdict == "worse"
    assert study.beside.methods == ("random",)


def test_the_csv_has_every_number_with_its_place_and_plain_data_gives_the_study_again() -> None:
    study = a_study()
    rows = list(csv.DictReader(io.StringIO(study_csv_text(study))))
    numbers = {
        (row["method"], row["point"], row["measure"]): {
            int(k): float(v) for k, v in (part.split(":") for part in row["by_seed"].split())
        }
        for row in rows
        if row["by_seed"]
    }
    for line, scores in LINES.items():
        for measure, by_point in scores.items():
            for point, by_seed in by_point.items():
                assert numbers.pop((line, point, measure)) == by_seed
    assert numbers == {("random", "", "verb top-1"): BESIDE["verb top-1"]["random"]}
    assert {(row["point"], row["value"]) for row in rows if row["point"]} == {(k, str(v)) for k, v in WHERE.items()}
    assert [row["mean"] for row in rows if row["method"] == "ignores the video"] == ["23.0"]
    content = json.loads(json.dumps(study_plain_data(study)))
    assert study_of_plain_data(content) == study
    del content["places"]
    with pytest.raises(ValueError, match="no study of a benchmark"):
        study_of_plain_data(content)


@pytest.mark.parametrize("places", [None, dict.fromkeys(WHERE)])
def test_the_figure_has_a_panel_for_each_measure_and_all_means(places: dict[str, float | None] | None) -> None:
    study = a_study(places=places)
    text = study_svg(study)
    assert study_svg(study) == text
    root = ElementTree.fromstring(text)
    groups = [element.get("id", "") for element in root.iter("{http://www.w3.org/2000/svg}g")]
    assert sum(name.startswith("axes_") for name in groups) == 2
    comments = re.findall("<!-- (.*?) -->", text)
    for label in ("verb top-1, %", "ignores the video: 23.0", "replai", "supervised", "random"):
        assert label in comments, label
    places_shown = ["0.3", "1.1", "2.2"] if places is None else list(WHERE)
    assert set(places_shown) <= set(comments)


def test_thousands_of_steps_are_written_out() -> None:
    places = {"0.125": 375.0, "0.5": 1500.0, "1": 3000.0}
    assert {"375", "1500", "3000"} <= set(re.findall("<!-- (.*?) -->", study_svg(a_study(places=dict(places)))))


def test_a_long_name_of_a_variant_is_broken_and_leaves_the_panels_their_width() -> None:
    def widths(label: str) -> list[float]:
        places: dict[str, float | None] = {"replai": None, label: None}
        scores = {measure.label: {name: {0: 1.0, 1: 2.0} for name in places} for measure in MEASURES}
        study = summarise_study(
            "recipe", title="Recipe", words="", axis="variant", log=False, places=places, reference="replai",
            lines={"replai": scores}, beside={}, measures=MEASURES, trivial={},
        )  # fmt: skip
        text = study_svg(study)
        assert set(label.split()) <= set(" ".join(re.findall("<!-- (.*?) -->", text, re.DOTALL)).split())
        spines = re.findall(r'M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" style="fill: none; stroke: #7a828c', text)
        return [float(right) - float(left) for left, top, right, bottom in spines if top == bottom]

    short, long = widths("clip pairs"), widths("half the batch, clip pairs, weights 0.5 and 0.7")
    assert len(short) == len(long) == len(MEASURES)
    assert min(long) > 0.6 * min(short)


def test_a_measure_that_nothing_was_measured_by_has_no_panel() -> None:
    study = summarise_study(
        "gap", title="Gap", words="", axis="gap, s", log=False, places={"0": 0.0}, reference="0",
        lines={"replai": {"verb top-1": {"0": {0: 1.0}}}}, beside={}, measures=MEASURES, trivial={},
    )  # fmt: skip
    assert study_svg(study).count('<g id="axes_') == 1


def test_the_page_shows_studies_without_a_table(tmp_path: Path) -> None:
    cell = BenchmarkCell("replai-hours_0.125", "replai", 0, "/runs/x", ("earmark pretrain",), ("/r",), 1.0, "killed")
    study = a_study()
    write_benchmark_page(tmp_path / "report.html", None, [ShownStudy(study, study_svg(study), (cell,))])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Hours &lt;of&gt; video" in page
    assert "<of>" not in page
    assert "1 of 1 cells failed" in page
    assert "20.4" in page  # a mean
    assert "Means over seeds</h2>" not in page
    (picture,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert base64.b64decode(picture).decode() == study_svg(study)
