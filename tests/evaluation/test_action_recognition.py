"""Action recognition end to end on clips whose answer is known."""

import dataclasses
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from earmark.evaluation import (
    FEW_VIDEOS,
    TASKS,
    ActionRecognition,
    ColumnResult,
    Estimate,
    FeatureOptions,
    FineTunedActionRecognition,
    FineTuningOptions,
    ProbeOptions,
    Seen,
    Setting,
    Task,
    TaskResult,
    evaluate_task,
    extract_features,
    fine_tune,
    linear_probe,
    mean_interval,
)
from earmark.evaluation.base import joined_features
from earmark.evaluation.metrics import top_k_correct

Result = TaskResult[ColumnResult]
CLASS_NAMES = {"verb": ["cut", "open", "close", "pour", "shake", "never done"], "noun": ["knife", "drawer", "jug"]}


class ColouredClips:
    """Clips whose red says the verb and whose green says the noun."""

    def __init__(self, num_actions: int, seed: int, num_clips: int = 2) -> None:
        rng = np.random.default_rng(seed)
        self.labels = {"verb": rng.choice(5, size=num_actions, p=[0.4, 0.15, 0.15, 0.15, 0.15])}
        self.labels["noun"] = rng.integers(0, 3, size=num_actions)
        self.colours = np.stack([40 * self.labels["verb"], 40 * self.labels["noun"]], axis=1)
        self.action_of_item = np.repeat(np.arange(num_actions), num_clips)
        self._read_items: set[int] = set()

    def cache_key(self) -> dict[str, Any]:
        return {"class": "ColouredClips", "colours": self.colours.tolist(), "num_items": len(self)}

    @property
    def reads(self) -> int:
        """How many items were read."""
        return len(self._read_items)

    def __len__(self) -> int:
        return len(self.action_of_item)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        self._read_items.add(index)
        action = self.action_of_item[index]
        video = np.random.default_rng(index).integers(0, 30, size=(2, 4, 4, 3)).astype(np.uint8)
        video[..., :2] += self.colours[action].astype(np.uint8)
        return {"video": video, "index": index, "seed": seed}


class ToFloat(nn.Module):
    def cache_key(self) -> dict[str, Any]:
        return {"class": "ToFloat"}

    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        return video.movedim(-1, 1).float() / 255


