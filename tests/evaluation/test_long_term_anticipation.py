"""Long-term anticipation: windows of hand-made files, what is read of them, and sequences that can be learnt."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from earmark.clips.store import PreparedStore
from earmark.clips.transforms import VideoCrop
from earmark.datasets import Ego4D
from earmark.evaluation import (
    TASKS,
    ClipOptions,
    HeadOptions,
    LongTermAnticipation,
    ProbeOptions,
    PublishedLongTermAnticipation,
    Setting,
    SupervisionLevels,
    answer_task,
    evaluate_task,
    score_submission,
)
from earmark.evaluation.base import Answers
from earmark.evaluation.ego4d_submissions import read_anticipation_submission
from earmark.evaluation.long_term_anticipation_head import AGGREGATORS, Aggregator
from earmark.evaluation.long_term_anticipation_windows import Windows, action_runs
from tests.helpers.ego4d_files import action, clip, video, write_ego4d
from tests.helpers.made_store import add_video, finish_store

LEVELS = SupervisionLevels(0, 3, 3)
QUICK = HeadOptions(num_layers=1, epochs=2, batch_size=8)
FRAMES = {"v1": 480, "v2": 480, "v4": 288, "v5": 480, "v6": 480}  # of v3 there is none, v4 ends at 18 s


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    split = {"v1": "train", "v6": "train", "v5": "test"}
    rows = [
        add_video(tmp_path / "store", name, num_frames=number, split=split.get(name, "validation"))
        for name, number in FRAMES.items()
    ]
    finish_store(tmp_path / "store", rows, {})
    return PreparedStore(tmp_path / "store")


@pytest.fixture
def ego4d(tmp_path: Path) -> Ego4D:
    """Return files with 26 and 25 training actions, and 27, 27 and 24 to judge, one of them listed twice."""
    train = [action("c1", index) for index in range(26)] + [action("c6", index, "v6") for index in range(25)]
    judged = [action("c2", index, "v2") for index in (*range(27), 1)]
    judged += [action("c4", index, "v4") for index in range(27)] + [action("c3", index, "v3") for index in range(24)]
    visible = [action("c5", index, "v5") for index in range(6)] + [action("c7", index, "v3") for index in range(5)]
    files = write_ego4d(
        tmp_path / "ego4d",
        videos=[
            *(video(name, "train") for name in ("v1", "v6")),
            *(video(name, "val") for name in ("v2", "v3", "v4")),
            video("v5", "test"),
        ],
        actions={"train": train, "val": judged, "test_unannotated": visible},
        files=[f"full_scale/v{number}.mp4" for number in range(1, 7)],
    )
    taxonomy = files.annotations_path / "fho_lta_taxonomy.json"
    taxonomy.write_text(json.dumps({"verbs": ["take", "put"], "nouns": ["cup", "lid"]}))
    return Ego4D(tmp_path / "ego4d")


def cut(ego4d: Ego4D, store: PreparedStore, split: str = "validation", **options: object) -> LongTermAnticipation:
    head = options.pop("head", QUICK)
    return LongTermAnticipation.from_dataset(
        ego4d, store, split=split, clips=ClipOptions(num_clips=2), probe=ProbeOptions(), head=head, **options
    )  # type: ignore[arg-type]


def test_windows_of_hand_made_files_are_counted_and_the_lost_ones_named(ego4d: Ego4D, store: PreparedStore) -> None:
    task = cut(ego4d, store)
    assert task.train_windows.window_ids == ("c1_3", "c1_4", "c1_5", "c6_3", "c6_4")  # n - 20 - 4 + 1
    assert task.test_windows.window_ids == ("c2_5", "c2_6", "c4_3")
    train, judged = task.records
    assert (train.split, train.num_used, train.left_out) == ("train", 5, ())
    assert (judged.split, judged.num_used) == ("validation", 3)
    short = "starts at 19.00 s, the video ends at 18.00 s"
    assert dict(judged.left_out) == {
        "c2_3": "holds action 1, which was left out",
        "c2_4": "holds action 1, which was left out",
        **{f"c4_{index}": f"action c4_4: {short}" for index in (4, 5, 6)},
        "c3_3": "action c3_0: video 'v3' is not in the store",
    }
    assert task.train_videos == ("v1", "v1", "v1", "v6", "v6")
    assert task.test_videos == ("v2", "v2", "v4")
    # what comes after the end of the prepared video needs no picture
    assert task.test_windows.coming["verb"].tolist() == [
        [index % 2 for index in range(first, first + 20)] for first in (6, 7, 4)
    ]
    assert task.test_windows.last["verb"].tolist() == [1, 0, 1]


def test_each_seen_action_is_read_once_though_windows_share_it(ego4d: Ego4D, store: PreparedStore) -> None:
    task = cut(ego4d, store)
    assert [seen.action_id for seen in task.train_clips.actions] == [  # type: ignore[attr-defined]
        *(f"c1_{index}" for index in range(6)),
        *(f"c6_{index}" for index in range(5)),
    ]
    assert len(task.train_clips) == 2 * 11
    named = [[task.train_clips.actions[place].action_id for place in row] for row in task.train_windows.seen]  # type: ignore[attr-defined]
    assert named[1] == ["c1_1", "c1_2", "c1_3", "c1_4"]


@pytest.mark.parametrize(("aggregator", "num_seen"), [("transformer", 4), ("concatenation", 2), ("mean", 2)])
def test_how_many_actions_are_seen_depends_on_the_aggregator(
    ego4d: Ego4D, store: PreparedStore, aggregator: Aggregator, num_seen: int
) -> None:
    assert AGGREGATORS[aggregator] == num_seen
    task = cut(ego4d, store, head=dataclasses.replace(QUICK, aggregator=aggregator))
    assert task.train_windows.seen.shape == (26 + 25 - 2 * (20 + num_seen - 1), num_seen)
    asked = cut(ego4d, store, head=dataclasses.replace(QUICK, aggregator=aggregator), num_seen=1)
    assert asked.train_windows.seen.shape == (6 + 5, 1)


def test_runs_of_training_actions_end_where_one_is_lost(ego4d: Ego4D) -> None:
    runs = action_runs(ego4d.anticipation_clips("validation"))
    assert [len(run) for run in runs] == [1, 25, 27, 24]
    assert runs[1][:2].tolist() == [[0, 0], [1, 0]]
    clips = [dataclasses.replace(each, in_order=False) for each in ego4d.anticipation_clips("validation")[1:2]]
    assert [len(run) for run in action_runs(clips)] == [1] * 27


def test_clips_of_one_video_are_one_video_where_clips_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "ego4d"
    rows = [action(name, index, "v1") for name in ("c1", "c2") for index in range(24)]
    ego4d = write_ego4d(
        folder,
        videos=[video("v1", "train")],
        clips=[clip("c1", "v1"), clip("c2", "v1", 60.0, 160.0)],
        actions={"train": rows},
        files=["clips/c1.mp4", "clips/c2.mp4"],
        layout="clips",
    )
    root = tmp_path / "store"
    finish_store(root, [add_video(root, name, num_frames=200) for name in ("c1", "c2")], {})
    task = cut(ego4d, PreparedStore(root), split="train")
    assert task.train_windows.window_ids == ("c1_3", "c2_3")
    assert task.test_videos == ("v1", "v1")


class Pooled(nn.Module):
    """Twelve numbers of a clip, and how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.num_clips = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_clips += len(inputs)
        return nn.functional.adaptive_avg_pool2d(inputs.mean(dim=2), 2).flatten(1)


