"""Fine-tuning against a loop written out, and what it must not change, read or depend on."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.clips import ActionClips, PreparedStore, VideoCrop
from earmark.clips.sampling import epoch_order, sample_seed, uniform_draw
from earmark.datasets.records import ActionRecord
from earmark.encoders import R2Plus1D
from earmark.evaluation.fine_tuning import FineTuningOptions, _optimizer, _to_train_mode, _visits, fine_tune
from earmark.evaluation.probe import initial_weights
from earmark.evaluation.probe_grid import held_out_rows
from tests.helpers.clusters import CLASSES, clusters
from tests.helpers.made_store import add_video, finish_store

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = FineTuningOptions(epochs=3, lr=0.1, batch_size=8)


class DrawnClips:
    """Clips whose pixels are the features of `clusters`, and a note of each item that is read."""

    def __init__(self, num_actions: int, *, num_clips: int = 2, seed: int = 0, spread: float = 1.0) -> None:
        features, self.labels, self.videos = clusters(num_actions, num_clips, seed, spread=spread)
        # the clips of an action need not lie beside each other
        self.action_of_item = np.tile(np.arange(num_actions), num_clips)
        self.pixels = features.transpose(1, 0, 2).reshape(-1, 7)
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.action_of_item)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        self.read.append(index)
        pixels = np.clip(20 * self.pixels[index] + 128, 0, 255).astype(np.uint8)
        return {"video": np.tile(pixels, 3).reshape(1, 1, 7, 3), "index": index, "seed": seed}


class AsFeatures(nn.Module):
    """The pixels as float64 features, with a little noise of each visit's own, or none."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        features = (video.flatten(1)[:, :7].double() - 128) / 20
        drawn = [np.random.default_rng(one).normal(size=7) for one in seed.tolist()]
        return features + self.noise * torch.from_numpy(np.stack(drawn))


def small_encoder(*, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 5)]
    return nn.Sequential(*layers).double()


def tuned(
    train: Any, test: Any, encoder: nn.Module | None = None, options: FineTuningOptions = OPTIONS, **changes: Any
) -> Any:
    arguments: dict[str, Any] = {
        "num_classes": CLASSES,
        "train_videos": train.videos,
        "train_transform": AsFeatures(0.5),
        "test_transform": AsFeatures(),
        "options": options,
        "seed": 3,
    }
    return fine_tune(encoder or small_encoder(), train, test, **(arguments | changes))


@pytest.mark.parametrize("schedule", ["cosine", "steps"])
@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_training_equals_a_loop_in_float64(schedule: Any, batch_norm: Any) -> None:
    train, test = DrawnClips(20), DrawnClips(12, seed=1, num_clips=3)
    train.labels["noun"][:9] = -1
    options = FineTuningOptions(
        epochs=3,
        lr=0.2,
        backbone_lr_factor=0.25,
        weight_decay=0.03,
        momentum=0.8,
        schedule=schedule,
        milestones=(1, 2),
        gamma=0.3,
        batch_size=8,
        batch_norm=batch_norm,
    )
    scores = tuned(train, test, options=options).scores

    encoder = small_encoder()
    heads = {}
    for column, classes in CLASSES.items():
        weight = torch.from_numpy(initial_weights(5, classes, seed=3, column=column))
        heads[column] = weight.requires_grad_(), torch.zeros(classes, dtype=torch.float64).requires_grad_()
    rates = [(value, 0.25) for value in encoder.parameters()] + [(v, 1.0) for head in heads.values() for v in head]
    velocities = [torch.zeros_like(value) for value, _ in rates]
    noisy, step = AsFeatures(0.5), 0
    encoder.train()
    encoder[1].train(batch_norm == "train")
    for epoch in range(3):
        order = epoch_order(20, seed=3, epoch=epoch).tolist()
        for actions in (order[:8], order[8:16], order[16:]):
            seeds = [sample_seed(3, epoch, action) for action in actions]
            items = [
                action + 20 * int(2 * uniform_draw(seed, stream=0x46494E))
                for action, seed in zip(actions, seeds, strict=True)
            ]
            video = torch.from_numpy(np.stack([train[item, 0]["video"] for item in items]))
            features = encoder(noisy(video, torch.tensor(seeds), torch.empty(0)))
            loss = sum(
                functional.cross_entropy(
                    functional.linear(features, *head), torch.from_numpy(train.labels[column][actions]), ignore_index=-1
                )
                for column, head in heads.items()
            )
            for value, _ in rates:
                value.grad = None
            loss.backward()
            factor = 0.5 * (1 + np.cos(np.pi * step / 9)) if schedule == "cosine" else 0.3**epoch
            step += 1
            with torch.no_grad():
                for (value, rate), velocity in zip(rates, velocities, strict=True):
                    gradient = value.grad + (0.03 * value if value.ndim > 1 else 0)
                    velocity.mul_(0.8).add_(gradient)
                    value.sub_(0.2 * rate * factor * velocity)
    encoder.eval()
    for column, head in heads.items():
        of_clips = []
        for clip in range(3):
            video = torch.from_numpy(np.stack([test[action + 12 * clip, 0]["video"] for action in range(12)]))
            features = encoder(AsFeatures()(video, torch.zeros(12, dtype=torch.int64), torch.empty(0)))
            of_clips.append(functional.linear(features, *head).softmax(dim=1).detach().numpy())
        np.testing.assert_allclose(scores[column], np.log(np.mean(of_clips, axis=0)), atol=1e-9)