class SoftHistogram(nn.Module):
    """Mean of bumps at several levels of the chosen colour channels."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("levels", torch.linspace(0, 1, 12))

    def cache_key(self) -> dict[str, Any]:
        return {"class": "SoftHistogram", "channels": self.channels}

    def forward(self, x: Tensor) -> Tensor:
        bumps = torch.exp(-(((x[:, self.channels, ..., None] - self.levels) / 0.06) ** 2))
        return bumps.mean(dim=(2, 3, 4)).flatten(1)


@pytest.fixture(scope="module")
def clips() -> tuple[ColouredClips, ColouredClips]:
    return ColouredClips(200, seed=0), ColouredClips(120, seed=1, num_clips=3)


def task_of(clips: tuple[ColouredClips, ColouredClips], probe: ProbeOptions, **options: Any) -> ActionRecognition:
    return ActionRecognition(
        **{"train_clips": clips[0], "test_clips": clips[1], "class_names": CLASS_NAMES, "probe": probe, **options}
    )


def evaluate(
    clips: tuple[ColouredClips, ColouredClips],
    probe: ProbeOptions = ProbeOptions(lr=0.1),  # noqa: B008 - frozen
    encoder: nn.Module | None = None,
    **options: Any,
) -> Result:
    of_task = {name: options.pop(name) for name in ("test_videos", "train_videos", "class_names") if name in options}
    if "baseline_encoder" in options:
        options["baseline_encoders"] = {"video": options.pop("baseline_encoder")}
    judged = {"video": encoder or SoftHistogram((0, 1))}
    return evaluate_task(task_of(clips, probe, **of_task), judged, transforms={"video": ToFloat()}, **options).result


@pytest.fixture(scope="module")
def result(clips: tuple[ColouredClips, ColouredClips]) -> Result:
    return evaluate(clips, baseline_encoder=SoftHistogram((2,)))  # blue says nothing


def test_encoder_that_sees_the_answer_is_told_from_one_that_does_not(result: Result) -> None:
    for column in result.columns:
        assert column.top1.encoder.value > 95
        assert column.top1.baseline.value < 60
        assert column.top1.gain.low > 0
        assert column.top1.gain.value == pytest.approx(column.top1.encoder.value - column.top1.baseline.value)
        assert column.top1.gain.low < column.top1.gain.value < column.top1.gain.high


def test_majority_chance_and_counts_are_those_of_the_labels(
    result: Result, clips: tuple[ColouredClips, ColouredClips]
) -> None:
    verb, noun, action = result.columns
    assert (verb.column, noun.column, action.column) == ("verb", "noun", "action")
    right = 100.0 * (clips[1].labels["verb"] == 0)  # class 0 is drawn most often
    low, high = mean_interval(right, bounds=(0, 100))
    assert verb.top1.majority == Estimate(pytest.approx(right.mean()), low, high)
    assert verb.top5.majority.value == 100.0
    assert (verb.top1.chance, verb.top5.chance) == (pytest.approx(100 / 6), pytest.approx(500 / 6))
    assert (noun.top1.chance, noun.top5.chance) == (pytest.approx(100 / 3), 100.0)
    assert (verb.num_classes, verb.num_train_actions, verb.num_test_actions) == (6, 200, 120)
    assert (result.options["train_clips_per_action"], result.options["test_clips_per_action"]) == (2, 3)


def test_class_accuracies_average_to_the_accuracy(result: Result) -> None:
    for column in result.columns:
        counts = [entry.num_actions for entry in column.classes]
        assert sum(counts) == 120
        mean = np.average([entry.accuracy for entry in column.classes], weights=counts)
        assert mean == pytest.approx(column.top1.encoder.value)
        baseline_mean = np.average([entry.baseline_accuracy for entry in column.classes], weights=counts)
        assert baseline_mean == pytest.approx(column.top1.baseline.value)
    assert [entry.name for entry in result.columns[0].classes] == CLASS_NAMES["verb"][:5]


def test_result_survives_json(result: Result) -> None:
    content = json.loads(result.to_json())
    assert content["columns"][0]["top1"]["gain"]["low"] == result.columns[0].top1.gain.low
    assert content["columns"][1]["classes"][2]["name"] == "jug"
    assert content["options"]["probe"]["milestones"] == [18, 24]
    assert content.pop("cautions") == []
    rows = [row for column in result.columns for row in column.rows()]
    assert content.pop("rows") == json.loads(json.dumps([dataclasses.asdict(row) for row in rows]))
    top1 = result.columns[0].top1.encoder
    unit = {"unit": "%", "decimals": 1, "higher_is_better": True}
    assert content.pop("headline") == {"measure": "verb top-1", **dataclasses.asdict(top1), **unit}
    assert content == json.loads(json.dumps(dataclasses.asdict(result)))


def test_same_seed_gives_the_same_json(clips: tuple[ColouredClips, ColouredClips]) -> None:
    first, again, other = (evaluate(clips, ProbeOptions(epochs=2), seed=seed).to_json() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_without_baseline_there_is_no_gain(clips: tuple[ColouredClips, ColouredClips]) -> None:
    result = evaluate(clips, ProbeOptions(epochs=1))
    assert result.columns[0].top1.baseline is None
    assert result.columns[0].top1.gain is None
    assert result.columns[0].classes[0].baseline_accuracy is None
    assert "random encoder" not in printed(result)


def test_unlabelled_actions_do_not_count(clips: tuple[ColouredClips, ColouredClips]) -> None:
    train, test = ColouredClips(200, seed=0), ColouredClips(120, seed=1)
    train.labels["noun"][:50] = -1
    test.labels["noun"][:100] = -1
    verb, noun, _ = evaluate((train, test)).columns
    assert (noun.num_train_actions, noun.num_test_actions) == (150, 20)
    assert (verb.num_train_actions, verb.num_test_actions) == (200, 120)
    assert sum(entry.num_actions for entry in noun.classes) == 20
    assert noun.top1.encoder.value > 90


def test_groups_widen_the_interval(clips: tuple[ColouredClips, ColouredClips]) -> None:
    # as if every video showed one verb: videos are right or wrong as a whole
    videos = [f"video {verb}" for verb in clips[1].labels["verb"]]
    options: dict[str, Any] = {"encoder": SoftHistogram((2,)), "probe": ProbeOptions(epochs=5, lr=0.1)}
    (plain,), (grouped,) = (
        (evaluate(clips, **options, test_videos=test_videos).columns[0],) for test_videos in (None, videos)
    )
    assert grouped.top1.encoder.value == plain.top1.encoder.value
    widths = [column.top1.encoder.high - column.top1.encoder.low for column in (plain, grouped)]
    assert widths[1] > 2 * widths[0]
    assert (plain.num_test_videos, grouped.num_test_videos) == (None, 5)
    right = 100.0 * (clips[1].labels["verb"] == 0)
    majority = Estimate(pytest.approx(right.mean()), *mean_interval(right, bounds=(0, 100), groups=videos))
    assert grouped.top1.majority == majority


def test_few_videos_and_videos_seen_before_are_counted_and_said(clips: tuple[ColouredClips, ColouredClips]) -> None:
    videos = [f"P01_{number % 8:02}" for number in range(120)]
    seen = {
        "pretraining saw": ["P01_01", "P01_07", "P01_08", "P09_01"],
        "the probe was trained on": {"P02_01"},
        "another run saw": None,
    }
    result = evaluate(
        clips, ProbeOptions(epochs=1), test_videos=videos, seen_videos=seen, facts={"judged": "best.pt, ema"}
    )
    assert result.seen == (
        Seen("pretraining saw", 2),
        Seen("the probe was trained on", 0),
        Seen("another run saw", None),
    )
    cautions = [
        f"The intervals rest on 8 test videos, and say little of other videos; {FEW_VIDEOS} or more are better.",
        "Pretraining saw 2 of 8 test videos: other videos may score lower.",
        "It is not known whether another run saw any of the test videos.",
    ]
    assert list(result.cautions) == cautions == json.loads(result.to_json())["cautions"]
    text = " ".join(printed(result).split())
    assert all(f"Caution: {caution}" in text for caution in cautions)
    assert "best.pt, ema" in text
    (line,) = [line for line in printed(result).splitlines() if "verb top-1" in line]
    assert line.rstrip(" │|┃").endswith(" 8")
    many = evaluate(clips, ProbeOptions(epochs=1), test_videos=[str(number) for number in range(120)])
    assert many.cautions == ()


def test_fresh_clips_give_every_epoch_its_own_clip() -> None:
    """Only the clip of the last epoch tells the classes apart; all others are alike."""
    labels = {"verb": np.array([0, 1] * 20)}
    train = np.zeros((40, 3, 2), np.float32)
    train[:, 2] = np.where(labels["verb"][:, None] == 0, [1.0, -1.0], [-1.0, 1.0])
    options = ProbeOptions(
        epochs=3,
        lr=0.1,
        milestones=(),
        batch_size=40,
        momentum=0.0,
        weight_decay=0.0,
        standardize=False,
        fresh_clips=True,
    )
    scores = linear_probe(train, labels, train[:, 2:], num_classes={"verb": 2}, options=options)["verb"]
    # one step on the last clip from weights that the first two epochs, whose features are 0, left as they were
    weight = np.random.default_rng([0, zlib.crc32(b"verb")]).normal(0.0, 0.01, size=(2, 2))
    features, truth = train[:, 2].astype(np.float64), np.eye(2)[labels["verb"]]
    logits = features @ weight.T
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weight -= 0.1 * (shares - truth).T @ features / 40
    expected = features @ weight.T - 0.1 * (shares - truth).mean(axis=0)
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    with pytest.raises(ValueError, match="one clip for each of 4 epochs, got 3"):
        linear_probe(train, labels, train, num_classes={"verb": 2}, options=dataclasses.replace(options, epochs=4))


def test_cached_evaluation_reads_no_clip_and_agrees(tmp_path: Path) -> None:
    clips = ColouredClips(60, seed=0), ColouredClips(30, seed=1)
    options: dict[str, Any] = {"features": FeatureOptions(cache_dir=tmp_path), "probe": ProbeOptions(epochs=3)}
    options["baseline_encoder"] = SoftHistogram((2,))
    first = evaluate(clips, **options)
    assert (clips[0].reads, clips[1].reads) == (120, 60)
    assert len(list(tmp_path.glob("*.npy"))) == 4
    fresh = ColouredClips(60, seed=0), ColouredClips(30, seed=1)
    again = evaluate(fresh, **options)
    assert (fresh[0].reads, fresh[1].reads) == (0, 0)
    assert again == first


def test_other_clips_do_not_reuse_stale_features(tmp_path: Path) -> None:
    options: dict[str, Any] = {"features": FeatureOptions(cache_dir=tmp_path), "probe": ProbeOptions(epochs=1)}
    evaluate((ColouredClips(60, seed=0), ColouredClips(30, seed=1)), **options)
    other = ColouredClips(60, seed=0), ColouredClips(30, seed=2)
    evaluate(other, **options)
    assert (other[0].reads, other[1].reads) == (0, 60)


def printed(result: Result) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(task_of((ColouredClips(2, 0), ColouredClips(2, 0)), ProbeOptions()).table(result))
    return console.file.getvalue()


def test_table_shows_every_number_with_its_interval(result: Result) -> None:
    text = printed(result)
    for column in result.columns:
        for score in (column.top1, column.top5):
            (line,) = [line for line in text.splitlines() if f"{column.column} top-{score.k}" in line]
            for cell in (str(score.encoder), str(score.baseline), score.gain.signed(), str(score.majority)):
                assert cell in line
    assert "\\" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": {}}, "no label column"),
        ({"class_names": {"verb": ["a"] * 4}}, "labels of 'verb' reach from 0 to 4"),
        ({"class_names": {"tool": ["a", "b"]}}, "no label column 'tool'"),
        ({"test_videos": ["1", "2"]}, "one video for each of 120 test actions, got 2"),
        ({"train_videos": ["1"]}, "one video for each of 200 training actions, got 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_clip_is_read(options: dict[str, Any], message: str) -> None:
    clips = ColouredClips(200, seed=0), ColouredClips(120, seed=1)
    with pytest.raises(ValueError, match=message):
        evaluate(clips, **options)
    assert (clips[0].reads, clips[1].reads) == (0, 0)


def test_videos_that_the_head_was_trained_on_are_counted_by_themselves(
    clips: tuple[ColouredClips, ColouredClips],
) -> None:
    videos = {"train_videos": [f"v{number % 5}" for number in range(200)]}
    videos["test_videos"] = [f"v{3 + number % 40}" for number in range(120)]
    result = evaluate(clips, ProbeOptions(epochs=1), **videos, seen_videos={"pretraining saw": ["v42", "v43"]})
    assert result.seen == (Seen("the probe was trained on", 2), Seen("pretraining saw", 1))


class SoundingClips(ColouredClips):
    """Clips whose red says the verb and whose loudness says the noun."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        sample = super().__getitem__(key)
        sample["video"][..., 1] = 0
        loudness = int(40 * self.labels["noun"][self.action_of_item[key[0]]])
        return sample | {"audio": np.full(8, loudness, np.int16)}


