"""Where in the picture the evidence of a change lies: what covering a place takes from it.

Path of a sample: inputs of both clips, a place covered in both --encoder--> change --direction--> margin; the map is
how much it falls. Nothing about the encoder is asked but its output, so that maps of different encoders mean the same.

Source: Zeiler and Fergus, arXiv 1311.2901, section 4.2, with the margin of a difference in place of a class's score.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["NUM_PLACES", "occlusion_map"]

NUM_PLACES = 7  # along each side
PATCH_SHARE = 0.25  # of the side: neighbouring patches overlap by half
INPUTS_AT_ONCE = 16  # clips


@torch.no_grad()
def occlusion_map(
    encoder: nn.Module, before: Tensor, after: Tensor, direction: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the margin of a change, and how much of it each place carries.

    Args:
        encoder: Maps ``(B, 3, T, H, W)`` to ``(B, D)``; its mode is left as it is, so give it in evaluation mode.
        before: Normalized inputs of the clip before, ``(3, T, H, W)``; a place is covered with 0, the mean colour.
        after: Of the clip after.
        direction: Weights of the change of features, ``(D,)``; see `earmark.evaluation.order_probe.OrderProbe`.

    Returns:
        The margin of the pictures as they are, and the margin minus that with a square covered in all frames of both
        clips, ``(NUM_PLACES, NUM_PLACES)``, rows from the top: positive where the evidence lies, negative where what is
        seen speaks against it.

    Raises:
        ValueError: If the clips differ in shape.

    Example:
        >>> bright_corner = torch.zeros(3, 2, 16, 16)
        >>> bright_corner[..., :4, :4] = 1.0
        >>> margin, drops = occlusion_map(nn.Flatten(), torch.zeros(3, 2, 16, 16), bright_corner, np.ones(1536))
        >>> margin, drops[0, 0].item(), drops[4, 4].item()
        (96.0, 96.0, 0.0)
    """
    if before.shape != after.shape or before.ndim != 4:
        raise ValueError(f"need two clips (3, T, H, W) of one shape, got {before.shape} and {after.shape}")
    height, width = before.shape[2:]
    patch_height, patch_width = (max(1, round(PATCH_SHARE * side)) for side in (height, width))
    tops = np.linspace(0, height - patch_height, NUM_PLACES).round().astype(int)
    lefts = np.linspace(0, width - patch_width, NUM_PLACES).round().astype(int)
    pairs = [None, *((int(top), int(left)) for top in tops for left in lefts)]

    def covered(clip: Tensor, place: tuple[int, int] | None) -> Tensor:
        shown = clip.clone()
        if place is not None:
            top, left = place
            shown[:, :, top : top + patch_height, left : left + patch_width] = 0
        return shown

    margins: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(pairs), INPUTS_AT_ONCE // 2):
        some = pairs[start : start + INPUTS_AT_ONCE // 2]
        inputs = torch.stack([covered(clip, place) for clip in (before, after) for place in some])
        of_before, of_after = encoder(inputs).double().cpu().numpy().reshape(2, len(some), -1)
        margins.append((of_after - of_before) @ direction)
    found = np.concatenate(margins)
    return float(found[0]), (found[0] - found[1:]).reshape(NUM_PLACES, NUM_PLACES)