TRANSFORMS = {"video": VideoCrop(crop_size=16, random=False)}


@pytest.mark.usefixtures("one_thread")
def test_from_prepared_videos_to_numbers_table_and_json(ego4d: Ego4D, store: PreparedStore) -> None:
    assert TASKS["lta"] is LongTermAnticipation
    task, encoder = cut(ego4d, store), Pooled()
    judgement = evaluate_task(
        task, {"video": encoder}, transforms=TRANSFORMS, baseline_encoders={"video": Pooled()}, num_seeds=2
    )
    assert encoder.num_clips == len(task.train_clips) + len(task.test_clips)
    again = evaluate_task(task, {"video": Pooled()}, transforms=TRANSFORMS, num_seeds=2)
    for first, second in zip(judgement.answers, again.answers, strict=True):
        for column in ("verb", "noun"):
            assert np.array_equal(first.encoder.sampled[column], second.encoder.sampled[column])
            assert first.encoder.sampled[column].shape == (5, 3, 20, 5)
            assert not np.array_equal(*first.encoder.sampled[column][:2]) or column == "noun"
    result = judgement.result
    verb, noun, joint = result.columns
    assert (verb.num_train_windows, verb.num_test_windows, verb.num_test_videos) == (5, 3, 2)
    assert (verb.num_classes, noun.num_classes, joint.num_classes) == (2, 2, 4)
    assert noun.others[0].distance.value == 0.0  # there is one noun
    assert joint.others[0].distance.value == verb.others[0].distance.value
    assert len(verb.distances["sampled"].per_seed) == 2
    assert result.headline == verb.distances["sampled"].encoder.value
    assert result.options["num_seen"] == 4
    assert '"draw_spread"' in result.to_json()
    caption = str(task.table(result).caption)
    assert "drawn from the frequencies of classes" in caption
    assert "Majority: each of the 5 most frequent classes, repeated" in caption
    assert "a gain below 0 is for the encoder" in caption
    assert "bigram, sampled (told the labels of the seen actions)" in caption
    best_first = dataclasses.replace(task, decoding="most_probable").measure(judgement.answers)
    assert best_first[0].rows()[0].label == "verb ED@20, most probable"
    assert verb.rows()[0].label == "verb ED@20"