class Loudness(nn.Module):
    def forward(self, audio: Tensor) -> Tensor:
        return audio.float() / 40


def test_features_of_picture_and_sound_stand_one_after_another() -> None:
    clips = SoundingClips(120, seed=0), SoundingClips(60, seed=1)
    encoders: dict[Any, nn.Module] = {"video": SoftHistogram((0, 1)), "audio": nn.Linear(8, 3)}
    transforms: dict[Any, nn.Module] = {"video": ToFloat(), "audio": Loudness()}

    def judged(*modalities: Any) -> Any:
        task = task_of(clips, ProbeOptions(lr=0.1), modalities=modalities)
        return evaluate_task(task, encoders, transforms=transforms)

    task = task_of(clips, ProbeOptions(), modalities=("video", "audio"))
    both = joined_features(encoders, clips[0], task=task, setting=Setting(transforms))
    alone = [
        extract_features(encoders[modality], clips[0], transform=transforms[modality], modality=modality)
        for modality in ("video", "audio")
    ]
    np.testing.assert_array_equal(both, np.concatenate(alone, axis=2))
    of_pictures, of_sound, of_both = (
        {column.column: column.top1.encoder.value for column in judged(*modalities).result.columns}
        for modalities in (("video",), ("audio",), ("video", "audio"))
    )
    assert of_pictures["verb"] > 95 > 70 > of_sound["verb"]
    assert of_sound["noun"] > 95 > 70 > of_pictures["noun"]
    assert min(of_both.values()) > 95
    with pytest.raises(ValueError, match="task action_recognition: no encoder for audio"):
        evaluate_task(task, {"video": encoders["video"]}, transforms=transforms)
    with pytest.raises(ValueError, match="task action_recognition: no transform for video"):
        evaluate_task(task, encoders, transforms={"audio": transforms["audio"]})
    attentive = task_of(clips, ProbeOptions(kind="attentive"), modalities=("video", "audio"))
    with pytest.raises(ValueError, match="feature maps of video and audio cannot be joined"):
        evaluate_task(attentive, encoders, transforms=transforms)


