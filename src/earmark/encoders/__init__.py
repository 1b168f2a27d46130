"""The encoders by the names that the command line uses.

To add one: write its file beside these, a subclass of `Encoder`, and give it a line in the table it belongs to.

Example:
    >>> VIDEO_ENCODERS["avid_r2plus1d_18"](width=8).output_dim
    64
"""

from collections.abc import Callable, Mapping
from functools import partial

from earmark.encoders.base import Encoder
from earmark.encoders.r2plus1d import R2Plus1D
from earmark.encoders.spec_cnn import SpecCNN9

VIDEO_ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    "avid_r2plus1d_10": partial(R2Plus1D, 10),
    "avid_r2plus1d_18": partial(R2Plus1D, 18),
    "avid_r2plus1d_34": partial(R2Plus1D, 34),
}
AUDIO_ENCODERS: Mapping[str, Callable[..., Encoder]] = {"avid_spec_cnn_9": SpecCNN9}

__all__ = ["AUDIO_ENCODERS", "VIDEO_ENCODERS", "Encoder", "R2Plus1D", "SpecCNN9"]
