"""The encoders by the names that the command line uses.

To add one: write its file beside this one, a subclass of `Encoder`, and give it a line in the table it belongs to.

Example:
    >>> encoder = new_encoder("avid_r2plus1d_18", width=8)
    >>> encoder.name, encoder.options, encoder.output_dim
    ('avid_r2plus1d_18', {'width': 8}, 64)
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from earmark.encoders.aisfx import AisfxCnn
from earmark.encoders.base import Encoder
from earmark.encoders.hugging_face import HuggingFaceAudio, HuggingFaceVideo
from earmark.encoders.panns import PannsCnn
from earmark.encoders.r2plus1d import R2Plus1D
from earmark.encoders.spec_cnn import SpecCNN9
from earmark.encoders.torchvision_video import S3D, MViT, Swin3D, VideoResNet

VIDEO_ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    "avid_r2plus1d_10": partial(R2Plus1D, 10),
    "avid_r2plus1d_18": partial(R2Plus1D, 18),
    "avid_r2plus1d_34": partial(R2Plus1D, 34),
    "r2plus1d_18": partial(VideoResNet, "r2plus1d_18"),
    "r3d_18": partial(VideoResNet, "r3d_18"),
    "mc3_18": partial(VideoResNet, "mc3_18"),
    "s3d": S3D,
    "mvit_v2_s": MViT,
    "swin3d_t": Swin3D,
    "hf_video": HuggingFaceVideo,
}
AUDIO_ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    "avid_spec_cnn_9": SpecCNN9,
    "cnn6": partial(PannsCnn, 6),
    "cnn10": partial(PannsCnn, 10),
    "cnn14": partial(PannsCnn, 14),
    "aisfx": AisfxCnn,
    "hf_audio": HuggingFaceAudio,
}

__all__ = ["AUDIO_ENCODERS", "VIDEO_ENCODERS", "new_encoder"]


def new_encoder(name: str, **options: Any) -> Encoder:
    """Return an encoder with random weights.

    Args:
        name: One of `VIDEO_ENCODERS` or `AUDIO_ENCODERS`.
        options: What its class takes, such as ``width``.

    Raises:
        ValueError: If there is no such encoder, or it has no such option.
        ImportError: If it needs a library that is not installed.
    """
    build = {**VIDEO_ENCODERS, **AUDIO_ENCODERS}.get(name)
    if build is None:
        raise ValueError(
            f"no encoder is called {name!r}; there are {', '.join(VIDEO_ENCODERS)} for video and "
            f"{', '.join(AUDIO_ENCODERS)} for audio"
        )
    try:
        inspect.signature(build).bind(**options)
    except TypeError as error:
        raise ValueError(f"encoder {name}: {error}") from error
    encoder = build(**options)
    encoder.name = name
    encoder.options = encoder.options or options
    return encoder
