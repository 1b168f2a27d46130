r"""Which of two clips came first, told from the difference of their features by a linear probe without a bias.

Path of a sample: features before and after --difference--> change --probe--> margin: positive where the order is right.

Shown the clips in the other order, the change is the reverse, and so is the margin of a linear map without a bias: the
probe can't prefer one answer, and answers both orders alike. Its weights :math:`w` minimize

.. math::
    \frac{1}{N} \sum_i \log(1 + e^{-w \cdot d_i}) + \frac{\lambda}{2} |w|^2

over the changes :math:`d_i` of training moments, each feature divided by its root mean square: a convex problem, with
one solution that no learning rate or seed decides. The penalty :math:`\lambda` is chosen on training videos that are
held out.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from earmark.evaluation.probe_grid import HeldOutQuality, edge_of, held_out_rows

__all__ = ["PENALTIES", "OrderProbe", "choose_penalty", "fit_order_probe", "share_right"]

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
MAX_ITERATIONS = 2000

Floats = npt.NDArray[np.float64]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OrderProbe:
    """The fitted probe.

    Attributes:
        scale: What each feature of a change is multiplied by, ``(D,)``: one over its root mean square in training.
        weights: Of the scaled change, ``(D,)``.
    """

    scale: Floats
    weights: Floats

    @property
    def direction(self) -> Floats:
        """The weights of the features themselves, ``(D,)``."""
        direction: Floats = self.scale * self.weights
        return direction

    def margins(self, changes: npt.NDArray[np.floating]) -> Floats:
        """Return the margin of each change ``(N, D)``: the logit of its order being the right one."""
        margins: Floats = np.asarray(changes, np.float64) @ self.direction
        return margins


def fit_order_probe(changes: npt.NDArray[np.floating], *, penalty: float) -> OrderProbe:
    """Fit the probe.

    Args:
        changes: Features after minus features before of training moments, ``(N, D)``.
        penalty: Of the squared weights; positive.

    Raises:
        ValueError: If there are no changes, they are not finite, or the penalty is not positive.

    Example:
        >>> probe = fit_order_probe(np.array([[1.0, 0.3], [2.0, -0.2]]), penalty=0.1)
        >>> probe.margins(np.array([[1.0, 0.0], [-1.0, 0.0]])).round(2).tolist()
        [1.0, -1.0]
    """
    if changes.ndim != 2 or len(changes) == 0 or not np.isfinite(changes).all():
        raise ValueError(f"need finite changes (N, D), N > 0, got shape {changes.shape}")
    if not penalty > 0:
        raise ValueError(f"the penalty must be positive, got {penalty}")
    values = changes.astype(np.float64)
    root_mean_square = np.sqrt((values**2).mean(axis=0))
    # a feature that never changes says nothing
    scale = np.divide(1.0, root_mean_square, out=np.zeros_like(root_mean_square), where=root_mean_square > 0)
    scaled = values * scale

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = scaled @ weights
        gradient = penalty * weights - scaled.T @ expit(-margins) / len(scaled)
        return float(np.logaddexp(0, -margins).mean() + penalty / 2 * weights @ weights), gradient

    solved = minimize(
        loss,
        np.zeros(values.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "ftol": 1e-12, "gtol": 1e-7},
    )
    return OrderProbe(scale, solved.x)


def choose_penalty(
    changes: npt.NDArray[np.floating],
    *,
    train_videos: Sequence[str],
    penalties: Sequence[float] = PENALTIES,
    held_out: float = 0.2,
    seed: int = 0,
) -> dict[str, float]:
    """Choose a penalty on training videos that are held out: the most accurate, of equals that with the least loss.

    Args:
        changes: As `fit_order_probe`.
        train_videos: Video of each moment.
        penalties: To choose among.
        held_out: Share of the videos to hold out.
        seed: Of the division.

    Returns:
        ``penalty``; ``held_out_accuracy`` in % of ``held_out_moments``; ``penalty_on_edge``, which is 1 for the largest
        of those tried, -1 for the smallest, else 0.

    Raises:
        ValueError: As `fit_order_probe`, or if there are fewer than two videos.
    """
    rows = held_out_rows(train_videos, share=held_out, seed=seed)
    accuracies, losses = [], []
    for penalty in penalties:
        margins = fit_order_probe(changes[~rows], penalty=penalty).margins(changes[rows])
        accuracies.append(100 * float(share_right(margins).mean()))
        losses.append(float(np.logaddexp(0, -margins).mean()))
    best = HeldOutQuality(np.array(accuracies), np.array(losses), num_actions=int(rows.sum())).best()
    edge = edge_of(penalties[best], penalties)
    if edge:
        _logger.warning(
            "the chosen penalty %g is the %s of those tried", penalties[best], "largest" if edge > 0 else "smallest"
        )
    return {
        "penalty": penalties[best],
        "held_out_accuracy": accuracies[best],
        "held_out_moments": float(rows.sum()),
        "penalty_on_edge": edge,
    }


def share_right(margins: npt.ArrayLike) -> Floats:
    """Return 1 where the margin is positive, 0 where it is negative, and 1/2 where it is 0: a guess.

    Example:
        >>> share_right([2.0, -1.0, 0.0])
        array([1. , 0. , 0.5])
    """
    right: Floats = (np.sign(np.asarray(margins, np.float64)) + 1) / 2
    return right
