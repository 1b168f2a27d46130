"""A first convolution of few channels computed as one of many, and a max pool over space alone as a 2-D one.

In the path of a sample these stand at the entrance of the video encoder. Tensor cores and cuDNN's kernels for them are
made for tens of channels; clips have 3, and a third of a GPU's step went into the first convolution alone. Folding the
pixels that one step of the stride covers, and the frames that the kernel covers, into channels leaves the numbers as
they are and the arithmetic nearly so.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

__all__ = ["FoldedConv3d", "SpatialMaxPool3d", "folded_conv3d"]


def folded_conv3d(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int, int]) -> Tensor:
    """Convolve over time and space by a 2-D convolution of the input folded into channels.

    A kernel of C x K x 7 x 7 with stride 2 becomes one of 4 C K x 4 x 4 with stride 1: it is padded with zeros to the
    next multiple of the stride, then cut into the places that one step covers.

    Args:
        x: (B, C, T, H, W).
        weight: (D, C, K, P, Q): K frames, P x Q pixels.
        stride: Over height and width; that over time is 1.
        padding: Zeros at both ends of time, height and width.

    Returns:
        (B, D, T', H', W') as of `torch.nn.functional.conv3d`, with channels last.

    Example:
        >>> import torch
        >>> x, weight = torch.randn(2, 3, 4, 9, 10).double(), torch.randn(5, 3, 3, 7, 7).double()
        >>> folded = folded_conv3d(x, weight, stride=2, padding=(1, 3, 3))
        >>> expected = torch.nn.functional.conv3d(x, weight, stride=(1, 2, 2), padding=(1, 3, 3))
        >>> torch.allclose(folded, expected, rtol=1e-10)
        True
    """
    batch_size, channels, frames = x.shape[0], x.shape[1], x.shape[2] + 2 * padding[0] - weight.shape[2] + 1
    taps = [-(-size // stride) for size in weight.shape[3:]]
    places = [
        (size + 2 * pad - kernel) // stride + num_taps
        for size, pad, kernel, num_taps in zip(x.shape[3:], padding[1:], weight.shape[3:], taps, strict=True)
    ]
    # Behind, as much is added as fills the last place; where the last pixels are out of every kernel's reach, some are
    # taken away.
    after = [place * stride - size - pad for place, size, pad in zip(places, x.shape[3:], padding[1:], strict=True)]
    x = F.pad(x, (padding[2], after[1], padding[1], after[0], padding[0], padding[0]))
    x = x.unfold(2, weight.shape[2], 1)  # (B, C, T', H, W, K), as a view
    x = x.view(batch_size, channels, frames, places[0], stride, places[1], stride, weight.shape[2])
    x = x.permute(0, 2, 3, 5, 7, 1, 4, 6)  # (B, T', H / 2, W / 2, K, C, 2, 2)
    x = x.reshape(batch_size * frames, *places, -1).permute(0, 3, 1, 2)  # here alone the input is copied
    result = F.conv2d(x, _folded_weight(weight, stride, taps))
    return result.view(batch_size, frames, *result.shape[1:]).transpose(1, 2)


def _folded_weight(weight: Tensor, stride: int, taps: list[int]) -> Tensor:
    missing = [num_taps * stride - size for num_taps, size in zip(taps, weight.shape[3:], strict=True)]
    weight = F.pad(weight, (0, missing[1], 0, missing[0]))
    weight = weight.reshape(*weight.shape[:3], taps[0], stride, taps[1], stride)
    weight = weight.permute(0, 3, 5, 2, 1, 4, 6).reshape(len(weight), *taps, -1)
    return weight.permute(0, 3, 1, 2)  # with channels last, as the input


class FoldedConv3d(nn.Conv3d):
    """A 3-D convolution of few input channels, by `folded_conv3d` where that is faster, which is on GPUs.

    Everything else is `torch.nn.Conv3d`: arguments, names of weights, hooks. One whose arguments are later changed to
    what cannot be folded, such as a stride over time, is computed as usual.

    Example:
        >>> import torch
        >>> layer = FoldedConv3d(3, 4, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        >>> layer(torch.zeros(2, 3, 8, 32, 32)).shape
        torch.Size([2, 4, 8, 16, 16])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution (B, D, T', H', W') of (B, C, T, H, W)."""
        if self._pays(x) and self._can_fold():
            time, height, width = (int(size) for size in self.padding)
            return folded_conv3d(x, self.weight, stride=self.stride[1], padding=(time, height, width))
        return super().forward(x)

    def _pays(self, x: Tensor) -> bool:
        # On the CPU oneDNN has kernels for 3 channels, and a third more arithmetic is a third more time.
        return x.is_cuda

    def _can_fold(self) -> bool:
        return (
            self.stride[0] == 1
            and self.stride[1] == self.stride[2]
            and self.dilation == (1, 1, 1)
            and self.groups == 1
            and self.bias is None
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
        )


class SpatialMaxPool3d(nn.MaxPool3d):
    """A max pool of one frame at a time, on GPUs computed as a 2-D one: compilers fuse that, and not the 3-D one.

    Args:
        kernel_size: Over height and width.
        stride: Over height and width.
        padding: Over height and width.

    Example:
        >>> import torch
        >>> SpatialMaxPool3d(3, 2, 1)(torch.zeros(2, 4, 8, 16, 16)).shape
        torch.Size([2, 4, 8, 8, 8])
    """

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__((1, kernel_size, kernel_size), (1, stride, stride), (0, padding, padding))
        self._of_a_frame = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima (B, C, T, H', W') of (B, C, T, H, W)."""
        # Without channels last each frame would have to be copied.
        if not self._pays(x) or x.stride(1) != 1:
            usual: Tensor = super().forward(x)
            return usual
        frames = x.transpose(1, 2)
        pooled = F.max_pool2d(frames.flatten(0, 1), *self._of_a_frame)
        result: Tensor = pooled.view(*frames.shape[:2], *pooled.shape[1:]).transpose(1, 2)
        return result

    def _pays(self, x: Tensor) -> bool:
        return x.is_cuda  # a compiled step on the CPU is 6 % slower with it
