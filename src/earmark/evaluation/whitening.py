r"""Features whose common directions do not drown the others, for comparing moments by the cosine.

Path of a sample: changes or appearances of moments --whitening--> vectors --cosine--> nearest moments.

The changes of all moments have much in common: a hand that comes and goes, and the order of before and after that an
objective asks for. By the cosine of the features as they are, the change of an opening and that of a closing therefore
point the same way. With the second moments :math:`C` of training features, each divided by its root mean square, and a
shrinkage :math:`\lambda`, a vector :math:`x` becomes

.. math::
    (C + \lambda I)^{-1/2}\, x

so that directions with much variance count less; a large :math:`\lambda` leaves the scaled features as they are.

Source: ZCA whitening (Bell and Sejnowski 1997) with a ridge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["WHITENING_SHRINKAGES", "Whitening", "fit_whitenings"]

WHITENING_SHRINKAGES = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)  # of scaled features, whose variances are 1 on average

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Whitening:
    """A fitted whitening.

    Attributes:
        mean: Subtracted first, ``(D,)``; zeros where changes are compared, whose mean says what all have in common.
        weights: ``(D, D)``.
    """

    mean: Floats
    weights: Floats

    def __call__(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Return the whitened vectors, ``(N, D)``."""
        whitened: Floats = (np.asarray(vectors, np.float64) - self.mean) @ self.weights
        return whitened


def fit_whitenings(
    vectors: npt.NDArray[np.floating], *, centred: bool, shrinkages: Sequence[float] = WHITENING_SHRINKAGES
) -> list[Whitening]:
    """Return the whitening of each shrinkage.

    Args:
        vectors: Training features, ``(N, D)``.
        centred: Whether the mean is subtracted first.
        shrinkages: To be added to the variances; positive.

    Raises:
        ValueError: If there are no vectors, they are not finite, or a shrinkage is not positive.

    Example:
        >>> (whitening,) = fit_whitenings(np.array([[3.0, 0.1], [-3.0, 0.1]]), centred=False, shrinkages=[1e-6])
        >>> whitening(np.array([[3.0, 0.1]])).round(3)
        array([[1., 1.]])
    """
    if vectors.ndim != 2 or len(vectors) == 0 or not np.isfinite(vectors).all():
        raise ValueError(f"need finite vectors (N, D), N > 0, got shape {vectors.shape}")
    if not all(shrinkage > 0 for shrinkage in shrinkages):
        raise ValueError(f"shrinkages must be positive, got {list(shrinkages)}")
    values = vectors.astype(np.float64)
    mean = values.mean(axis=0) if centred else np.zeros(values.shape[1])
    values = values - mean
    root_mean_square = np.sqrt((values**2).mean(axis=0))
    # a feature that does not vary says nothing
    varies = root_mean_square > 1e-9 * (np.abs(mean) + 1e-9)
    scale = np.divide(1.0, root_mean_square, out=np.zeros_like(root_mean_square), where=varies)
    scaled = values * scale
    variances, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    variances = np.maximum(variances, 0)
    return [
        Whitening(mean, scale[:, None] * ((axes / np.sqrt(variances + shrinkage)) @ axes.T)) for shrinkage in shrinkages
    ]