@pytest.mark.usefixtures("one_thread")
def test_the_published_protocol_has_a_window_fewer_one_draw_and_random_clips(
    ego4d: Ego4D, store: PreparedStore
) -> None:
    task = PublishedLongTermAnticipation.from_dataset(
        ego4d, store, split="validation", clips=ClipOptions(num_clips=3), probe=ProbeOptions(), head=QUICK
    )
    assert task.train_windows.window_ids == ("c1_3", "c1_4", "c6_3")
    assert task.test_windows.window_ids == ("c2_5", "c4_3")
    assert (task.head.optimizer, task.head.lrs, task.head.epochs, task.head.num_layers) == ("sgd", (0.01,), 50, 1)
    assert len(task.test_clips) == int(task.test_clips.action_of_item.max()) + 1
    starts = {task.test_clips.start_of(0, seed) for seed in range(9)}  # type: ignore[attr-defined]
    assert len(starts) == 9
    task = dataclasses.replace(task, head=dataclasses.replace(task.head, epochs=2))
    judgement = evaluate_task(task, {"video": Pooled()}, transforms=TRANSFORMS)
    assert judgement.answers[0].encoder.sampled["verb"].shape == (1, 2, 20, 5)
    assert judgement.answers[0].encoder.chosen == {}
    verb = judgement.result.columns[0]
    assert verb.metrics["verb_ED_19"] == pytest.approx(verb.distances["sampled"].encoder.value)  # one batch
    assert verb.draw_spread is None
    full = cut(ego4d, store)
    result = evaluate_task(full, {"video": Pooled()}, transforms=TRANSFORMS).result
    caption = str(full.table(dataclasses.replace(result, published=judgement.result)).caption)
    assert f"published: ED_19 in batches, as the official code has it: verb {verb.metrics['verb_ED_19']:.4f}" in caption


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("decoding", ["sampled", "most_probable"])
def test_windows_of_the_challenge_are_all_answered_those_without_clips_by_frequencies(
    ego4d: Ego4D, store: PreparedStore, tmp_path: Path, decoding: str
) -> None:
    task = cut(ego4d, store, split="test", decoding=decoding)
    assert not task.is_labelled
    assert task.test_windows.window_ids == ("c5_3", "c5_4", "c5_5")
    answers = answer_task(task, {"video": Pooled()}, Setting(TRANSFORMS))
    path = tmp_path / "lta.json"
    (note,) = task.write_submission(path, answers.encoder, levels=LEVELS)
    assert note == (
        "2 windows of 5 without clips have the most frequent verbs and nouns of training for an answer: c7_3, c7_4"
    )
    ids = ["c5_3", "c5_4", "c5_5", "c7_3", "c7_4"]
    read = read_anticipation_submission(path, ids, num_verbs=2, num_nouns=2)
    expected = answers.encoder.sampled["verb"][0] if decoding == "sampled" else answers.encoder.most_probable["verb"]
    assert np.array_equal(read.verbs[:3], expected.transpose(0, 2, 1))
    assert np.array_equal(read.verbs[3:], np.broadcast_to(np.array([0, 1, 1, 1, 1])[:, None], (2, 5, 20)))
    with pytest.raises(ValueError, match="coming actions are not known"):
        task.measure([answers])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("decoding", ["sampled", "most_probable"])
def test_the_file_of_the_validation_split_scores_as_the_table_says(
    ego4d: Ego4D, store: PreparedStore, tmp_path: Path, decoding: str
) -> None:
    rows = [action("c2", index, "v2") for index in range(27)]
    (ego4d.annotations_path / "fho_lta_val.json").write_text(json.dumps({"clips": rows}))
    task = cut(ego4d, store, decoding=decoding)
    judgement = evaluate_task(task, {"video": Pooled()}, transforms=TRANSFORMS)
    path = tmp_path / "lta.json"
    assert task.write_submission(path, judgement.answers[0].encoder, levels=LEVELS) == ()
    score = score_submission(path, ego4d.base_path)
    assert score.counts == {"windows": 4, "seen_actions": 4, "not_scored": 0}
    for column in judgement.result.columns:
        of = {other.name: other.distance.value for other in column.others}
        expected = column.per_draw[0] if decoding == "sampled" else column.distances[decoding].encoder.value
        measure = f"{column.column}_ED@20"
        assert score.metrics[measure] == pytest.approx(expected, abs=1e-12)
        assert score.majority[measure] == pytest.approx(of["each of the 5 most frequent classes, repeated"], abs=1e-12)
        repeated = score.baselines["last action and most frequent classes, each repeated"][measure]
        assert repeated == pytest.approx(of["the last action and the most frequent classes, each repeated"], abs=1e-12)
        if decoding == "most_probable":
            area = column.areas[decoding].encoder.value
            assert score.metrics[f"{column.column}_AUED"] == pytest.approx(area, abs=1e-12)


