"""The kNN probe: the training clips nearest to a test clip vote for their classes; nothing is trained.

Path of a sample: features --cosine to all training clips--> the nearest ones --votes--> scores --metrics--> numbers.

As in Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (CVPR 2018, arXiv
1805.01978), and DINO (arXiv 2104.14294): cosine similarity, 20 neighbours, the vote of one is exp(cosine / 0.07). They
compare features as they are; here these are standardized before, unless `ProbeOptions.standardize` says otherwise:
features after a ReLU and a maximum are all positive, and the angles between them small.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, Standardization
from earmark.evaluation.probe_grid import HeldOutQuality, HeldOutTally
from earmark.wording import counted

__all__ = ["knn_probe", "knn_quality", "nearest_clips"]

_NUMBERS_AT_ONCE = 2**23  # similarities or votes; of the largest of what is made of them, 64 MiB


def knn_probe(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[Any],
    *,
    num_classes: Mapping[str, int],
    neighbours: Mapping[str, int],
    options: ProbeOptions,
    device: torch.device | str = "cpu",
) -> dict[str, npt.NDArray[np.float32]]:
    """Let the nearest training clips vote on each test action.

    The search is exact. Every clip of every training action with a label in the column can be a neighbour; of clips
    equally near the first ones are. Each clip of a test action is voted on by itself, and an action's probability is
    the mean over its clips of the shares of the votes.

    Args:
        train_features: Shape (N_train, clips, D).
        train_labels: Class ids of each label column, shape (N_train,); -1 for none.
        test_features: Shape (N_test, clips, D); the number of clips may differ.
        num_classes: Classes of each label column.
        neighbours: Clips that vote, by label column.
        options: Temperature, and what features go through; its own neighbours are not used.
        device: Where similarities are computed.

    Returns:
        For each label column float32 (N_test, classes): log of the probability. A class that no neighbour has gets that
        of the smallest positive number, about -87, and not minus infinity, so that scores stay finite.

    Raises:
        ValueError: If there are fewer labelled training clips than neighbours.

    Example:
        >>> features = np.float32([[[-1.0, 1.0]], [[1.0, 1.0]]])
        >>> options = ProbeOptions(standardize=False)
        >>> scores = knn_probe(features, {"verb": np.array([0, 1])}, features, num_classes={"verb": 2},
        ...     neighbours={"verb": 1}, options=options)
        >>> scores["verb"].argmax(axis=1)
        array([0, 1])
    """
    clips = _TrainingClips(train_features, train_labels, options, device)
    test = clips.directions(test_features)
    scores = {}
    for column, classes in num_classes.items():
        parts = clips.scores(test, column, classes, [neighbours[column]])
        scores[column] = torch.cat([part[:, 0].float().cpu() for part in parts]).numpy()
    return scores


def knn_quality(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    held_out: npt.NDArray[np.bool_],
    *,
    num_classes: Mapping[str, int],
    options: ProbeOptions,
    device: torch.device | str,
) -> dict[str, HeldOutQuality]:
    """Judge each number of neighbours on a part of the training actions, by votes of the others.

    Args:
        train_features: Shape (N, clips, D).
        train_labels: Class ids of each column (N,), -1 for none.
        held_out: Which actions are judged, (N,); nothing of them votes.
        num_classes: Classes of each column.
        options: The numbers of neighbours, temperature, and what features go through.
        device: Where similarities are computed.

    Returns:
        For each column how well each number does.

    Raises:
        ValueError: If there are fewer labelled clips that vote than the largest number.

    Example:
        >>> features, labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]][:, None], {"verb": np.array([0, 1, 0, 1])}
        >>> knn_quality(
        ...     features, labels, np.array([False, False, True, True]), num_classes={"verb": 2},
        ...     options=ProbeOptions(neighbours=(1, 2)), device="cpu",
        ... )["verb"].accuracies
        array([100., 100.])
    """
    labels = {column: np.asarray(train_labels[column], np.int64) for column in num_classes}
    clips = _TrainingClips(
        train_features[~held_out], {column: values[~held_out] for column, values in labels.items()}, options, device
    )
    judged = clips.directions(train_features[held_out])
    qualities = {}
    for column, classes in num_classes.items():
        tally = HeldOutTally(len(options.neighbours))
        truth, start = torch.from_numpy(labels[column][held_out]).to(device), 0
        for part in clips.scores(judged, column, classes, options.neighbours):
            tally.add(part, truth[start : start + len(part)])
            start += len(part)
        qualities[column] = tally.quality()
    return qualities


def nearest_clips(similarity: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return similarity and place of the nearest clips, the nearest first; of equally near ones the first.

    Args:
        similarity: To each training clip (rows, N).
        number: How many, at most N.

    Returns:
        Both (rows, number).

    Example:
        >>> nearest_clips(torch.tensor([[0.1, 0.9, 0.5, 0.5, 0.5]]), 3)[1].tolist()
        [[1, 2, 3]]
    """
    # topk promises nothing about which of equals it takes, and equals are common: an action shorter than a clip has
    # the same clip several times. So only its least similarity is used.
    least = similarity.topk(number, dim=1).values[:, -1:]
    nearer, equal = similarity > least, similarity == least
    of_equals = equal & (equal.cumsum(dim=1) <= number - nearer.sum(dim=1, keepdim=True))
    places = (nearer | of_equals).nonzero()[:, 1].view(len(similarity), number)
    found = similarity.gather(1, places)
    found, order = found.sort(dim=1, descending=True, stable=True)
    return found, places.gather(1, order)