def test_the_encoder_and_the_global_random_state_stay_as_they_were() -> None:
    encoder = small_encoder(dropout=0.2)
    encoder[0].requires_grad_(False)
    encoder[2].train(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    tuned(DrawnClips(20), DrawnClips(5), encoder)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert [module.training for module in encoder] == [True, True, False, True, True]
    assert not encoder[0].weight.requires_grad
    assert encoder[4].weight.requires_grad
    assert all(value.grad is None for value in encoder.parameters())


def test_a_frozen_encoder_is_trained_all_the_same() -> None:
    train, test = DrawnClips(20), DrawnClips(5, seed=1)
    frozen = small_encoder().requires_grad_(False)
    np.testing.assert_array_equal(tuned(train, test, frozen).scores["verb"], tuned(train, test).scores["verb"])
    no_backbone = dataclasses.replace(OPTIONS, backbone_lr_factor=0.0)
    assert (
        np.abs(tuned(train, test, options=no_backbone).scores["verb"] - tuned(train, test).scores["verb"]).max() > 1e-3
    )


def test_the_same_seed_gives_the_same_bits_whatever_the_global_random_state() -> None:
    train, test = DrawnClips(20), DrawnClips(5, seed=1)
    encoder = small_encoder(dropout=0.3)
    runs = []
    for global_seed, seed in ((0, 3), (1, 3), (1, 4)):
        torch.manual_seed(global_seed)
        runs.append(tuned(train, test, encoder, seed=seed).scores["verb"])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[1] - runs[2]).max() > 1e-3


def test_it_learns_what_a_classifier_on_the_frozen_encoder_cannot() -> None:
    """An encoder that looks at no dimension that tells nouns: its features say nothing of them."""
    train, test = DrawnClips(200, spread=0.5), DrawnClips(100, seed=1, spread=0.5)
    encoder = nn.Linear(7, 7).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0, 0])))
    answers = {}
    for factor in (0.0, 1.0):
        options = FineTuningOptions(epochs=15, lr=0.1, batch_size=16, backbone_lr_factor=factor, optimizer="sgd")
        answers[factor] = tuned(train, test, encoder, options).scores["noun"].argmax(axis=1)
    assert (answers[0.0] == test.labels["noun"]).mean() < 0.5
    assert (answers[1.0] == test.labels["noun"]).mean() > 0.85


def test_an_epoch_visits_each_action_once_through_any_of_its_clips() -> None:
    clips = DrawnClips(30, num_clips=3)
    actions = np.arange(5, 30)
    epochs = [_visits(clips, actions, seed=0, epoch=epoch) for epoch in range(4)]
    for visits in epochs:
        assert sorted(clips.action_of_item[[item for item, _ in visits]].tolist()) == actions.tolist()
    seen = {item for visits in epochs for item, _ in visits if clips.action_of_item[item] == 7}
    assert len(seen) > 1
    assert len({seed for visits in epochs for _, seed in visits}) == 100
    assert epochs[0] != epochs[1]


