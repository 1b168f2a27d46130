"""Which clip came first: told where brightness rises, not where it rises as often as it falls; what heads say of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.clips.store import PreparedStore
from earmark.clips.transforms import LogMel
from earmark.datasets.records import ActionRecord
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation import Answers, NeighbourResult, Order, OrderResult, ProjectionHeads, evaluate_task
from earmark.evaluation.base import ClipOptions, Setting
from earmark.evaluation.opposite_verbs import VIEWS
from earmark.evaluation.order import OrderAnswers
from earmark.evaluation.order_probe import OrderProbe
from earmark.evaluation.probe import ProbeOptions
from earmark.methods import AudioVisualModel, StateChangeOptions
from tests.helpers.made_store import add_video, finish_store

pytestmark = pytest.mark.usefixtures("one_thread")

RISING, FALLING = [2.0, 4.0, 5.5], [7.5]  # frames become brighter until 7.5 s, where they begin anew
VERBS = ["open", "close", "cut"]


class Dataset:
    """What a data set says: the first half of each video is an opening, the second a closing."""

    name = "made"
    problems = ()

    def __init__(self, classes: dict[str, list[str]]) -> None:
        self.classes = classes

    def actions(self, split: str) -> list[ActionRecord]:
        return [
            ActionRecord(f"{video}-{verb}", video, start, start + 4.5, "", {"verb": verb})
            for video in (f"{split[0]}{k}" for k in range(4))
            for verb, start in ((0, 0.0), (1, 5.0))
        ]

    def videos(self, split: str | None = None) -> list[Any]:
        return []


def made_store(root: Path, times: list[float]) -> PreparedStore:
    rows = [
        add_video(root, f"{split[0]}{number}", split=split, num_frames=160)
        for split in ("train", "validation")
        for number in range(4)
    ]
    finish_store(root, rows, {row.video_id: times for row in rows})
    return PreparedStore(root)


class Pixels(nn.Module):
    """Clips as the encoder is shown them."""

    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        return video.permute(0, 4, 1, 2, 3).float() / 255


class Brightness(nn.Module):
    """Features: the mean brightness, and one that never changes."""

    def forward(self, inputs: Tensor) -> Tensor:
        mean = inputs.mean(dim=(1, 2, 3, 4))
        return torch.stack([mean, torch.ones_like(mean)], dim=1)


def judge(root: Path, times: list[float], classes: dict[str, list[str]] | None = None) -> dict[str, Any]:
    task = Order.from_dataset(
        Dataset(classes or {}),
        made_store(root, times),
        split="validation",
        clips=ClipOptions(),
        probe=ProbeOptions(held_out=0.5),
    )
    encoders = {"video": Brightness()}
    judgement = evaluate_task(
        task, encoders, transforms={"video": Pixels()}, baseline_encoders=encoders, num_seeds=2, seen_videos={}
    )
    result: dict[str, Any] = json.loads(judgement.result.to_json())
    return result


def test_where_it_becomes_brighter_the_order_is_told(tmp_path: Path) -> None:
    result = judge(tmp_path, RISING)
    (order,) = result["columns"]
    assert order["accuracy"]["encoder"]["value"] == 100
    assert order["accuracy"]["per_seed"] == [100, 100]
    assert order["accuracy"]["gain"]["value"] == 0
    assert (order["num_test_moments"], order["num_test_videos"], order["accuracy"]["chance"]) == (12, 4, 50)
    assert order["accuracy"]["majority"] == {"value": 50, "low": 50, "high": 50}
    assert result["options"]["moments_without_verb"] == 12


def test_where_it_becomes_brighter_as_often_as_darker_it_is_not(tmp_path: Path) -> None:
    (order,) = judge(tmp_path, [4.0, *FALLING])["columns"]
    assert order["accuracy"]["encoder"]["value"] == 50


def test_neighbours_are_measured_where_verbs_are_annotated(tmp_path: Path) -> None:
    """Here all openings become brighter, and all closings darker."""
    result = judge(tmp_path, [2.0, *FALLING], {"verb": VERBS})
    by_name = {column["column"]: column for column in result["columns"]}
    assert list(by_name) == [
        "order",
        "neighbours by change",
        "neighbours by appearance",
        "verb, not its opposite",
    ]
    change = by_name["neighbours by change"]
    assert (change["num_classes"], change["num_test_moments"]) == (2, 8)
    # five are asked for, and three of the six of other videos are of the same verb
    assert change["precision"]["encoder"]["value"] == pytest.approx(60)
    assert change["precision"]["chance"] == pytest.approx(50)
    opposites = by_name["verb, not its opposite"]
    assert (opposites["num_test_moments"], opposites["num_test_videos"]) == (8, 4)
    assert opposites["pairs"] == ["open / close"]
    assert opposites["precisions"]["change"]["encoder"]["value"] == pytest.approx(60)
    assert opposites["by_pair"]["change"]["open / close"]["value"] == pytest.approx(60)
    # the labels of the training moments are read, too: the shrinkage is chosen by them
    assert result["rows"][3]["label"] == "verb, not its opposite, nearest by change, P@5"
    assert set(opposites["change_gains"]) == set(opposites["baseline_change_gains"]) == set(VIEWS[1:])


def test_heads_say_what_the_method_says_in_training(tmp_path: Path) -> None:
    """The share of positive margins is `direction_accuracy` of the same samples."""
    for normalize in (False, True):
        model = AudioVisualModel(
            R2Plus1D(10, width=4), SpecCNN9(width=4), state_change=StateChangeOptions(normalize_states=normalize)
        ).eval()
        encoders = {"video": model.backbone["video"], "audio": model.backbone["audio"]}
        before, after, sound = torch.randn(9, 3, 4, 32, 32), torch.randn(9, 3, 4, 32, 32), torch.randn(9, 1, 125, 80)
        heads = ProjectionHeads(
            encoders,
            state=model.mlp["video_aot"],
            change=model.mlp["aot_diff"],
            change_sound=model.mlp["audio_aot"],
            normalize_states=normalize,
        )
        with torch.no_grad():
            clips = torch.stack([encoders["video"](clip) for clip in (before, after)], dim=1).numpy()
            margins = heads.direction_margins(clips, encoders["audio"](sound).numpy())
            said = model(before, after, sound)["direction_accuracy"].item()
        assert (margins > 0).mean() == pytest.approx(said)
        assert 0 < said < 1
        assert heads.has_state_change
        assert not heads.has_correspondence
        with pytest.raises(ValueError, match="no heads of the correspondence"):
            heads.embeddings(clips, clips)


def test_heads_answer_for_their_own_encoders_alone(tmp_path: Path) -> None:
    model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
    encoders = {"video": model.backbone["video"], "audio": model.backbone["audio"]}
    names = {"state": "video_aot", "change": "aot_diff", "change_sound": "audio_aot"}
    heads = ProjectionHeads(encoders, **{role: model.mlp[name].eval() for role, name in names.items()})
    store = made_store(tmp_path, [4.0])
    options = {"clips": ClipOptions(), "probe": ProbeOptions(held_out=0.5)}
    task = Order.from_dataset(Dataset({}), store, split="validation", **options, heads=heads)
    setting = Setting(transforms={"video": Pixels(), "audio": LogMel(sample_rate=16000)})
    (own,) = task.answer({"video": encoders["video"]}, setting, label="encoder")
    (other,) = task.answer({"video": R2Plus1D(10, width=4)}, setting, label="random encoder")
    assert own.own_margins is not None
    assert own.own_margins.shape == (4,)
    assert other.own_margins is None
    results = task.measure([Answers(0, own, other)])
    assert [result.column for result in results] == ["order", "order, own objective"]
    assert isinstance(results[1], OrderResult)
    assert results[1].accuracy.baseline is None
    assert json.dumps([asdict(result) for result in results])


def test_labels_that_are_no_class_and_missing_videos_are_refused(tmp_path: Path) -> None:
    store = made_store(tmp_path, [4.0])
    clips = MomentPairs(store, split="train", audio_seconds=None)
    labelled = MomentPairs(store, split="validation", audio_seconds=None, actions=Dataset({}).actions("validation"))
    with pytest.raises(ValueError, match="need the video of each of 4 training moments"):
        Order(clips, labelled).check()
    labelled.labels["verb"][0] = 3
    with pytest.raises(ValueError, match=r"labels of 'verb' reach to 3, need \[0, 3\)"):
        Order(clips, labelled, class_names=VERBS, train_videos=["a"] * 4).check()


def test_neighbours_need_another_video(tmp_path: Path) -> None:
    """Of one test video alone the order is measured, and no neighbour."""
    store = made_store(tmp_path, [2.0, 7.5])
    clips = MomentPairs(store, split="validation", audio_seconds=None, actions=Dataset({}).actions("validation"))
    task = Order(clips, clips, class_names=VERBS, train_videos=clips.video_ids, test_videos=["v"] * 8)
    vectors = np.random.default_rng(0).normal(size=(8, 3))
    probe = OrderProbe(np.ones(3), np.ones(3))
    answers = OrderAnswers(vectors.sum(axis=1), None, probe, dict.fromkeys(VIEWS, vectors), {"probe": {}})
    assert [type(result) for result in task.measure([Answers(0, answers, None)])] == [OrderResult]
    several = Order(clips, clips, class_names=VERBS, train_videos=clips.video_ids, test_videos=clips.video_ids)
    assert NeighbourResult in [type(result) for result in several.measure([Answers(0, answers, None)])]