class _TrainingClips:
    """Clips that can be neighbours: directions (N x clips, D) and labels."""

    def __init__(
        self,
        features: npt.NDArray[Any],
        labels: Mapping[str, npt.NDArray[np.int64]],
        options: ProbeOptions,
        device: torch.device | str,
    ) -> None:
        self._device = device
        self._temperature = options.temperature
        self._standardization = Standardization(self._on_device(features), options)
        self._directions = self.directions(features).flatten(0, 1)
        self._labels = {
            column: torch.from_numpy(np.repeat(np.asarray(values, np.int64), features.shape[1])).to(device)
            for column, values in labels.items()
        }

    def _on_device(self, features: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(features, dtype=np.float32)).to(self._device)

    def directions(self, features: npt.NDArray[Any]) -> Tensor:
        """Return features (N, clips, D) as they are compared, of length 1."""
        return functional.normalize(self._standardization(self._on_device(features)), dim=-1)

    def scores(self, directions: Tensor, column: str, num_classes: int, neighbours: Sequence[int]) -> list[Tensor]:
        """Return the scores of actions (N, clips, D) for each number of neighbours, (n, numbers, classes) in parts."""
        known = (self._labels[column] != IGNORED_LABEL).nonzero()[:, 0]
        most = max(neighbours)
        if most > len(known):
            raise ValueError(
                f"{column}: {counted(most, 'neighbour')} can't vote, there are only "
                f"{counted(len(known), 'labelled training clip')} to choose from: ask for fewer (neighbours)"
            )
        everyone = len(known) == len(self._directions)
        candidates = self._directions if everyone else self._directions[known]
        labels = self._labels[column][known]
        num_clips = directions.shape[1]
        num_rows = max(1, _NUMBERS_AT_ONCE // (num_clips * max(len(candidates), most * num_classes)))
        parts = []
        for some in directions.split(num_rows):  # type: ignore[no-untyped-call]
            similarity, places = nearest_clips(some.flatten(0, 1) @ candidates.T, most)
            # relative to the nearest one, which changes no share and can't overflow
            votes = ((similarity - similarity[:, :1]) / self._temperature).exp()
            of_class = labels[places][:, :, None] == torch.arange(num_classes, device=labels.device)
            by_number = [
                (votes[:, :k, None] * of_class[:, :k]).sum(dim=1) / votes[:, :k, None].sum(1) for k in neighbours
            ]
            shares = torch.stack(by_number, dim=1).view(-1, num_clips, len(neighbours), num_classes).mean(dim=1)
            parts.append(shares.clamp(min=torch.finfo(shares.dtype).tiny).log())
        return parts