def test_the_mean_is_over_the_probabilities_of_the_clips() -> None:
    train, test = DrawnClips(20), DrawnClips(6, seed=1, num_clips=3)
    together = tuned(train, test).scores["noun"]
    alone = []
    for clip in range(3):
        one = DrawnClips(6, seed=1, num_clips=1)
        one.pixels = test.pixels[6 * clip : 6 * clip + 6]
        alone.append(np.exp(tuned(train, one).scores["noun"]))
    np.testing.assert_allclose(together, np.log(np.mean(alone, axis=0)), atol=1e-9)
    np.testing.assert_allclose(np.exp(together).sum(axis=1), 1, atol=1e-9)


def test_the_pair_is_chosen_on_held_out_videos_and_test_clips_are_read_last() -> None:
    log: list[str] = []

    class Noted(DrawnClips):
        name = ""

        def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
            log.append(self.name)
            return super().__getitem__(key)

    train, test = Noted(60, spread=0.5), Noted(10, seed=1)
    train.name, test.name = "train", "test"
    options = dataclasses.replace(OPTIONS, epochs=12, lrs=(1e-7, 0.2, 1e300), weight_decays=(0.0, 1e-3), held_out=0.3)
    answers = tuned(train, test, options=options)
    assert log.index("test") == len(log) - 20
    held_out = held_out_rows(train.videos, share=0.3, seed=3)
    assert held_out.sum() == 20
    for column in CLASSES:
        chosen = answers.chosen[column]
        assert chosen["lr"] == 0.2
        assert chosen["lr_on_edge"] == 0
        assert chosen["held_out_actions"] == 20
        assert chosen["held_out_accuracy"] > 60
    expected = tuned(
        train, test, options=dataclasses.replace(OPTIONS, epochs=12, lr=0.2, weight_decay=chosen["weight_decay"])
    )
    assert expected.chosen == {}
    for column in CLASSES:
        np.testing.assert_array_equal(answers.scores[column], expected.scores[column])


def test_candidates_are_trained_without_the_held_out_videos_and_judged_on_all_their_clips() -> None:
    """Labels of held-out actions that contradict all others are found wrong by each candidate."""
    train = DrawnClips(60, spread=0.3)
    held_out = held_out_rows(train.videos, share=0.3, seed=3)
    train.labels["verb"] = np.where(held_out, (train.labels["verb"] + 1) % 3, train.labels["verb"])
    options = dataclasses.replace(OPTIONS, epochs=20, lrs=(0.1, 0.2), held_out=0.3)
    chosen = tuned(train, DrawnClips(5), options=options).chosen
    assert chosen["verb"]["held_out_accuracy"] < 10
    assert chosen["noun"]["held_out_accuracy"] > 90
    assert chosen["verb"]["lr"] == chosen["noun"]["lr"]


def test_sound_is_what_an_encoder_of_sound_is_shown() -> None:
    class Sounds(DrawnClips):
        def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
            sample = super().__getitem__(key)
            return {"audio": sample["video"].reshape(-1)[:7].astype(np.int16), "index": key[0], "seed": key[1]}

    class Wave(nn.Module):
        def forward(self, audio: Tensor) -> Tensor:
            return (audio.double() - 128) / 20

    pictures = tuned(DrawnClips(20), DrawnClips(5, seed=1), train_transform=AsFeatures()).scores
    sounds = tuned(
        Sounds(20), Sounds(5, seed=1), train_transform=Wave(), test_transform=Wave(), modality="audio"
    ).scores
    np.testing.assert_array_equal(sounds["verb"], pictures["verb"])
    with pytest.raises(ValueError, match="the clips have no audio; there are index, seed, video, video_size"):
        tuned(DrawnClips(20), DrawnClips(5), modality="audio")


def test_batch_norms_keep_what_they_came_with_only_if_asked() -> None:
    encoder = small_encoder()
    _to_train_mode(encoder, "eval")
    assert [module.training for module in encoder] == [True, False, True, True, True]
    _to_train_mode(encoder, "train")
    assert all(module.training for module in encoder)


