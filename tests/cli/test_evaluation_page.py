"""The page of `earmark evaluate`: what it says of a run, on a kitchen in the layout of EPIC-KITCHENS-100."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from earmark.cli.evaluation_page import how_chosen, published_beside
from earmark.cli.main import main
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import ProbeAnswers
from earmark.evaluation.published_results import PUBLISHED
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
    assert (
        "Settings of the head linear probe, as configured: lr 0.005, weight decay 0.0001; nothing was chosen"
        in page.text
    )
    assert "Seeds 0, 1; verb top-1 " in page.text
    assert "annotations: 1 left out" in page.text
    for part in ("What is taken for what", "Accuracy against how often", "Answered right", "Answered wrong"):
        assert part in page.text
    alts = [attrs["alt"] or "" for tag, attrs in page.tags if tag == "img"]
    shown = [alt for alt in alts if alt.startswith("4 frames of P")]
    assert 1 <= len(shown) <= 12


def chosen(*by_seed: dict[str, dict[str, float]], **options: Any) -> Any:
    answers = [SimpleNamespace(seed=seed, encoder=ProbeAnswers({}, values)) for seed, values in enumerate(by_seed)]
    result = SimpleNamespace(options={"probe": dataclasses.asdict(ProbeOptions(**options))})
    return SimpleNamespace(answers=answers, result=result)


def test_what_was_chosen_is_told_with_what_it_rests_on() -> None:
    tried = {"noun": {"lr": 0.1, "lr_on_edge": 1.0, "held_out_accuracy": 12.34, "held_out_actions": 1200.0}}
    text = "noun: lr 0.1 (12.3 % of 1,200 held-out actions; the largest lr of those tried)"
    how = "linear probe, chosen on 25 % of the training videos, held out, never on what is reported"
    assert how_chosen(chosen(tried, tried, held_out=0.25)) == f"{how}. {text}"
    other = {"noun": {"lr": 0.01, "lr_on_edge": -1.0, "held_out_accuracy": 12.0, "held_out_actions": 900.0}}
    smallest = "noun: lr 0.01 (12.0 % of 900 held-out actions; the smallest lr of those tried)"
    assert how_chosen(chosen(tried, other, held_out=0.25)) == f"{how}. Seed 0: {text}. Seed 1: {smallest}"


def test_what_was_not_chosen_is_told_as_it_was_given() -> None:
    nothing = "; nothing was chosen by trying"
    assert how_chosen(chosen({}, lr=0.02)) == f"linear probe, as configured: lr 0.02, weight decay 0.0001{nothing}"
    one = chosen({}, kind="attentive", lrs=(0.001,), weight_decays=(0.0,))
    assert how_chosen(one) == f"attentive probe, as configured: lr 0.001, weight decay 0{nothing}"
    votes = chosen({}, kind="knn", neighbours=(50,))
    assert how_chosen(votes) == f"knn probe, as configured: neighbours 50, temperature 0.07{nothing}"


def official_labels() -> dict[str, Any]:
    """Return made-up labels as many as the official ones, whose most frequent classes have the official shares."""
    counts = {"verb": [1937, *[1067] * 4], "noun": [430, 348, *[347] * 3]}
    numbers = {"verb": 97, "noun": 300}
    rests = {column: 9668 - sum(counts[column]) for column in counts}
    return {
        column: np.repeat(
            np.arange(numbers[column]),
            [*counts[column], *np.bincount(np.arange(rests[column]) % (numbers[column] - 5), minlength=1)],
        )
        for column in counts
    }


def found_for(
    labels: dict[str, Any], *, data: str, split: str = "validation", subset: str | None = None, **options: Any
) -> Any:
    actions = [SimpleNamespace(labels={column: int(of[row]) for column, of in labels.items()}) for row in range(9668)]
    targets = [
        SimpleNamespace(column=column, names=range(number), labels=labels[column])
        for column, number in (("verb", 97), ("noun", 300))
    ]
    return published_beside(
        cast(Any, SimpleNamespace(name="action_recognition")),
        cast(Any, targets),
        cast(Any, SimpleNamespace(evaluate=SimpleNamespace(split=split), data=SimpleNamespace(subset=subset))),
        cast(Any, SimpleNamespace(data=SimpleNamespace(name=data))),
        cast(Any, SimpleNamespace(actions=lambda of: actions)),
        {"probe": {"kind": "linear"}} | options,
    )


def test_published_results_are_shown_for_official_labels_and_else_a_reason() -> None:
    labels = official_labels()
    assert found_for(labels, data="epic_kitchens") == ((PUBLISHED["epic_kitchens", "action_recognition"],), "")
    for options, here in (
        ({"probe": {"kind": "knn"}}, "knn probe, on video."),
        ({"modalities": ["video", "audio"]}, "linear probe, on video and audio."),
    ):
        (table,), reason = found_for(labels, data="epic_kitchens", **options)
        assert reason == ""
        assert table.differences[0] == f"Published is a linear probe on the video encoder; here it is: {here}"
    assert found_for(labels, data="epic_kitchens", split="train") == (
        (),
        "split train was judged, the published numbers are of validation",
    )
    table, reason = found_for(labels, data="epic_kitchens", subset="tail_classes")
    assert (table, reason[:37]) == ((), "only a part was judged (tail classes)")
    table, reason = found_for(labels | {"verb": np.arange(9668) % 97}, data="epic_kitchens")
    assert table == ()
    assert reason.startswith("other labels: the verb classes most frequent here make up 1.03 % (top-1)")
    table, reason = found_for(labels, data="kitchen")
    assert (table, reason[:43]) == ((), "data=kitchen: Audible Kitchen is synthetic.")
    table, reason = found_for(labels, data="folder")
    assert (table, reason[:30]) == ((), "data=folder: there are none fo")


def test_a_fine_tuned_encoder_is_told_as_one() -> None:
    judgement = chosen({})
    judgement.result.options = {"fine_tuning": {"lr": 0.01, "lrs": (), "weight_decay": 1e-4, "weight_decays": ()}}
    assert how_chosen(judgement).startswith("fine-tuned encoder, as configured: lr 0.01, weight decay")