def test_several_seeds_give_their_mean_its_interval_and_the_spread(clips: tuple[ColouredClips, ColouredClips]) -> None:
    videos = [f"v{number % 30}" for number in range(120)]
    options: dict[str, Any] = {"probe": ProbeOptions(epochs=2), "test_videos": videos, "encoder": SoftHistogram((0,))}
    options["baseline_encoder"] = SoftHistogram((2,))
    single = [evaluate(clips, **options, seed=seed) for seed in (7, 8, 9)]
    task = task_of(clips, options["probe"], test_videos=videos)
    judgement = evaluate_task(
        task,
        {"video": options["encoder"]},
        transforms={"video": ToFloat()},
        baseline_encoders={"video": options["baseline_encoder"]},
        seed=7,
        num_seeds=3,
    )
    assert [answers.seed for answers in judgement.answers] == [7, 8, 9]
    for number, column in enumerate(judgement.result.columns[:2]):
        for score, name in ((column.top1, "top1"), (column.top5, "top5")):
            alone = [getattr(result.columns[number], name) for result in single]
            assert score.per_seed == tuple(of.encoder.value for of in alone)
            assert score.baseline_per_seed == tuple(of.baseline.value for of in alone)
            assert score.encoder.value == pytest.approx(np.mean(score.per_seed))
            assert score.gain.value == pytest.approx(np.mean([of.gain.value for of in alone]))
            assert score.spread == pytest.approx(np.std(score.per_seed, ddof=1))
            truth = clips[1].labels[column.column]
            right = [
                100.0 * top_k_correct(answers.encoder.scores[column.column], truth, score.k)
                for answers in judgement.answers
            ]
            low, high = mean_interval(np.mean(right, axis=0), bounds=(0, 100), groups=videos)
            assert (score.encoder.low, score.encoder.high) == (pytest.approx(low), pytest.approx(high))
    assert len(set(judgement.result.columns[0].top1.per_seed)) > 1  # else nothing was tested
    text = printed(judgement.result)
    assert f"± {judgement.result.columns[0].top1.spread:.2f}" in text
    assert json.loads(judgement.result.to_json())["columns"][0]["top1"]["per_seed"] == list(
        judgement.result.columns[0].top1.per_seed
    )
    assert "over seeds" not in printed(single[0])
    with pytest.raises(ValueError, match="at least one seed, got 0"):
        evaluate(clips, num_seeds=0)