@pytest.mark.parametrize(("optimizer", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_rates_and_decays_of_the_groups(optimizer: Any, kind: type) -> None:
    model = nn.Module()
    model.encoder, model.heads = small_encoder(), nn.ModuleDict({"verb": nn.Linear(5, 3)})
    options = FineTuningOptions(optimizer=optimizer, backbone_lr_factor=0.25)
    made = _optimizer(model, options, lr=0.4, weight_decay=0.02)  # type: ignore[arg-type]
    assert isinstance(made, kind)
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in made.param_groups]
    assert found == [(0.1, 0.02, 2), (0.1, 0.0, 4), (0.4, 0.02, 1), (0.4, 0.0, 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, got 'adam'"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"batch_norm": "sync"}, "batch_norm must be one of"),
        ({"precision": "16"}, "precision must be one of"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": 0.0}, "lr: every value must be above 0"),
        ({"lrs": (0.1, 0.1)}, "lrs: a value is there twice"),
        ({"weight_decay": -1.0}, "weight_decay: every value must be at least 0"),
        ({"backbone_lr_factor": float("inf")}, "backbone_lr_factor"),
        ({"held_out": 1.5}, "held_out must be a share"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuningOptions(**options)


def test_what_does_not_fit_is_refused() -> None:
    train, test = DrawnClips(20), DrawnClips(5)
    grid = dataclasses.replace(OPTIONS, lrs=(0.1, 0.2))
    with pytest.raises(ValueError, match="no training labels for column 'colour'"):
        tuned(train, test, num_classes={"colour": 3})
    with pytest.raises(ValueError, match="not known which video"):
        tuned(train, test, options=grid, train_videos=None)
    with pytest.raises(ValueError, match="one video for each of 20 training actions, got 3"):
        tuned(train, test, options=grid, train_videos=train.videos[:3])
    with pytest.raises(ValueError, match=r"features \(B, D\), got shape \(1, 7, 1\)"):
        tuned(train, test, nn.Unflatten(1, (7, 1)))
    with pytest.raises(ValueError, match="bfloat16 weight gradient of 3-D convolutions is wrong"):
        tuned(train, test, options=dataclasses.replace(OPTIONS, precision="bf16-mixed"))
    with pytest.raises(ValueError, match=r"training diverged in epoch \d with a learning rate of 1e\+300"):
        tuned(train, test, options=dataclasses.replace(OPTIONS, lr=1e300))
    uneven = DrawnClips(5)
    uneven.action_of_item[0] = 1
    with pytest.raises(ValueError, match="every test action needs the same number of clips"):
        tuned(train, uneven)


def of_a_store(root: Path) -> tuple[ActionClips, ActionClips, list[str]]:
    """Actions of early, dark frames and of late, bright ones, in three videos."""
    names = ("a", "b", "c")
    finish_store(root, [add_video(root, name, num_frames=96) for name in names], {name: [2.0] for name in names})
    actions = [
        ActionRecord(f"{name}{k}", name, 4.0 * late + 0.2 * k, 4.0 * late + 0.2 * k + 1.0, "P01", {"verb": late})
        for name in names
        for late in (0, 1)
        for k in range(2)
    ]
    store = PreparedStore(root)
    train = ActionClips(store, actions[:8], random=True)
    return train, ActionClips(store, actions[8:], num_clips=2), [action.video_id for action in actions[:8]]


def test_an_encoder_of_clips_is_fine_tuned_on_a_store_by_any_number_of_workers(tmp_path: Path) -> None:
    train, test, videos = of_a_store(tmp_path)
    torch.manual_seed(0)
    encoder = R2Plus1D(10, width=4)
    runs = [
        fine_tune(
            encoder,
            train,
            test,
            num_classes={"verb": 2},
            train_videos=videos,
            train_transform=VideoCrop(crop_size=28, min_short_side=32, max_short_side=36),
            test_transform=VideoCrop(crop_size=28, random=False),
            options=FineTuningOptions(epochs=20, lr=0.1, backbone_lr_factor=1.0, batch_size=4, num_workers=workers),
        ).scores["verb"]
        for workers in (0, 1)
    ]
    assert runs[0].shape == (4, 2)
    assert runs[0].dtype == np.float32
    assert runs[0].argmax(axis=1).tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fine_tuning_on_the_gpu_learns_what_it_learns_on_the_cpu(tmp_path: Path, precision: Any) -> None:
    train, test, videos = of_a_store(tmp_path)
    torch.manual_seed(0)
    scores = fine_tune(
        R2Plus1D(10, width=4),
        train,
        test,
        num_classes={"verb": 2},
        train_videos=videos,
        train_transform=VideoCrop(crop_size=28, min_short_side=32, max_short_side=36),
        test_transform=VideoCrop(crop_size=28, random=False),
        options=FineTuningOptions(epochs=20, lr=0.1, backbone_lr_factor=1.0, batch_size=4, precision=precision),
        device="cuda",
    ).scores["verb"]
    assert scores.dtype == np.float32
    assert scores.argmax(axis=1).tolist() == [0, 0, 1, 1]
