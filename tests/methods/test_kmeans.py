"""k-means: a slow oracle of its steps, groups that are there, empty clusters, bad points."""

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.methods import kmeans as module
from earmark.methods.kmeans import kmeans, kmeans_faiss


def blobs(num: int = 60, *, groups: int = 4, spread: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    centres = 5 * torch.randn(groups, 3, dtype=torch.float64, generator=generator)
    group = torch.arange(num) % groups
    return centres[group] + spread * torch.randn(num, 3, dtype=torch.float64, generator=generator), group


def slow_lloyd(points: np.ndarray, centres: np.ndarray, num_iterations: int) -> list[int]:
    nearest: list[int] = []
    for _ in range(num_iterations):
        nearest = [int(np.argmin([((p - c) ** 2).sum() for c in centres])) for p in points]
        centres = np.stack([points[[n == k for n in nearest]].mean(axis=0) for k in range(len(centres))])
    return nearest


@pytest.mark.parametrize("num_iterations", [1, 2, 5, 50])
def test_steps_equal_a_slow_loop_from_the_same_first_centres(num_iterations: int) -> None:
    points, _ = blobs(spread=3.0)  # groups that overlap: many steps
    first = module._first_centres(points, 5, seed=3).numpy()
    assert len({tuple(row) for row in first.tolist()}) == 5
    clusters = kmeans(points, 5, num_iterations=num_iterations, seed=3)
    assert clusters.tolist() == slow_lloyd(points.numpy(), first, num_iterations)


def test_a_table_cut_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = blobs(spread=3.0)
    whole = kmeans(points, 5)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    assert torch.equal(kmeans(points, 5), whole)


@pytest.mark.parametrize("engine", [kmeans, kmeans_faiss])
@pytest.mark.parametrize("seed", range(5))
def test_groups_that_are_there_are_found(engine: object, seed: int) -> None:
    if engine is kmeans_faiss:
        pytest.importorskip("faiss")
    points, group = blobs(groups=2)
    clusters = engine(points, 2, seed=seed)  # type: ignore[operator]
    assert torch.equal(clusters[:, None] == clusters, group[:, None] == group)
    assert torch.equal(engine(points, 2, seed=seed), clusters)  # type: ignore[operator]


def test_no_cluster_stays_empty_even_when_points_coincide() -> None:
    points = torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0]])
    for num_clusters in (1, 3, 5):
        assert (kmeans(points, num_clusters).bincount(minlength=num_clusters) > 0).all()


def test_first_centres_are_drawn_in_proportion_to_squared_distance() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    counts = torch.zeros(3)
    for seed in range(2000):
        first, second = module._first_centres(points, 2, seed=seed)[:, 0].tolist()
        if first == 0.0:
            counts[[0.0, 1.0, 3.0].index(second)] += 1
    assert (counts / counts.sum()).tolist() == pytest.approx([0, 0.1, 0.9], abs=0.03)


@pytest.mark.parametrize("engine", [kmeans, kmeans_faiss])
def test_bad_points_and_numbers_are_refused(engine: object) -> None:
    points, _ = blobs()
    for num_clusters in (0, 61):
        with pytest.raises(ValueError, match="from 1 to N clusters"):
            engine(points, num_clusters)  # type: ignore[operator]
    points[3, 1] = torch.inf
    with pytest.raises(ValueError, match="1 of 60 points are not finite"):
        engine(points, 2)  # type: ignore[operator]