def test_what_does_not_fit_is_refused(ego4d: Ego4D, store: PreparedStore) -> None:
    with pytest.raises(ValueError, match=r"train: none of 2 annotated clips has a window of 9 seen and 20 coming"):
        cut(ego4d, store, num_seen=9)
    task = cut(ego4d, store)
    task.check()
    with pytest.raises(ValueError, match=r"training labels of 'verb' reach from 0 to 1, need \[0, 1\)"):
        dataclasses.replace(task, class_names={"verb": ["take"], "noun": ["cup"]}).check()
    with pytest.raises(ValueError, match="training windows need 7 coming labels of 'verb', got"):
        dataclasses.replace(task, num_coming=7).check()
    with pytest.raises(ValueError, match="see different numbers of actions"):
        dataclasses.replace(task, test_windows=cut(ego4d, store, num_seen=2).test_windows).check()
    with pytest.raises(ValueError, match="test windows see actions that are not among the 1 with clips"):
        dataclasses.replace(task, test_clips=GivenActions(1)).check()
    with pytest.raises(ValueError, match="no annotations of long-term anticipation"):
        LongTermAnticipation.from_dataset(
            NoActions(),  # type: ignore[arg-type]
            store,
            split="validation",
            clips=ClipOptions(),
            probe=ProbeOptions(),
        )


class NoActions:
    name = "folder"


class GivenActions:
    labels: dict[str, npt.NDArray[np.int64]] = {}  # noqa: RUF012 - of the protocol

    def __init__(self, num_actions: int) -> None:
        self.action_of_item = np.arange(num_actions)

    def __len__(self) -> int:
        return len(self.action_of_item)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, int]:
        raise AssertionError("features are given")


def markov_videos(
    num_videos: int, *, num_seen: int, seed: int
) -> tuple[npt.NDArray[np.float32], Windows, list[npt.NDArray[np.int64]]]:
    """Return actions that show their class, each mostly followed by the next of six, in videos of 40 actions."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random((num_videos, 40)) < 0.95, 1, rng.integers(6, size=(num_videos, 40)))
    verbs = steps.cumsum(axis=1) % 6
    runs = [np.stack([verb, verb // 2], axis=1) for verb in verbs]
    features = np.eye(8, dtype=np.float32)[verbs.ravel()] + 0.1 * rng.normal(size=(num_videos * 40, 8))
    places = [(number, first) for number in range(num_videos) for first in range(40 - 20 - num_seen + 1)]
    seen = np.array([[40 * number + first + step for step in range(num_seen)] for number, first in places])
    coming = np.array([verbs[number, first + num_seen : first + num_seen + 20] for number, first in places])
    last = np.array([verbs[number, first + num_seen - 1] for number, first in places])
    windows = Windows(
        tuple(f"c{number}_{first + num_seen - 1}" for number, first in places),
        seen,
        {"verb": coming, "noun": coming // 2},
        {"verb": last, "noun": last // 2},
        tuple(f"v{seed}_{number}" for number, _ in places),
    )
    return features[:, None].astype(np.float32), windows, runs


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("aggregator", ["transformer", "concatenation"])
def test_what_follows_from_what_was_seen_is_learnt(aggregator: Aggregator) -> None:
    num_seen = AGGREGATORS[aggregator]
    train_features, train, runs = markov_videos(20, num_seen=num_seen, seed=0)
    test_features, judged, _ = markov_videos(12, num_seen=num_seen, seed=1)
    task = LongTermAnticipation(
        GivenActions(len(train_features)),
        GivenActions(len(test_features)),
        train,
        judged,
        {"verb": list("abcdef"), "noun": list("xyz")},
        head=HeadOptions(aggregator=aggregator, num_layers=1, epochs=15, lrs=(0.01,)),
        train_runs=runs,
        train_videos=train.videos,
        test_videos=judged.videos,
    )
    task.check()
    answers = Answers(0, task.scores(train_features, test_features, seed=0, device="cpu"), None)
    for column in task.measure([answers]):
        others = {other.name: other for other in column.others}
        for name in (
            "each of the 5 most frequent classes, repeated",
            "the most frequent class, repeated",
            "the last action, repeated",
            "the last action and the most frequent classes, each repeated",
            *(["drawn from the frequencies of classes"] if column.column != "action" else []),  # those of pairs
        ):
            assert others[name].differences["sampled"].high < 0, (column.column, name)
        assert others["bigram, sampled"].sees_labels
        assert not others["drawn from the frequencies of classes"].sees_labels
    assert torch.is_grad_enabled()
