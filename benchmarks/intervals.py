"""How often 95 % intervals of an accuracy hold the truth, by the number of videos that they rest on.

    python benchmarks/intervals.py

Actions are drawn in videos: each video has an accuracy of its own around the true one (beta-binomial, with the given
correlation of two actions of a video) and a size, all the same or spread as a log-normal. Printed are the share of
intervals that hold the true accuracy and their mean width, of a percentile bootstrap over videos (what Earmark had
before) and of `earmark.evaluation.intervals.mean_interval`; and the same of a gain measured on the same actions.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from earmark.evaluation.intervals import mean_interval, paired_interval

NUM_VIDEOS = (2, 4, 6, 10, 15, 20, 50, 100)
SETTINGS = [
    (sizes, accuracy, correlation)
    for sizes in ("equal", "unequal")
    for accuracy in (0.05, 0.2, 0.5)
    for correlation in (0.05, 0.2)
]
MEAN_SIZE, SPREAD = 30, 0.8  # of a video's number of actions; the spread is that of its logarithm
ANSWERED_ANEW, THEN_RIGHT = 0.2, 0.6  # how the better of two encoders differs

Array = NDArray[np.float64]


def bootstrap(values: Array, videos: NDArray[np.intp], rng: np.random.Generator) -> tuple[float, float]:
    """Return the percentile bootstrap interval over videos."""
    totals, sizes = np.bincount(videos, weights=values), np.bincount(videos)
    counts = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=1000)
    low, high = np.quantile((counts @ totals) / (counts @ sizes), [0.025, 0.975])
    return float(low), float(high)


def draw(
    rng: np.random.Generator, num_videos: int, sizes: str, accuracy: float, correlation: float
) -> tuple[Array, NDArray[np.intp]]:
    """Return which actions are right, and the video of each."""
    spread = SPREAD if sizes == "unequal" else 0.0
    num_actions = np.maximum(2, np.round(rng.lognormal(np.log(MEAN_SIZE), spread, num_videos))).astype(np.intp)
    videos = np.repeat(np.arange(num_videos), num_actions)
    concentration = (1 - correlation) / correlation
    of_video = rng.beta(accuracy * concentration, (1 - accuracy) * concentration, num_videos)
    return (rng.random(len(videos)) < of_video[videos]).astype(float), videos


def main() -> None:
    """Print a table for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    print("held %, (mean width in points)            " + "".join(f"{number:>14} videos" for number in NUM_VIDEOS))
    for sizes, accuracy, correlation in SETTINGS:
        names = ("bootstrap", "accuracy", "gain")
        held = {name: np.zeros(len(NUM_VIDEOS)) for name in names}
        width = {name: np.zeros(len(NUM_VIDEOS)) for name in names}
        gain = ANSWERED_ANEW * (THEN_RIGHT - accuracy)
        for place, num_videos in enumerate(NUM_VIDEOS):
            rng = np.random.default_rng([num_videos, round(100 * accuracy), round(100 * correlation)])
            for _ in range(arguments.trials):
                right, videos = draw(rng, num_videos, sizes, accuracy, correlation)
                anew = rng.random(len(right)) < ANSWERED_ANEW
                better = np.where(anew, rng.random(len(right)) < THEN_RIGHT, right)
                found = {
                    "bootstrap": (bootstrap(right, videos, rng), accuracy),
                    "accuracy": (mean_interval(right, bounds=(0, 1), groups=videos), accuracy),
                    "gain": (paired_interval(better, right, bounds=(0, 1), groups=videos), gain),
                }
                for name, ((low, high), truth) in found.items():
                    held[name][place] += low <= truth <= high
                    width[name][place] += high - low
        for name in names:
            cells = "".join(
                f"{100 * h / arguments.trials:>13.1f} ({100 * w / arguments.trials:>4.1f})"
                for h, w in zip(held[name], width[name], strict=True)
            )
            print(f"{sizes:8}{accuracy:5.2f} ICC {correlation:.2f} {name:18}{cells}", flush=True)


if __name__ == "__main__":
    main()
