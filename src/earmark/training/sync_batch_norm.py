"""Batch norm over the samples of all processes, so that N processes learn what one would.

In the path of a sample it stands in for the encoders' batch norm where a run has several processes. On GPUs this is
PyTorch's own SyncBatchNorm; that one refuses the CPU, which gets `CPUSyncBatchNorm`, of the same arithmetic.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from earmark.methods.gathering import world_size

__all__ = ["CPUSyncBatchNorm", "with_sync_batch_norm"]


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm whose statistics in training are those of every process's samples together.

    It has the parameters and buffers of the batch norm it stands in for, for inputs (B, C, ...) of any rank. Backward
    sums over the processes what each one's loss asks of the statistics; with the mean over processes that
    DistributedDataParallel takes, gradients are those of one process on all the samples.

    Example:
        >>> layer = CPUSyncBatchNorm(3)
        >>> layer(torch.randn(4, 3, 2, 5, 5)).shape
        torch.Size([4, 3, 2, 5, 5])
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel.

        Args:
            x: (B, C, ...).

        Returns:
            The same shape.
        """
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.new_tensor(x.numel() / x.size(1))
        sums = _sum_over_processes(torch.cat([x.sum(axes), count[None]]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean.view(shape)
        squares = _sum_over_processes(centred.square().sum(axes))
        variance = squares / total
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * total / (total - 1))
        output = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            output = output * self.weight.view(shape)
        return output if self.bias is None else output + self.bias.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), share)


def with_sync_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Put batch norm over all processes in the place of every batch norm, with its parameters and buffers.

    Args:
        module: The model; changed in place, unless it is a batch norm itself.
        device: Where it will run.

    Returns:
        The model.

    Example:
        >>> model = with_sync_batch_norm(nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)), torch.device("cpu"))
        >>> type(model[1]).__name__
        'CPUSyncBatchNorm'
    """
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        synced = CPUSyncBatchNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        synced.train(module.training)
        for kind in ("_parameters", "_buffers"):  # the very same, so that an optimizer keeps hold of them
            getattr(synced, kind).update(getattr(module, kind))
        return synced
    for name, child in module.named_children():
        setattr(module, name, with_sync_batch_norm(child, device))
    return module


def _sum_over_processes(x: Tensor) -> Tensor:
    # A compiled encoder breaks its graph here instead of tracing the collective.
    total: Tensor = torch.compiler.disable(_SumOverProcesses.apply)(x)  # type: ignore[no-untyped-call]
    return total


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes; backward is the same sum of what each process's loss asks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
