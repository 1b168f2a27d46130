"""The head of long-term anticipation: what it looks at, how it is trained, and what is chosen on held-out videos."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch

from earmark.evaluation.long_term_anticipation_head import (
    AGGREGATORS,
    Aggregator,
    AnticipationHead,
    HeadOptions,
    _train,
    _training,
    fit_anticipation_head,
)
from earmark.evaluation.long_term_anticipation_windows import Windows

CLASSES = {"verb": 3, "noun": 4}
QUICK = HeadOptions(aggregator="mean", epochs=3, batch_size=8, lrs=(0.01,))


def head_of(aggregator: Aggregator, **options: int) -> AnticipationHead:
    torch.manual_seed(0)
    made = AnticipationHead(
        8, num_seen=3, num_coming=5, num_classes=CLASSES, options=HeadOptions(aggregator=aggregator, **options)
    )
    with torch.no_grad():  # larger than at the start, so that what is not looked at is told from what is
        for weight in made.heads.parameters():
            weight.normal_()
    return made.eval()


def windows_of(
    num_windows: int, *, num_actions: int = 40, num_videos: int = 4, num_coming: int = 5, seed: int = 0
) -> tuple[npt.NDArray[np.float32], Windows]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_actions, 2, 8)).astype(np.float32)
    coming = {column: rng.integers(classes, size=(num_windows, num_coming)) for column, classes in CLASSES.items()}
    return features, Windows(
        tuple(f"c_{n}" for n in range(num_windows)),
        rng.integers(num_actions, size=(num_windows, 3)),
        coming,
        {},
        tuple(f"v{n % num_videos}" for n in range(num_windows)),
    )


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_every_aggregator_gives_each_coming_action_its_own_layer(aggregator: Aggregator) -> None:
    head = head_of(aggregator, num_layers=2)
    seen = torch.randn(4, 3, 8)
    logits = head(seen)
    assert {column: tuple(of.shape) for column, of in logits.items()} == {"verb": (4, 5, 3), "noun": (4, 5, 4)}
    # a layer for one of the coming actions changes that one alone
    verb = head.heads["verb"]
    assert isinstance(verb, torch.nn.Linear)
    with torch.no_grad():
        verb.bias.view(5, 3)[2] += 1.0
    moved = (head(seen)["verb"] - logits["verb"]).abs().amax(dim=(0, 2))
    assert torch.allclose(moved, torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_only_the_mean_ignores_the_order_of_what_was_seen(aggregator: Aggregator) -> None:
    head, seen = head_of(aggregator, num_layers=2), torch.randn(4, 3, 8)
    for order in ([1, 0, 2], [2, 1, 0]):  # of the first ones alone, too, which a last token alone does not tell apart
        same = torch.allclose(head(seen)["noun"], head(seen[:, order])["noun"], atol=1e-4)
        assert same == (aggregator == "mean")


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_every_weight_is_trained_and_every_action_looked_at(aggregator: Aggregator) -> None:
    head = head_of(aggregator, num_layers=2)
    seen = torch.randn(4, 3, 8, requires_grad=True)
    sum(of.square().sum() for of in head(seen).values()).backward()  # type: ignore[union-attr]
    assert all(bool(weight.grad is not None and weight.grad.abs().sum() > 0) for weight in head.parameters())
    assert seen.grad is not None
    assert (seen.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_the_loss_has_the_gradient_of_its_differences() -> None:
    head = head_of("transformer", num_layers=1).double()
    labels = torch.tensor([[0, 1, 2, 2, 1]])

    def loss(seen: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(head(seen)["verb"].flatten(0, 1), labels.flatten())

    assert torch.autograd.gradcheck(loss, torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(aggregator: Aggregator) -> None:
    features, windows = windows_of(24)
    options = dataclasses.replace(QUICK, aggregator=aggregator, num_layers=1)

    def answered(seed: int) -> npt.NDArray[np.float64]:
        torch.rand(17)
        before = torch.get_rng_state()
        fitted = fit_anticipation_head(features, windows, num_classes=CLASSES, options=options, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return np.concatenate([found["noun"] for found in fitted.distributions(features, windows.seen)])

    first = answered(0)
    assert np.array_equal(first, answered(0))
    assert not np.allclose(first, answered(1), atol=1e-4)
    np.testing.assert_allclose(first.sum(axis=-1), 1.0)


def test_a_distribution_is_the_mean_over_clips_of_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.evaluation.long_term_anticipation_head._WINDOWS_AT_ONCE", 7)
    features, windows = windows_of(24)
    fitted = fit_anticipation_head(features, windows, num_classes=CLASSES, options=QUICK)
    found = np.concatenate([some["verb"] for some in fitted.distributions(features, windows.seen)])
    with torch.no_grad():
        clips = fitted.standardization(torch.from_numpy(features))
        by_hand = [fitted.head(clips[windows.seen, clip])["verb"].double().softmax(dim=-1) for clip in (0, 1)]
    np.testing.assert_allclose(found, ((by_hand[0] + by_hand[1]) / 2).numpy(), atol=1e-6)


def learnable(num_windows: int) -> tuple[npt.NDArray[np.float32], Windows]:
    """Actions that show their class, of which the last decides what comes."""
    features = np.eye(8, dtype=np.float32)[:, None]
    seen = np.random.default_rng(0).integers(3, size=(num_windows, 3))
    verb = (seen[:, 2:] + np.arange(5)) % 3
    coming = {"verb": verb, "noun": verb + 1}
    return features, Windows(
        tuple(f"c_{n}" for n in range(num_windows)), seen, coming, {}, tuple(f"v{n % 10}" for n in range(num_windows))
    )


def test_the_rate_is_chosen_that_does_better_on_videos_that_were_not_trained_on() -> None:
    features, windows = learnable(80)
    options = HeadOptions(aggregator="concatenation", epochs=6, lrs=(1e-7, 0.05), weight_decays=(0.0, 0.1))
    fitted = fit_anticipation_head(features, windows, num_classes=CLASSES, options=options)
    chosen = fitted.chosen
    assert chosen["lr"] == 0.05
    assert chosen["lr_on_edge"] == 1.0
    assert chosen["held_out_windows"] == 16  # two of ten videos
    assert chosen["held_out_distance"] < 0.2
    (found,) = fitted.distributions(features, windows.seen)
    assert np.array_equal(found["verb"].argmax(axis=-1), windows.coming["verb"])


def test_all_windows_are_trained_on_along_the_same_schedule_and_up_to_the_chosen_epoch() -> None:
    features, windows = windows_of(60, num_videos=6)
    options = HeadOptions(aggregator="concatenation", epochs=12, lrs=(0.05,))
    fitted = fit_anticipation_head(features, windows, num_classes=CLASSES, options=options)
    num_epochs = int(fitted.chosen["epochs"])
    assert 1 <= num_epochs <= 12
    training, _ = _training(features, windows, np.arange(60), CLASSES, options, 0, torch.device("cpu"))
    with torch.random.fork_rng([]):
        heads = [_train(training, 0.05, 0.01, num_epochs=number) for number in (num_epochs, num_epochs % 12 + 1)]
    same = [torch.equal(head.heads["verb"].weight, fitted.head.heads["verb"].weight) for head in heads]
    assert same == [True, False]
    whole = fit_anticipation_head(
        features, windows, num_classes=CLASSES, options=dataclasses.replace(options, chooses=False)
    )
    assert whole.chosen == {}


def test_what_cannot_be_trained_is_refused_with_the_reason() -> None:
    features, windows = windows_of(12, num_videos=1)
    fit_anticipation_head(
        features, windows, num_classes=CLASSES, options=QUICK
    )  # one pair: nothing to choose but epochs
    with pytest.raises(ValueError, match="there is only 1 training video"):
        fit_anticipation_head(
            features, windows, num_classes=CLASSES, options=dataclasses.replace(QUICK, lrs=(0.1, 0.2))
        )
    with pytest.raises(ValueError, match=r"labels of 'noun' reach from 0 to 3, need \[0, 2\)"):
        fit_anticipation_head(features, windows, num_classes={"verb": 3, "noun": 2}, options=QUICK)
    with pytest.raises(ValueError, match="not among the 3 with features"):
        fit_anticipation_head(features[:3], windows, num_classes=CLASSES, options=QUICK)
    bare = dataclasses.replace(windows, coming={"verb": windows.coming["verb"]})
    with pytest.raises(ValueError, match="no coming actions with a label in column 'noun'"):
        fit_anticipation_head(features, bare, num_classes=CLASSES, options=QUICK)
    many, four = windows_of(12)
    with pytest.raises(ValueError, match="diverged with every pair"):
        fit_anticipation_head(many * np.nan, four, num_classes=CLASSES, options=QUICK)
    for wrong, match in (
        ({"lrs": ()}, "lrs needs at least one value"),
        ({"aggregator": "sum"}, "aggregator must be one of concatenation, mean, transformer"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"dropout": 1.0}, "dropout must be a share below 1"),
        ({"held_out": 0.0}, "held_out must be a share below 1"),
        ({"lrs": (0.1, 0.2), "chooses": False}, "nothing is to be chosen"),
    ):
        with pytest.raises(ValueError, match=match):
            HeadOptions(**wrong)  # type: ignore[arg-type]
