"""Encoder weights out of checkpoints: AVID's, the original RepLAI code's, Earmark's own.

In the path of a sample: before it; the encoders start from these weights where they are asked for.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["WeightsError", "load_encoder_weights"]

PREFIXES = (
    "module.{kind}_model.",  # AVID, saved from several GPUs
    "{kind}_model.",
    "module.backbone.{kind}.",  # RepLAI, saved from several GPUs
    "backbone.{kind}.",  # RepLAI and Earmark
)


class WeightsError(ValueError):
    """A checkpoint that does not hold the weights asked for; the message names the file and the reason."""


def load_encoder_weights(encoder: nn.Module, path: str | Path, *, kind: Literal["video", "audio"] | str) -> None:
    """Fill an encoder with the weights that a checkpoint holds for it.

    The file is untrusted: nothing but tensors and plain data is read from it.

    Args:
        encoder: The encoder; every one of its weights must be in the file, with its shape.
        path: A torch file with the tensors under ``model``, or at its top.
        kind: Which encoder of the checkpoint: ``video`` or ``audio``.

    Raises:
        WeightsError: If the file cannot be read or does not hold exactly this encoder's weights.

    Example:
        >>> import tempfile
        >>> from earmark.encoders import SpecCNN9
        >>> path = Path(tempfile.mkdtemp()) / "avid.pth"
        >>> trained, fresh = SpecCNN9(width=4), SpecCNN9(width=4)
        >>> state = {f"module.audio_model.{key}": value for key, value in trained.state_dict().items()}
        >>> torch.save({"model": state}, path)
        >>> load_encoder_weights(fresh, path, kind="audio")
        >>> all(torch.equal(fresh.state_dict()[key], value) for key, value in trained.state_dict().items())
        True
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise WeightsError(f"{path}: not a checkpoint of tensors and plain data ({error})") from error
    tensors = state.get("model", state) if isinstance(state, dict) else None
    if not isinstance(tensors, dict):
        raise WeightsError(f"{path}: holds no weights by name")
    weights = _below_first_prefix(tensors, kind)
    if not weights:
        names = ", ".join(prefix.format(kind=kind) + "*" for prefix in PREFIXES)
        raise WeightsError(f"{path}: holds no {kind} encoder (looked for {names})")
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its {kind} encoder does not fit this one: {error}") from error


def _below_first_prefix(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    for prefix in (text.format(kind=kind) for text in PREFIXES):
        weights = {name.removeprefix(prefix): value for name, value in tensors.items() if str(name).startswith(prefix)}
        if weights:
            return weights
    return {}
