"""How a model is laid out and run, which changes its speed and not what it computes.

Beside the path of a sample: the commands call this before training; `benchmarks/train_step.py` measures it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name


class PlanarConv3d(nn.Conv3d):
    """A 3-D convolution whose kernel is flat in time or in space, computed as a 2-D one over the other axes.

    The 2-D kernels of every backend are better kept than the 3-D ones. With channels last the folding copies nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return what `torch.nn.Conv3d` does of (B, C, T, H, W)."""
        num_samples, _, num_frames, height, width = x.shape
        if self.kernel_size[0] == 1:  # each frame is a picture
            frames = x.transpose(1, 2).flatten(0, 1)
            padding = (int(self.padding[1]), int(self.padding[2]))
            y = F.conv2d(frames, self.weight.squeeze(2), self.bias, self.stride[1:], padding, groups=self.groups)
            return torch.unflatten(y, 0, (num_samples, num_frames)).transpose(1, 2)
        stride, padding = (self.stride[0], 1), (int(self.padding[0]), 0)
        y = F.conv2d(x.flatten(3), self.weight.squeeze(4), self.bias, stride, padding, groups=self.groups)
        return torch.unflatten(y, 3, (height, width))


def use_planar_convolutions(module: nn.Module) -> None:
    """Compute 3-D convolutions that are flat in time or in space as 2-D ones, in place; weights and names stay.

    Args:
        module: Any module; its factorised convolutions, as R(2+1)D's are, are changed, full 3-D ones are not.

    Example:
        >>> layers = nn.Sequential(nn.Conv3d(4, 8, (1, 3, 3)), nn.Conv3d(8, 8, 3))
        >>> use_planar_convolutions(layers)
        >>> [type(layer).__name__ for layer in layers]
        ['PlanarConv3d', 'Conv3d']
    """
    for layer in module.modules():
        if type(layer) is nn.Conv3d and _is_planar(layer):
            layer.__class__ = PlanarConv3d  # the same parameters and hooks, another forward


def _is_planar(layer: nn.Conv3d) -> bool:
    if set(layer.dilation) != {1} or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    axes = list(zip(layer.kernel_size, layer.stride, layer.padding, strict=True))
    untouched = (1, 1, 0)
    return axes[0] == untouched or axes[1:] == [untouched, untouched]


def use_channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions out with channels last, in place; inputs then follow them.

    Convolutions take their layout from their weights, and pass it on, so nothing else need be told.

    Args:
        module: Any module; weights of 2-D and of 3-D convolutions are changed.

    Example:
        >>> layer = nn.Conv3d(4, 8, 3)
        >>> use_channels_last(layer)
        >>> layer(torch.zeros(2, 4, 5, 6, 6)).is_contiguous(memory_format=torch.channels_last_3d)
        True
    """
    for parameter in module.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)


def compile_encoders(model: nn.Module) -> None:
    """Compile the encoders of a model, in place: nearly all of a step's work is theirs.

    Names of weights stay as they are. The compiler runs at the first step, and again where shapes change. On the CPU it
    needs a C++ compiler.

    Args:
        model: A model whose ``backbone`` holds the encoders by name.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> from earmark.model import AudioVisualModel
        >>> model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
        >>> compile_encoders(model)
        >>> any("_orig_mod" in key for key in model.state_dict())
        False
    """
    encoders = model.get_submodule("backbone").children()
    for encoder in encoders:
        # For each shape anew: both encoders share one forward, whose shapes would otherwise be taken as variable, which
        # the compiler cannot do for planar convolutions and does slower for others.
        encoder.compile(dynamic=False)
