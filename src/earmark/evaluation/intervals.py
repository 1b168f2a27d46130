"""How far a mean over actions can be trusted, where actions of one video resemble one another.

Path of a sample: scores --metrics--> numbers, each with its interval --report--> page. Pure functions of arrays.

Letters: N samples, G groups (videos), n samples of a group.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

__all__ = ["FEW_VIDEOS", "interval_without_variance", "mean_interval", "paired_interval"]

FEW_VIDEOS = 20  # an interval that rests on fewer is said to; `benchmarks/intervals.py` shows why
_ROUNDING = 1e-18  # of a variance of values between 0 and 1


def mean_interval(
    values: ArrayLike,
    *,
    bounds: tuple[float, float],
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return a confidence interval of a mean of bounded values, such as an accuracy, for other groups of the same kind.

    Wilson's score interval, with three changes for few groups of unequal size. The variance is that of group totals
    about the mean, each enlarged by the share of the mean that it makes up itself (CR2 of Bell and McCaffrey 2002);
    where all groups have the same mean, it is that of independent samples. The quantile is Student's, with
    Satterthwaite's degrees of freedom for groups whose samples vary together. And where all samples are alike, so that
    they show no variance, the interval holds every mean at which G groups would all be like that in more than 2.5 % of
    cases; one group alone says no more than one sample would.

    A percentile bootstrap over groups covers less than it says: of accuracies from 20 to 50 % it holds the truth in 50
    to 61 % of cases with two groups and 86 to 91 % with ten. `benchmarks/intervals.py` measures both.

    Args:
        values: One number per sample, shape ``(N,)``, for example ``100 * top_k_correct(...)``.
        bounds: Least and greatest value that there can be, for example ``(0, 100)``.
        groups: Group of each sample, shape ``(N,)``, of any comparable type, for example its video; None if samples are
            independent.
        confidence: How often such intervals should hold the true mean.

    Returns:
        Low and high end, in the unit of ``values``, within the bounds.

    Raises:
        ValueError: If ``values`` is empty, has more than one axis, is not finite or leaves the bounds, or ``groups``
            has another shape.

    Example:
        >>> low, high = mean_interval([0.0] * 50 + [100.0] * 50, bounds=(0, 100))
        >>> round(low, 1), round(high, 1)
        (40.2, 59.8)
        >>> low, high = mean_interval([100.0] * 8, bounds=(0, 100), groups=[1] * 4 + [2] * 4)
        >>> round(low, 1), high  # two videos where all is right
        (15.8, 100.0)
    """
    least, greatest = bounds
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError(f"need finite values of shape (N,), N > 0, got shape {sample.shape}")
    if not least < greatest or sample.min() < least or sample.max() > greatest:
        raise ValueError(f"values reach from {sample.min()} to {sample.max()}, need them within bounds {bounds}")
    if not 0 < confidence < 1:
        raise ValueError(f"need 0 < confidence < 1, got {confidence}")
    membership = np.arange(len(sample)) if groups is None else np.asarray(groups)
    if membership.shape != sample.shape:
        raise ValueError(f"need one group per value, got shapes {membership.shape} and {sample.shape}")
    shares = (sample - least) / (greatest - least)
    mean = float(shares.mean())
    _, group_of_sample, sizes = np.unique(membership, return_inverse=True, return_counts=True)
    if len(sizes) == 1 or np.ptp(shares) == 0:
        low, high = interval_without_variance(mean, len(sizes), confidence)
    else:
        totals = np.bincount(group_of_sample, weights=shares).astype(np.float64)
        variance = _variance(totals, sizes)
        if variance < _ROUNDING:  # groups agree by chance
            variance = float(shares.var(ddof=1)) / len(shares)
        quantile = float(student_t.ppf((1 + confidence) / 2, _degrees_of_freedom(sizes)))
        low, high = _score_interval(mean, variance, quantile)
    return least + (greatest - least) * low, least + (greatest - least) * high


def paired_interval(
    values_a: ArrayLike,
    values_b: ArrayLike,
    *,
    bounds: tuple[float, float],
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return a confidence interval of the mean of ``a - b``, both measured on the same samples.

    Args:
        values_a: One number per sample, shape ``(N,)``; for accuracies, whether each sample is right.
        values_b: The other method's, shape ``(N,)``.
        bounds: Least and greatest value of either.
        groups: As in `mean_interval`.
        confidence: As in `mean_interval`.

    Returns:
        Low and high end of the difference, in the unit of the values; 0 outside it is a difference.

    Raises:
        ValueError: As `mean_interval`, or if the shapes differ.

    Example:
        >>> low, high = paired_interval([1, 1, 1, 0] * 9, [0, 1, 0, 0] * 9, bounds=(0, 1))
        >>> round(low, 2), round(high, 2)
        (0.31, 0.65)
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values need one shape, got {a.shape} and {b.shape}")
    widest = bounds[1] - bounds[0]
    return mean_interval(a - b, bounds=(-widest, widest), groups=groups, confidence=confidence)


def _variance(totals: NDArray[np.float64], sizes: NDArray[np.intp]) -> float:
    """Return the variance of the mean over groups of these totals and sizes (CR2)."""
    num_samples = sizes.sum()
    residuals = totals - totals.sum() / num_samples * sizes
    return float((residuals**2 / (1 - sizes / num_samples)).sum() / num_samples**2)


def _degrees_of_freedom(sizes: NDArray[np.intp]) -> float:
    """Return Satterthwaite's degrees of freedom of `_variance`, if totals vary as the squares of the sizes.

    They are tr(DK)^2 / tr(DKDK), D = diag(1 / (1 - n/N)), K = (I - n1'/N) diag(n^2) (I - 1n'/N), written out so that
    no G x G matrix is made. Groups of one size give G - 1.
    """
    n = sizes.astype(np.float64)
    num_samples = n.sum()
    weight, spread = 1 / (1 - n / num_samples), n**2
    # K = diag(spread) + U with U of rank two
    diagonal_of_u = -2 * n * spread / num_samples + spread.sum() * n**2 / num_samples**2
    trace = (weight * (spread + diagonal_of_u)).sum()
    nn, ss, ns = ((weight * product).sum() for product in (n * n, spread * spread, n * spread))
    trace_of_square = (
        (weight**2 * spread * (spread + 2 * diagonal_of_u)).sum()
        + 2 * (nn * ss + ns**2) / num_samples**2
        - 4 * spread.sum() * nn * ns / num_samples**3
        + (spread.sum() * nn) ** 2 / num_samples**4
    )
    return float(trace**2 / trace_of_square)


def _score_interval(mean: float, variance: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a share, for as many independent samples as would give this variance."""
    squared = quantile**2
    num_effective = mean * (1 - mean) / variance
    centre = (mean + squared / (2 * num_effective)) / (1 + squared / num_effective)
    half = np.sqrt(squared * variance + (squared / (2 * num_effective)) ** 2) / (1 + squared / num_effective)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def interval_without_variance(mean: float, num_groups: int, confidence: float) -> tuple[float, float]:
    """Return the means that agree with so many groups alike: more others than this and one would have shown.

    Args:
        mean: What all groups have, from 0 to 1.
        num_groups: How many there are.
        confidence: How often such intervals should hold the true mean.

    Example:
        >>> low, high = interval_without_variance(1.0, 2, 0.95)
        >>> round(low, 3), high
        (0.158, 1.0)
    """
    others = 1 - ((1 - confidence) / 2) ** (1 / num_groups)
    return mean - others * mean, mean + others * (1 - mean)
