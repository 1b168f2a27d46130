"""Hostile names and numbers on pages, in tables and in labels.

What is written counts as right where another reader takes it: HTML with no more elements that can do something than a
page of plain names has, with no control characters, and with the name on it; strict JSON; CSV with as many rows as
moments; XML; UTF-8 throughout.
"""

import csv
import html.parser
import io
import json
import math
import random
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from earmark.evaluation.report import Example, write_report
from earmark.moments import Moment
from earmark.moments.page_index import write_index
from earmark.moments.writing import FileMoments, write_labels, write_table
from earmark.wording import visible
from fuzzing.mutations import LONE_SURROGATES, NUMBERS, TEXTS
from fuzzing.running import Input, Kind, WrongError

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
ACTIVE = (
    "script",
    "img",
    "iframe",
    "object",
    "embed",
    "form",
    "link",
    "meta",
    "base",
    "audio",
    "video",
    "svg",
    "style",
)


class Pages(Kind):
    """The report, the page that leads to others, tables and labels of moments."""

    name = "pages"

    def make(self, folder: Path) -> None:
        self._plain: dict[str, Counter[str]] = {}
        for name, write in (("report", self._write_report), ("index", self._write_index)):
            write(folder / f"{name}.html", "plain", [1.0, 2.0, 3.0])
            self._plain[name] = _elements((folder / f"{name}.html").read_text(encoding="utf-8"))

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        what = draw.choice(("report", "report", "index", ".csv", ".json", ".parquet", ".txt", ".vtt", ".eaf"))
        name = draw.choice((*TEXTS, *LONE_SURROGATES)) or "a"
        floats = [number for number in NUMBERS if isinstance(number, float) or abs(number) < 2**1023]
        numbers = [draw.choice((draw.choice(floats), draw.uniform(0, 1e5))) for _ in range(3)]
        if what == "report":  # metrics.jsonl may hold integers of any length
            numbers = [draw.choice((draw.choice(NUMBERS), draw.uniform(0, 1e5))) for _ in range(3)]

        def attempt() -> None:
            if what in ("report", "index"):
                path = folder / f"{what}.html"
                (self._write_report if what == "report" else self._write_index)(path, name, numbers)
                _require_page(path, name, self._plain[what])
                return
            path = folder / f"moments{what}"
            moments = _moments(numbers)
            found = FileMoments(name, name, moments, 10.0, (name,))
            if what in (".csv", ".json", ".parquet"):
                write_table(path, [found], detector="earmark", parameters={})
            else:
                write_labels(path, found)
            _require_readable(path, len(moments))

        shown = [f"{number:.3g}" if isinstance(number, float) else f"{len(hex(number))} digits" for number in numbers]
        return Input(f"{what}: {name[:40]!r}, {shown}", attempt, ("moments", "report", "index", visible(name)[:10]))

    @staticmethod
    def _write_report(path: Path, name: str, numbers: list[Any]) -> None:
        metrics = [
            {"kind": "step", "step": step, "loss": number, "lr": number, "samples_per_second": number, name: 1}
            for step, number in enumerate(numbers)
        ]
        frames = np.zeros((2, 8, 8, 3), np.uint8)
        time = next((abs(float(n)) for n in numbers if isinstance(n, float) and math.isfinite(n)), 1.0)
        example = Example(name, min(time, 1e9), frames, frames, np.zeros(4000, np.int16), 16000, caption=name)
        write_report(path, title=name, summary={name: name}, metrics=metrics, results=None, examples=[example])

    @staticmethod
    def _write_index(path: Path, name: str, numbers: list[Any]) -> None:
        found = FileMoments("a", name, _moments(numbers), 10.0, (name,))
        broken = FileMoments("b", f"{name}b", error=f"{name}b: broken")
        write_index(path, [found, broken], {name: path.with_name("page.html")}, detector="earmark")


def _moments(numbers: list[Any]) -> tuple[Moment, ...]:
    """Return moments at plausible times, with finite scores, as detectors give them, and any loudness."""
    scores = [float(number) if math.isfinite(number) else 1.0 for number in numbers]
    return tuple(
        Moment(1.0 + k, score, score, 0, float(number))
        for k, (score, number) in enumerate(zip(scores, numbers, strict=True))
    )


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += tag in ACTIVE
        for name, value in attrs:
            self.elements["a handler"] += name.startswith("on")
            self.elements["a script for an address"] += (value or "").lstrip().lower().startswith("javascript:")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _elements(page: str) -> Counter[str]:
    reader = _Reader()
    reader.feed(page)
    return reader.elements


def _require_page(path: Path, name: str, plain: Counter[str]) -> None:
    page = path.read_bytes().decode("utf-8")
    reader = _Reader()
    reader.feed(page)
    more = {tag for tag in reader.elements if tag not in ("img", "audio") and reader.elements[tag] > plain[tag]}
    if more:
        raise WrongError(f"a name has become {', '.join(sorted(more))}")
    if CONTROL.search(page):
        raise WrongError("control characters stand on a page")
    text = "".join(reader.texts)
    letters = re.sub(r"[^\w<>&'\"]", "", name)[:50]
    if letters and letters not in re.sub(r"[^\w<>&'\"]", "", text) and not CONTROL.search(name) and name.isprintable():
        raise WrongError("a name is not on the page")


def _require_readable(path: Path, num_moments: int) -> None:
    if path.suffix == ".parquet":
        num_rows = pq.read_table(path).num_rows
    else:
        text = path.read_bytes().decode("utf-8")
        if path.suffix == ".csv":
            num_rows = sum(1 for _ in csv.DictReader(io.StringIO(text, newline="")))
        elif path.suffix == ".json":
            num_rows = len(json.loads(text, parse_constant=_refused_constant)[0]["moments"])
        elif path.suffix == ".eaf":
            num_rows = len(list(ET.fromstring(text).iter("ALIGNABLE_ANNOTATION")))
        elif path.suffix == ".vtt":
            num_rows = text.count(" --> ")
        else:
            num_rows = len(text.splitlines())
    if num_rows != num_moments:
        raise WrongError("another number of rows than of moments")


def _refused_constant(name: str) -> Any:
    raise WrongError(f"writes {name}, which is not JSON")


KIND = Pages()
