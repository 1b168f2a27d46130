"""What a choice among probes may depend on, and that one value is no choice."""

import numpy as np
import pytest

from earmark.evaluation.probe import ProbeOptions, linear_probe
from earmark.evaluation.probe_grid import held_out_rows
from earmark.evaluation.probing import fit_probe
from tests.helpers.clusters import CLASSES, clusters

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = ProbeOptions(
    epochs=6, milestones=(4,), batch_size=16, lrs=(1e-5, 0.03, 0.3), weight_decays=(1e-4, 0.3), held_out=0.3
)


@pytest.mark.parametrize(
    "options", [ProbeOptions(lr=0.02, weight_decay=0.01), ProbeOptions(lrs=(0.02,), weight_decays=(0.01,))]
)
def test_one_pair_is_the_linear_probe_bit_for_bit_and_asks_for_no_videos(options: ProbeOptions) -> None:
    features, labels, _ = clusters(60)
    test, _, _ = clusters(20, num_clips=3, seed=1)
    answers = fit_probe(
        features, labels, test, num_classes=CLASSES, train_videos=None, options=options, seed=4, device="cpu"
    )
    expected = linear_probe(
        features,
        labels,
        test,
        num_classes=CLASSES,
        options=ProbeOptions(lr=0.02, weight_decay=0.01),
        seed=4,
    )
    assert list(answers.scores) == list(CLASSES)
    for column in CLASSES:
        np.testing.assert_array_equal(answers.scores[column], expected[column])
    assert answers.chosen == {}


def slow_choice(
    features: np.ndarray, labels: dict[str, np.ndarray], videos: list[str], column: str, seed: int
) -> tuple[float, float, float]:
    """Train one probe after another without the held-out videos; the best pair and its accuracy."""
    held_out = held_out_rows(videos, share=0.3, seed=seed)
    tried = []
    for lr in GRID.lrs:
        for weight_decay in GRID.weight_decays:
            options = ProbeOptions(epochs=6, milestones=(4,), batch_size=16, lr=lr, weight_decay=weight_decay)
            scores = linear_probe(
                features[~held_out],
                {column: labels[column][~held_out]},
                features[held_out],
                num_classes={column: CLASSES[column]},
                options=options,
                seed=seed,
            )[column]
            truth = labels[column][held_out]
            accuracy = 100 * float((scores.argmax(axis=1) == truth).mean())
            loss = -float(scores[np.arange(len(truth)), truth].mean())
            tried.append((-accuracy, loss, lr, weight_decay))
    accuracy, _, lr, weight_decay = min(tried)
    return lr, weight_decay, -accuracy


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_column_takes_its_best_pair_and_is_then_trained_on_everything(seed: int) -> None:
    features, labels, videos = clusters(120, spread=2.0)
    features[..., 3:] *= 0.01  # nouns need a larger rate than verbs
    test, _, _ = clusters(20, seed=1)
    answers = fit_probe(
        features, labels, test, num_classes=CLASSES, train_videos=videos, options=GRID, seed=seed, device="cpu"
    )
    for column in CLASSES:
        lr, weight_decay, accuracy = slow_choice(features, labels, videos, column, seed)
        chosen = answers.chosen[column]
        assert (chosen["lr"], chosen["weight_decay"]) == (lr, weight_decay)
        assert chosen["held_out_accuracy"] == pytest.approx(accuracy)
        assert chosen["held_out_actions"] == held_out_rows(videos, share=0.3, seed=seed).sum()
        options = ProbeOptions(epochs=6, milestones=(4,), batch_size=16, lr=lr, weight_decay=weight_decay)
        expected = linear_probe(
            features, labels, test, num_classes={column: CLASSES[column]}, options=options, seed=seed
        )
        np.testing.assert_allclose(answers.scores[column], expected[column], atol=1e-6)


def test_the_choice_does_not_depend_on_the_test_features() -> None:
    """Test features on which other pairs would be right: those of the same actions, with the classes exchanged."""
    features, labels, videos = clusters(120, spread=2.0)
    chosen = [
        fit_probe(
            features, labels, test, num_classes=CLASSES, train_videos=videos, options=GRID, seed=0, device="cpu"
        ).chosen
        for test in (features, -100 * features, np.zeros_like(features[:1]))
    ]
    assert chosen[0] == chosen[1] == chosen[2]


def test_the_choice_is_made_before_a_test_feature_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What chooses gets no test feature: it is called with what is for training, and with nothing else."""
    features, labels, videos = clusters(120)
    test = np.full((7, 2, 7), 12345.0, np.float32)
    seen: list[bool] = []

    from earmark.evaluation import probing

    choose = probing.linear_grid_quality

    def watched(*args: object, **kwargs: object) -> object:
        given = [*args, *kwargs.values()]
        arrays = [value for value in given if isinstance(value, np.ndarray)]
        seen.append(any(np.shares_memory(array, test) or (array == 12345.0).any() for array in arrays))
        return choose(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(probing, "linear_grid_quality", watched)
    fit_probe(features, labels, test, num_classes=CLASSES, train_videos=videos, options=GRID, seed=0, device="cpu")
    assert seen == [False]


def test_the_same_seed_chooses_and_answers_the_same() -> None:
    features, labels, videos = clusters(120, spread=2.0)
    runs = [
        fit_probe(
            features, labels, features, num_classes=CLASSES, train_videos=videos, options=GRID, seed=seed, device="cpu"
        )
        for seed in (0, 0, 1)
    ]
    assert runs[0].chosen == runs[1].chosen
    for column in CLASSES:
        np.testing.assert_array_equal(runs[0].scores[column], runs[1].scores[column])
        assert np.abs(runs[0].scores[column] - runs[2].scores[column]).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lrs": (0.1, -1.0)}, "lrs: every value must be above 0, got -1"),
        ({"lrs": (0.1, 0.1)}, "lrs: a value is there twice: 0.1, 0.1"),
        ({"lrs": (float("nan"),)}, "lrs: .* got nan"),
        ({"weight_decays": (-1e-4,)}, "weight_decays: every value must be at least 0"),
        ({"neighbours": ()}, "neighbours: need at least one"),
        ({"neighbours": (0,)}, "neighbours: every value must be above 0"),
        ({"held_out": 1.0}, "held_out must be a share"),
        ({"held_out": 0.0}, "held_out must be a share"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"num_heads": 0}, "num_heads must be at least 1"),
        ({"kind": "quadratic"}, "no probe is called 'quadratic'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeOptions(**options)


def test_videos_that_do_not_fit_are_refused() -> None:
    features, labels, videos = clusters(60)
    with pytest.raises(ValueError, match="one video for each of 60 training samples, got 59"):
        fit_probe(
            features,
            labels,
            features,
            num_classes=CLASSES,
            train_videos=videos[:59],
            options=GRID,
            seed=0,
            device="cpu",
        )
    with pytest.raises(ValueError, match="not known which video"):
        fit_probe(
            features, labels, features, num_classes=CLASSES, train_videos=None, options=GRID, seed=0, device="cpu"
        )
