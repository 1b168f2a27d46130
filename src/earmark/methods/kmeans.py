"""k-means: the clusters of deep clustering, by torch or by faiss."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name

ROWS_AT_ONCE = 1 << 15  # bounds the memory of distances, (rows, K), whatever the number of points


def kmeans(x: Tensor, num_clusters: int, *, num_iterations: int = 20, seed: int = 0) -> Tensor:
    r"""Assign points to clusters by Lloyd's algorithm from k-means++ seeds.

    Each step lowers :math:`\sum_i \min_k \lVert x_i - c_k \rVert^2`, until no point changes its cluster or
    `num_iterations` are done. A cluster that lost all its points is given the point farthest from its centre. The same
    points and seed give the same clusters.

    Args:
        x: Points (N, D), floating point.
        num_clusters: K.
        num_iterations: Maximum number of steps.
        seed: Seeds the initial centres.

    Returns:
        The cluster of each point, int64 (N,); none of the K is empty.

    Raises:
        ValueError: If there are fewer points than clusters, or a point is not finite.

    Source: Lloyd, IEEE Transactions on Information Theory 28 (1982); Arthur and Vassilvitskii, SODA 2007.

    Example:
        >>> clusters = kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2)
        >>> bool(clusters[0] == clusters[1] != clusters[2] == clusters[3])
        True
    """
    _check(x, num_clusters)
    centres = _first_centres(x, num_clusters, seed=seed)
    clusters = x.new_full((len(x),), -1, dtype=torch.int64)
    for _ in range(num_iterations):
        squared_distance, nearest = _nearest(x, centres)
        for empty in (torch.bincount(nearest, minlength=num_clusters) == 0).nonzero().flatten():
            # Not the only point of its cluster: that would leave another one empty.
            shared = torch.bincount(nearest, minlength=num_clusters)[nearest] > 1
            farthest = squared_distance.masked_fill(~shared, -1).argmax()
            nearest[farthest], squared_distance[farthest] = empty, 0
        if torch.equal(nearest, clusters):
            break
        clusters = nearest
        centres = _means(x, clusters, num_clusters)
    return clusters


def kmeans_faiss(x: Tensor, num_clusters: int, *, num_iterations: int = 20, seed: int = 0) -> Tensor:
    """Assign points to clusters by faiss, which is faster for millions of points; it finds centres on a sample of them.

    Args:
        x: Points (N, D), floating point; faiss computes in float32 on the CPU.
        num_clusters: K.
        num_iterations: Number of steps.
        seed: Seeds the initial centres and the sample.

    Returns:
        The cluster of each point, int64 (N,), on the device of `x`.

    Raises:
        ValueError: If there are fewer points than clusters, or a point is not finite.
        ImportError: If faiss is not installed (``pip install earmark[faiss]``).

    Source: Johnson et al., arXiv 1702.08734.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> kmeans_faiss(points, 2).bincount().tolist()  # doctest: +SKIP
        [2, 2]
    """
    _check(x, num_clusters)
    try:
        import faiss
    except ImportError as error:
        raise ImportError("k-means by faiss needs `pip install earmark[faiss]`") from error
    points = x.detach().float().cpu().contiguous().numpy()
    # One point per cluster is enough for it to start; it warns below 39. Its seed is a C int.
    options = {"niter": num_iterations, "seed": seed % (1 << 31), "min_points_per_centroid": 1}
    model = faiss.Kmeans(points.shape[1], num_clusters, **options)
    model.train(points)
    _, nearest = model.index.search(points, 1)
    return torch.from_numpy(nearest[:, 0]).to(x.device)


def _check(x: Tensor, num_clusters: int) -> None:
    if x.ndim != 2 or not 1 <= num_clusters <= len(x):
        raise ValueError(f"need points (N, D) and from 1 to N clusters, got {tuple(x.shape)} and {num_clusters}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{int((~torch.isfinite(x).all(dim=1)).sum())} of {len(x)} points are not finite")


def _first_centres(x: Tensor, num_clusters: int, *, seed: int) -> Tensor:
    """Draw points with a chance in proportion to their squared distance from those drawn before (k-means++)."""
    draws = torch.rand(num_clusters, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    chosen = [int(draws[0] * len(x))]
    squared_distance = (x - x[chosen[0]]).square().sum(dim=1)
    for draw in draws[1:]:
        reached = squared_distance.double().cumsum(0)
        place = torch.searchsorted(reached, draw * reached[-1:], right=True)
        chosen.append(int(place.clamp_max(len(x) - 1)))
        squared_distance = torch.minimum(squared_distance, (x - x[chosen[-1]]).square().sum(dim=1))
    return x[chosen]


def _nearest(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance (N,) of each point to its nearest centre, and which that is."""
    parts = [torch.cdist(rows, centres).min(dim=1) for rows in torch.split(x, ROWS_AT_ONCE)]
    return torch.cat([part.values for part in parts]).square(), torch.cat([part.indices for part in parts])


def _means(x: Tensor, clusters: Tensor, num_clusters: int) -> Tensor:
    """Return each cluster's mean (K, D); by products of matrices, whose sums have one order on a GPU too."""
    total = x.new_zeros(num_clusters, x.shape[1])
    for rows, members in zip(torch.split(x, ROWS_AT_ONCE), torch.split(clusters, ROWS_AT_ONCE), strict=True):
        total += F.one_hot(members, num_clusters).to(x.dtype).T @ rows
    return total / torch.bincount(clusters, minlength=num_clusters)[:, None]
