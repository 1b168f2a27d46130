"""The page of `earmark evaluate`: what it says of a run, on a kitchen in the layout of EPIC-KITCHENS-100."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from earmark.cli.evaluation_page import how_chosen
from earmark.cli.main import main
from earmark.evaluation.probing import ProbeAnswers
from earmark.kitchen import KitchenSize, make_kitchen
from tests.helpers.command_lines import SMALL_ENCODERS
from tests.helpers.read_page import Page


@pytest.mark.usefixtures("one_thread")
def test_the_page_of_a_run_shows_what_lies_behind_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"num_kitchens": 3, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(tmp_path / "kitchen", size=KitchenSize(video_seconds=15, **sizes), progress=False)
    (annotations,) = {path.parent for path in (tmp_path / "kitchen").rglob("EPIC_100_train.csv")}
    file = annotations / "EPIC_100_train.csv"
    *_, last = rows = file.read_text().splitlines()
    file.write_text("\n".join([*rows, "P99_01_0" + re.sub(r"\d\d:\d\d:[\d.]+", "soon", last[last.index(",") :])]))
    data = [f"data.args.base_path={tmp_path / 'kitchen'}", "prepare.short_side=64"]
    data += ["prepare.workers=1", "environment.workers=0", "logging.name=a"]
    training = [*SMALL_ENCODERS, "optim.batch_size=2", "optim.epochs=1", "optim.use_lr_scheduler=false"]
    assert main(["pretrain", "data=epic_10s_audiopeak", *data, *training]) == 0
    judging = ["data_augm.crop_size=32", "evaluate.num_clips=1", "evaluate.seeds=2", "optim.epochs=2"]
    assert main(["evaluate", "data=epic_action_segments", *data, *judging]) == 0
    (path,) = (tmp_path / "earmark_data/outputs/a_eval").glob("*/report.html")
    page = Page(path)
    assert page.open == []

    assert "Published results are not shown: these are " in page.text
    assert "the validation split of EPIC-KITCHENS-100 has 9,668." in page.text
    assert "31.71" not in page.text
    assert "split train): training videos only, none of the" in page.text
    assert "Settings of the head As configured, nothing was tried. verb: lr 0.005, weight decay 0.0001" in page.text
    assert "Seeds 0, 1; verb top-1 " in page.text
    assert "annotations: 1 left out" in page.text
    for part in ("What is taken for what", "Accuracy against how often", "Answered right", "Answered wrong"):
        assert part in page.text
    alts = [attrs["alt"] or "" for tag, attrs in page.tags if tag == "img"]
    shown = [alt for alt in alts if alt.startswith("4 frames of P")]
    assert 1 <= len(shown) <= 12


def chosen(*by_seed: dict[str, dict[str, float]]) -> Any:
    answers = [SimpleNamespace(seed=seed, encoder=ProbeAnswers({}, values)) for seed, values in enumerate(by_seed)]
    return cast(Any, SimpleNamespace(answers=answers))


def test_what_was_chosen_is_told_with_what_it_rests_on() -> None:
    given = {"verb": {"lr": 0.005, "weight_decay": 1e-4}}
    assert how_chosen(chosen(given)) == "As configured, nothing was tried. verb: lr 0.005, weight decay 0.0001"
    tried = {"noun": {"lr": 0.1, "lr_on_edge": 1.0, "held_out_accuracy": 12.34, "held_out_actions": 1200.0}}
    text = "noun: lr 0.1 (12.3 % of 1,200 held-out actions; the largest lr of those tried)"
    assert how_chosen(chosen(tried, tried)) == f"Chosen on held-out training videos, never on what is reported. {text}"
    other = {"noun": {"lr": 0.01, "lr_on_edge": -1.0, "held_out_accuracy": 12.0, "held_out_actions": np.float64(900)}}
    both = how_chosen(chosen(tried, other))
    assert both.endswith(
        f"Seed 0: {text}. Seed 1: noun: lr 0.01 (12.0 % of 900 held-out actions; the smallest lr of those tried)"
    )
    assert how_chosen(chosen({})) == "not told by this task"
