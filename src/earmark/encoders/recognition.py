"""Which encoder a set of weights belongs to, by their names and shapes, for files that do not say it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["recognise"]

# A tensor that only this encoder, or also those above it, has; and its kernel size where that tells two apart.
_MARKS: tuple[tuple[str, str, tuple[int, ...] | None], ...] = (
    ("avid_r2plus1d_34", "conv4x.5.spt_conv1.weight", None),
    ("avid_r2plus1d_18", "conv4x.1.spt_conv1.weight", None),
    ("avid_r2plus1d_10", "conv4x.spt_conv1.weight", None),
    ("r2plus1d_18", "layer1.0.conv1.0.3.weight", None),
    ("r3d_18", "layer2.0.conv1.0.weight", (3, 3, 3)),
    ("mc3_18", "layer2.0.conv1.0.weight", (1, 3, 3)),
    ("s3d", "features.0.0.0.weight", None),
    ("mvit_v2_s", "pos_encoding.class_token", None),
    ("swin3d_t", "patch_embed.proj.weight", None),
    ("avid_spec_cnn_9", "block4.conv2.weight", None),
    ("aisfx", "embedding_net.conv_block4.conv2.weight", None),
    ("cnn14", "conv_block6.conv2.weight", None),
    ("cnn10", "conv_block4.conv2.weight", None),
    ("cnn6", "conv_block4.conv1.weight", None),
)


def recognise(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """Return the name of the encoder that these weights belong to, and its options; None if it is not known.

    It looks at a few tensors only, so weights of a similar network may pass; loading them, which is strict, refuses
    them.

    Args:
        weights: The tensors by their names inside the encoder.

    Example:
        >>> from earmark.encoders import new_encoder
        >>> recognise(new_encoder("avid_r2plus1d_10", width=4).state_dict())
        ('avid_r2plus1d_10', {'width': 4})
    """
    for name, mark, kernel in _MARKS:
        if mark in weights and kernel in (None, tuple(weights[mark].shape[2:])):
            if name.startswith("avid_") and "conv1.0.weight" in weights and weights["conv1.0.weight"].ndim:
                return name, {"width": len(weights["conv1.0.weight"])}
            first = weights.get("embedding_net.conv_block1.conv1.weight")
            if name == "aisfx" and first is not None and first.ndim:
                return name, {"width": len(first)}
            if name.startswith("cnn") and "bn0.weight" in weights and weights["bn0.weight"].ndim:
                return name, {"num_mels": len(weights["bn0.weight"])}
            return name, {}
    return None
