"""What a grid of learning rates and weight decays costs, beside one pair, of the linear and of the attentive probe.

    python benchmarks/probe_grid.py [--device cuda]

Features are drawn; their sizes are those of the published encoder (512) on clips of EPIC-KITCHENS-100 (97 verbs and 300
nouns) and of Audible Kitchen (14 and 29). Printed are milliseconds for each batch of 128 actions, as the best of some
rounds: of `linear_probe`; of one pair and of 20 pairs as `fit_linear_grid` trains them; of the whole choice among 20 by
`fit_probe`, which trains the grid without the held-out videos and then the chosen pair on all of them; and of one and
of 20 attentive probes on 5 clips of 49 tokens.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from earmark.evaluation.attentive_probe import fit_attentive
from earmark.evaluation.probe import ProbeOptions, linear_probe
from earmark.evaluation.probe_grid import Pair, fit_linear_grid, grid_of
from earmark.evaluation.probing import fit_probe

D, BATCH_SIZE, EPOCHS = 512, 128, 5
CLASSES = {"EPIC-KITCHENS-100": {"verb": 97, "noun": 300}, "Audible Kitchen": {"verb": 14, "noun": 29}}
RATES, DECAYS = (0.001, 0.003, 0.01, 0.03, 0.1), (0.0, 1e-5, 1e-4, 1e-3)
PAIRS = grid_of(RATES, DECAYS, lr=0.005, weight_decay=1e-4)
ONE = ProbeOptions(epochs=EPOCHS, milestones=(), standardize=False)
CHOICE = ProbeOptions(epochs=EPOCHS, milestones=(), standardize=False, lrs=RATES, weight_decays=DECAYS)


def milliseconds(run: Callable[[], object], num_batches: int, rounds: int) -> float:
    """Return the time for each batch of the fastest round, after one that warms up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds[1:]) / num_batches


def linear_runs(classes: dict[str, int], num_batches: int, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is measured of the linear probe."""
    rng = np.random.default_rng(0)
    num_actions = num_batches * BATCH_SIZE
    features = rng.normal(size=(num_actions, 3, D)).astype(np.float32)
    labels = {column: rng.integers(0, number, size=num_actions) for column, number in classes.items()}
    videos = [f"P01_{number // 100:02d}" for number in range(num_actions)]
    on_device = torch.from_numpy(features).to(device)
    of_device = {column: torch.from_numpy(values).to(device) for column, values in labels.items()}

    def grid(pairs: tuple[Pair, ...]) -> object:
        return fit_linear_grid(on_device, of_device, num_classes=classes, pairs=pairs, options=ONE, seed=0)

    yield (
        "linear_probe",
        lambda: linear_probe(features, labels, features[:1], num_classes=classes, options=ONE, device=device),
    )
    yield "one pair", lambda: grid(PAIRS[:1])
    yield f"{len(PAIRS)} pairs", lambda: grid(PAIRS)
    yield (
        f"fit_probe choosing among {len(PAIRS)}",
        lambda: fit_probe(
            features,
            labels,
            features[:1],
            num_classes=classes,
            train_videos=videos,
            options=CHOICE,
            seed=0,
            device=device,
        ),
    )


def attentive_runs(
    classes: dict[str, int], num_batches: int, device: str
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is measured of the attentive probe."""
    rng = np.random.default_rng(0)
    num_actions = num_batches * BATCH_SIZE
    tokens = rng.normal(size=(num_actions, 5, 49, D)).astype(np.float16)
    labels = {column: rng.integers(0, number, size=num_actions) for column, number in classes.items()}
    options = ProbeOptions(kind="attentive", epochs=EPOCHS)

    def grid(pairs: tuple[Pair, ...]) -> object:
        return fit_attentive(
            tokens,
            labels,
            np.arange(num_actions),
            num_classes=classes,
            pairs=dict.fromkeys(classes, pairs),
            options=options,
            seed=0,
            device=device,
        )

    yield "one attentive probe", lambda: grid(PAIRS[:1])
    yield f"{len(PAIRS)} attentive probes", lambda: grid(PAIRS)


def main() -> None:
    """Print a line for each probe and data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--attentive-batches", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for name, classes in CLASSES.items():
        for runs, num_batches in ((linear_runs, arguments.batches), (attentive_runs, arguments.attentive_batches)):
            if num_batches:
                for what, run in runs(classes, num_batches, arguments.device):
                    spent = milliseconds(run, EPOCHS * num_batches, arguments.rounds)
                    print(f"{name}: {what}: {spent:.2f} ms a batch", flush=True)


if __name__ == "__main__":
    main()
