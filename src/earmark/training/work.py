"""How fast a run works, in floating-point operations a second and as a share of what its device can do.

Beside the path of a sample: the loop has the work of a sample counted and the device's peak measured once, at its first
batch, and tells both with the numbers of its steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from earmark.training.flops import WorkNotCountedError, flops_per_sample, peak_dtype, peak_flops_per_second

__all__ = ["Work"]

TERA, GIGA = 1e12, 1e9


@dataclass(kw_only=True)
class Work:
    """The work of a sample, and the peak of the devices that do it.

    Attributes:
        device: What the run computes on.
        precision: Of the run, as Lightning Fabric names it.
        num_devices: Devices of the run, each with as high a peak.
        is_unknown: Whether `measure` was not called yet.

    Example:
        >>> work = Work(device=torch.device("cpu"), precision="32-true", num_devices=1)
        >>> work.rates(samples_per_second=100.0)  # nothing is known yet
        {}
    """

    device: torch.device
    precision: str
    num_devices: int
    is_unknown: bool = field(default=True, init=False)
    _flops: float | None = field(default=None, init=False)
    _peak: float = field(default=0.0, init=False)

    def measure(self, model: nn.Module, inputs: tuple[Tensor, ...], *, labels: Mapping[str, Tensor]) -> str | None:
        """Count the work of a sample, and measure the peak of the device.

        Args:
            model: The bare model.
            inputs: What it takes; the shapes count.
            labels: By name.

        Returns:
            A line for the user where the work can't be counted, else None.
        """
        self.is_unknown = False
        self._peak = peak_flops_per_second(self.device, self._dtype)
        try:
            self._flops = flops_per_sample(model, inputs, labels=labels)
        except WorkNotCountedError as error:
            return f"note: no TFLOP/s are shown, for the model's operations can't be counted ({error})"
        return None

    def facts(self) -> dict[str, float]:
        """Return what was found, for the metrics; the name of the peak says which type was multiplied."""
        name = f"peak_tflops_per_second_{str(self._dtype).removeprefix('torch.')}"
        counted = {} if self._flops is None else {"gflops_per_sample": self._flops / GIGA}
        return counted | {name: self._peak / TERA}

    def rates(self, samples_per_second: float) -> dict[str, float]:
        """Return the operations per second of all devices, and their share of the peak."""
        if self._flops is None:
            return {}
        flops_per_second = self._flops * samples_per_second
        return {
            "tflops_per_second": flops_per_second / TERA,
            "peak_share": flops_per_second / (self._peak * self.num_devices),
        }

    @property
    def _dtype(self) -> torch.dtype:
        return peak_dtype(self.precision, self.device)
