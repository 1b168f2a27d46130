r"""Sound units: what the sounds of a data set fall into, found by k-means, as classes that clips can be told by.

The log-mel spectrogram of a sound is averaged over 25 x 10 patches of time and frequency. Of the first samples of a run
these are standardized, whitened on their 16 strongest principal components, and clustered, once for each number of
clusters; from then on the unit of a sound is the cluster whose centre is nearest. No encoder takes part, so the units
do not drift.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.methods.gathering import gather_without_gradient, rank, sum_over_processes
from earmark.methods.kmeans import kmeans

__all__ = ["SAMPLES_PER_UNIT", "SoundUnits", "sound_patches"]

GRID = (25, 10)  # patches of time and of frequency
NUM_COMPONENTS = 16
SAMPLES_PER_UNIT = 5  # of those that the units are made of
NUM_ITERATIONS = 30


def sound_patches(audio: Tensor) -> Tensor:
    """Return the means of a log-mel spectrogram over 25 x 10 patches of time and frequency.

    Args:
        audio: Log-mel spectrograms (B, 1, frames, F).

    Returns:
        (B, 250), float32, or float64 if the spectrograms are.

    Example:
        >>> sound_patches(torch.ones(3, 1, 125, 80)).shape
        torch.Size([3, 250])
    """
    audio = audio if audio.dtype == torch.float64 else audio.float()
    return F.adaptive_avg_pool2d(audio, GRID).flatten(1)


class SoundUnits(nn.Module):
    """Sorts sounds into units that it makes of the first ones it is given.

    Everything is in buffers, so that a checkpoint holds what was collected so far as well as what was made of it. Where
    a process group runs, the sounds of all processes are collected, and all processes have the same units.

    Args:
        num_units: Of each clustering, at least 2.
        seed: Seeds k-means; not negative.

    Attributes:
        num_needed: Samples that the units are made of: five for each unit of the largest clustering.

    Raises:
        ValueError: If there is no clustering, or one has fewer than 2 units.

    Source: classes found by k-means of spectra are those of HuBERT's first iteration (Hsu et al., arXiv 2106.07447,
    section 2.1); predicting the clusters of sounds from video is XDC's (Alwassel et al., arXiv 1911.12667, section 3),
    whose clusters are of learned features.

    Example:
        >>> units = SoundUnits([2])
        >>> sounds = torch.cat([torch.zeros(5, 1, 125, 80), torch.ones(5, 1, 125, 80)])
        >>> units.collect(sounds)
        >>> units.are_made, units.of(sounds)[0].unique().tolist()
        (True, [0, 1])
    """

    collected: Tensor
    num_collected: Tensor
    offset: Tensor
    projection: Tensor
    centres: Tensor

    def __init__(self, num_units: Sequence[int], *, seed: int = 0) -> None:
        super().__init__()
        if not num_units or min(num_units) < 2:
            raise ValueError(f"need at least one clustering, of 2 sound units or more, got {list(num_units)}")
        self.num_units, self.seed = tuple(num_units), seed
        self.num_needed = SAMPLES_PER_UNIT * max(num_units)
        dim = math.prod(GRID)
        self.register_buffer("collected", torch.zeros(self.num_needed, dim))
        self.register_buffer("num_collected", torch.zeros((), dtype=torch.int64))
        self.register_buffer("offset", torch.zeros(dim))
        self.register_buffer("projection", torch.zeros(dim, NUM_COMPONENTS))
        self.register_buffer("centres", torch.zeros(sum(num_units), NUM_COMPONENTS))
        # A number beside the buffer: reading that at each step would make a GPU wait.
        self._count = 0
        self.register_load_state_dict_post_hook(_take_count)  # type: ignore[no-untyped-call]

    @property
    def are_made(self) -> bool:
        """Whether enough sounds were collected."""
        return self._count == self.num_needed

    @torch.no_grad()
    def collect(self, audio: Tensor) -> None:
        """Take sounds, until there are enough to make the units of.

        Args:
            audio: This process's log-mel spectrograms (B, 1, frames, F), as many as every other's.
        """
        missing = self.num_needed - self._count
        if not missing:
            return
        patches = gather_without_gradient(sound_patches(audio))[:missing]
        self.collected[self._count : self._count + len(patches)] = patches.to(self.collected.dtype)
        self._count += len(patches)
        self.num_collected.fill_(self._count)
        if len(patches) == missing:
            self._make()

    def _make(self) -> None:
        points = self.collected.double().cpu()
        offset = points.mean(dim=0)
        # What never varies has no deviation, and tells nothing.
        scale = _inverse(points.std(dim=0))
        _, spread, components = torch.linalg.svd((points - offset) * scale, full_matrices=False)
        spread, components = spread[:NUM_COMPONENTS], components[:NUM_COMPONENTS]
        whitening = _inverse(spread / math.sqrt(len(points)))
        projection = torch.zeros(len(offset), NUM_COMPONENTS, dtype=points.dtype)
        projection[:, : len(spread)] = scale[:, None] * components.T * whitening
        points = (points - offset) @ projection
        centres = []
        for number, num_units in enumerate(self.num_units):
            clusters = kmeans(points, num_units, num_iterations=NUM_ITERATIONS, seed=self.seed + number)
            members = F.one_hot(clusters, num_units).to(points.dtype)
            centres.append(members.T @ points / members.sum(dim=0)[:, None])
        made = {"offset": offset, "projection": projection, "centres": torch.cat(centres)}
        for name, value in made.items():
            buffer = getattr(self, name)
            # One process's for all: another machine may round otherwise.
            buffer.copy_(sum_over_processes(value.to(buffer) * (rank() == 0)))

    @torch.no_grad()
    def of(self, audio: Tensor) -> list[Tensor]:
        """Return the units that sounds belong to.

        Args:
            audio: Log-mel spectrograms (B, 1, frames, F).

        Returns:
            For each clustering int64 (B,), from 0 to below its number of units.

        Raises:
            ValueError: If too few sounds were collected so far.
        """
        if not self.are_made:
            raise ValueError(f"there are no sound units yet: {self._count} of {self.num_needed} sounds were collected")
        with torch.autocast(audio.device.type, enabled=False):
            points = (sound_patches(audio).to(self.offset) - self.offset) @ self.projection
            return [
                torch.cdist(points, centres).argmin(dim=1)
                for centres in torch.split(self.centres, list(self.num_units))
            ]


def _inverse(x: Tensor) -> Tensor:
    """Return 1 / x, and 0 where x is nearly 0 beside the largest of x."""
    return torch.where(x > 1e-6 * x.max().clamp_min(1e-12), 1 / x, 0.0)


def _take_count(module: nn.Module, _: object) -> None:
    assert isinstance(module, SoundUnits)
    module._count = int(module.num_collected)
