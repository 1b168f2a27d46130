"""The table of a benchmark in its forms: what they say is what was measured."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from earmark.evaluation.benchmark import BenchmarkTable, Measure, summarise
from earmark.evaluation.benchmark_page import BenchmarkCell, ShownTable, write_benchmark_page
from earmark.evaluation.benchmark_tables import (
    csv_text,
    difference_table,
    latex_text,
    mean_table,
    plain_data,
    table_of_plain_data,
)

SCORES = {
    "verb top-1": {
        "random": {0: 20.0, 1: 20.5, 2: 19.8},
        "re_place": {0: 30.0, 1: 31.0, 2: 30.2},
        "replai": {0: 30.5, 1: 30.1, 2: 31.2},
    },
    "PNR error": {"random": {0: 0.9}, "replai": {0: 0.5}},
}


@pytest.fixture
def table() -> BenchmarkTable:
    measures = [Measure("verb top-1"), Measure("PNR error", "s", higher_is_better=False, decimals=3)]
    return summarise(
        SCORES, measures, methods=["random", "re_place", "replai"], reference="replai", trivial={"verb top-1": 23.0}
    )


def printed(shown: object) -> str:
    text = io.StringIO()
    Console(file=text, width=200, markup=False).print(shown)
    return text.getvalue()


def test_the_text_has_means_half_widths_and_marks(table: BenchmarkTable) -> None:
    text = printed(mean_table(table))
    # mean 20.1, deviation 0.36056, t(2) 4.30265: 0.8957
    assert "20.1 ± 0.9 ▼" in text
    assert "30.4 ± 1.3 │" in text
    assert "0.900 │" in text  # one seed has no interval
    assert "PNR error, s ↓" in text
    assert "23.0" in text
    differences = printed(difference_table(table))
    assert "-10.5 ▼" in differences
    assert "+0.400" in differences
    assert "replai" not in differences.split("\n", 2)[2]


def test_the_csv_has_every_number_as_it_is(table: BenchmarkTable) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert len(rows) == 6
    first = rows[0]
    assert (first["method"], first["measure"], first["verdict"]) == ("random", "verb top-1", "worse")
    assert {int(k): float(v) for k, v in (part.split(":") for part in first["by_seed"].split())} == SCORES[
        "verb top-1"
    ]["random"]
    assert float(first["mean"]) == table.entries["random", "verb top-1"].over_seeds.mean
    assert rows[-1]["method"] == "ignores the video"


def test_latex_has_a_row_for_each_method_and_escapes_names(table: BenchmarkTable) -> None:
    lines = latex_text(table).splitlines()
    assert r"re\_place & $30.4 \pm 1.3$ &  \\" in lines
    assert r"random & $20.1 \pm 0.9^{\blacktriangledown}$ & $0.900$ \\" in lines
    assert r"method & verb top-1, \% & PNR error, s $\downarrow$ \\" in lines
    assert sum(line.endswith(r"\\") for line in lines) == 5


def test_plain_data_is_json(table: BenchmarkTable) -> None:
    content = json.loads(json.dumps(plain_data(table)))
    assert content["reference"] == "replai"
    assert len(content["entries"]) == 5
    assert table_of_plain_data(content) == table
    del content["entries"][0]["over_seeds"]["mean"]
    with pytest.raises(ValueError, match="no table of a benchmark"):
        table_of_plain_data(content)


def test_the_page_shows_numbers_commands_and_failures_and_escapes_them(table: BenchmarkTable, tmp_path: Path) -> None:
    def cell(name: str, problem: str | None) -> BenchmarkCell:
        return BenchmarkCell(name, "replai", 0, "/runs/" + name, ("earmark pretrain <x>",), ("/r",), 12.0, problem)

    for path in (tmp_path / "one.html", tmp_path / "other.html"):
        write_benchmark_page(
            path,
            ShownTable(
                table,
                setting={"videos": "an <hour>"},
                rates={"replai": 0.1},
                rates_found="here",
                tried={"replai": {0.1: 30.0, 0.3: 20.0}},
                cells=(cell("good", None), cell("bad", "out of <memory>")),
            ),
        )
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert page == (tmp_path / "other.html").read_text(encoding="utf-8")
    escaped = ["an &lt;hour&gt;", "earmark pretrain &lt;x&gt;", "out of &lt;memory&gt;"]
    numbers = ["30.4", "± 1.3", "0.1: 30.0 %, 0.3: 20.0 %", "seed 1: 31.0"]
    for text in (*escaped, *numbers, "1 of 2 cells failed", "/runs/good"):
        assert text in page, text
    assert page.count("<figure>") == 2
    assert "<hour>" not in page