def test_a_fine_tuned_encoder_answers_as_fine_tune_does_and_stays_as_it_was(
    clips: tuple[ColouredClips, ColouredClips],
) -> None:
    encoder, options = nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.ReLU()), FineTuningOptions(epochs=2, lr=0.1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    task = FineTunedActionRecognition(*clips, CLASS_NAMES, fine_tuning=options)
    transforms: dict[Any, nn.Module] = {"video": ToFloat()}
    judgement = evaluate_task(task, {"video": encoder}, transforms=transforms, seed=5, num_seeds=2)
    for number, answers in enumerate(judgement.answers):
        alone = fine_tune(
            encoder,
            *clips,
            num_classes={name: len(of) for name, of in CLASS_NAMES.items()},
            train_videos=None,
            train_transform=ToFloat(),
            test_transform=ToFloat(),
            options=options,
            seed=5 + number,
        )
        for name, scores in alone.scores.items():
            np.testing.assert_array_equal(answers.encoder.scores[name], scores)
    assert judgement.result.options["fine_tuning"]["epochs"] == 2
    assert "probe" not in judgement.result.options
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    with pytest.raises(ValueError, match="one encoder is fine-tuned at a time, not those of video and audio"):
        dataclasses.replace(task, modalities=("video", "audio")).check()
    halved = dataclasses.replace(task, train_transforms={"video": Halved()})  # training has a transform of its own
    other = evaluate_task(halved, {"video": encoder}, transforms=transforms, seed=5)
    assert not np.array_equal(other.answers[0].encoder.scores["verb"], judgement.answers[0].encoder.scores["verb"])


class Halved(ToFloat):
    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        return super().forward(video, seed, video_size) / 2


def test_every_task_is_found_by_its_name_and_is_whole() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert issubclass(task, Task)
        assert not task.__abstractmethods__
        assert task.title
        assert task.sample


def test_evaluation_imports_neither_training_nor_hydra() -> None:
    code = "import sys, earmark.evaluation as e; [getattr(e, name) for name in e.__all__]; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "earmark.evaluation.base" in modules
    assert not [name for name in modules if name.startswith("earmark.training")]
    assert not {"hydra", "omegaconf", "lightning_fabric", "lightning"} & set(modules)
