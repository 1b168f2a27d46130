"""Which samples a page shows: the most confident and some that are drawn, no two of one video, the same each time."""

import numpy as np
import pytest

from earmark.evaluation.answers import TargetAnswers
from earmark.evaluation.judged_clips import ClipAnswer, answers_to, choose_samples, right_and_confident


def targets() -> list[TargetAnswers]:
    """Return verb and noun of four samples: right, noun wrong, both wrong, noun without a label."""
    verb = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    noun = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.3, 0.3]])
    return [
        TargetAnswers("verb", ["open", "close"], np.array([0, 0, 0, 0]), verb, None, np.array([4, 0])),
        TargetAnswers("noun", ["tap", "pan", "tap"], np.array([0, 0, 0, -1]), noun, None, np.array([3, 0, 0])),
    ]


def test_right_means_every_label_and_confidence_is_the_product() -> None:
    right, confidence = right_and_confident(targets())
    assert right.tolist() == [True, False, False, False]
    np.testing.assert_allclose(confidence, [0.45, 0.64, 0.42, np.nan])
    with pytest.raises(ValueError, match="no label column"):
        right_and_confident([])


def test_answers_name_classes_and_keep_those_of_one_name_apart() -> None:
    assert answers_to(2, targets()) == (
        ClipAnswer("verb", "open", "close", pytest.approx(0.7), right=False),
        ClipAnswer("noun", "tap", "tap", pytest.approx(0.6), right=False),  # class 2, not class 0
    )
    assert [answer.column for answer in answers_to(3, targets())] == ["verb"]


@pytest.mark.parametrize("seed", range(5))
def test_chosen_are_the_most_confident_then_drawn_ones_of_other_videos(seed: int) -> None:
    rng = np.random.default_rng(seed + 100)
    num_samples = 300
    videos = [f"P{number:02d}" for number in rng.integers(0, 40, num_samples)]
    candidates, confidence = rng.random(num_samples) < 0.5, rng.random(num_samples)
    confident, drawn = choose_samples(candidates, confidence, videos, num_confident=5, num_drawn=7, seed=seed)
    expected: list[int] = []
    for sample in sorted(range(num_samples), key=lambda sample: -confidence[sample]):
        if candidates[sample] and len(expected) < 5 and videos[sample] not in {videos[other] for other in expected}:
            expected.append(sample)
    assert list(confident) == expected
    assert len(drawn) == 7
    assert all(candidates[list(drawn)])
    shown = [videos[sample] for sample in (*confident, *drawn)]
    assert len(set(shown)) == len(shown) == 12
    again = choose_samples(candidates, confidence, videos, num_confident=5, num_drawn=7, seed=seed)
    assert again == (confident, drawn)
    other = choose_samples(candidates, confidence, videos, num_confident=5, num_drawn=7, seed=seed + 1)
    assert other[0] == confident
    assert other[1] != drawn


def test_fewer_videos_than_asked_give_fewer_samples_and_none_gives_none() -> None:
    one_video = choose_samples([True] * 4, [0.1, 0.4, 0.3, 0.2], ["a"] * 4, num_confident=3, num_drawn=3, seed=0)
    assert one_video == ((1,), ())
    assert choose_samples([False], [0.5], ["a"], num_confident=3, num_drawn=3, seed=0) == ((), ())
    with pytest.raises(ValueError, match="1 candidates, 2 confidences, 1 videos"):
        choose_samples([True], [0.1, 0.2], ["a"], num_confident=1, num_drawn=1, seed=0)


def test_equal_confidences_are_taken_in_an_order_of_the_seed() -> None:
    videos = [str(number) for number in range(50)]
    first = {
        choose_samples([True] * 50, [1.0] * 50, videos, num_confident=1, num_drawn=0, seed=seed)[0] for seed in range(9)
    }
    assert len(first) > 5
