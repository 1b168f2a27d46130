"""The projection heads of a checkpoint, where its method trained any.

Beside the path of a sample: part of `earmark.cli.judged`, for the tasks that are about moments.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from earmark.encoders import Encoder
    from earmark.evaluation import Modality, ProjectionHeads

__all__ = ["holds_audio_encoder", "own_heads", "trained_heads"]

# What `earmark.evaluation.ProjectionHeads` calls a head: its name in the method's weights.
CORRESPONDENCE = {"clip": "video_clr", "sound": "audio_clr"}
STATE_CHANGE = {"state": "video_aot", "change": "aot_diff", "change_sound": "audio_aot"}
OF_AVID = {"clip": "video", "sound": "audio"}
# Whose features it takes; the head of the change takes states.
TAKES: "Mapping[str, Modality]" = {"clip": "video", "state": "video", "sound": "audio", "change_sound": "audio"}


def trained_heads(stored: Mapping[str, Any]) -> dict[str, str]:
    """Return which heads a run trained: those of an objective without weight in the sum stay as they were drawn.

    Args:
        stored: The configuration in its checkpoint.

    Example:
        >>> args = {"clr_coeff": 0.5, "aot_coeff": 0.0}
        >>> trained_heads({"criterion": {"name": "ssrl_audiopeak_aotv2", "args": args}})
        {'clip': 'video_clr', 'sound': 'audio_clr'}
    """
    criterion = stored.get("criterion")
    if not isinstance(criterion, Mapping):
        return {}
    args = criterion.get("args")
    if criterion.get("name") == "avid":
        return dict(OF_AVID)
    if criterion.get("name") != "ssrl_audiopeak_aotv2" or not isinstance(args, Mapping):
        return {}
    heads: dict[str, str] = {}
    for key, names in (("clr_coeff", CORRESPONDENCE), ("aot_coeff", STATE_CHANGE)):
        weight = args.get(key)
        if isinstance(weight, int | float) and weight > 0:
            heads |= names
    return heads


def holds_audio_encoder(state: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint of Earmark holds an audio encoder; methods without sound have none.

    Args:
        state: What was read of it.
    """
    return any(name.startswith("backbone.audio.") for name in _weights(state, "model"))


def own_heads(
    path: Path,
    state: Mapping[str, Any],
    stored: Mapping[str, Any],
    *,
    weights: Literal["ema", "model"],
    encoders: "Mapping[Modality, Encoder]",
) -> "ProjectionHeads | None":
    """Return the trained heads of a checkpoint; None where its method has none.

    Args:
        path: Of the checkpoint.
        state: What was read of it.
        stored: The configuration in it.
        weights: Which weights the encoders have; the heads have the same.
        encoders: Both, loaded from it.

    Raises:
        earmark.training.checkpoint.CheckpointError: If a head that its method has is not there, is damaged, or does not
            fit the encoder.
    """
    from earmark.evaluation import ProjectionHeads
    from earmark.methods import heads_of_weights
    from earmark.training.checkpoint import CheckpointError

    names = trained_heads(stored)
    if not names:
        return None
    try:
        heads = heads_of_weights(_weights(state, weights), names.values())
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for role, modality in TAKES.items():
        if role in names:
            takes, gives = heads[names[role]][0].in_features, encoders[modality].output_dim
            if takes != gives:
                raise CheckpointError(
                    f"{path}: its head {names[role]} takes {takes} features, its {modality} encoder gives {gives}"
                )
    given = {role: heads[name] for role, name in names.items()}
    args = stored["criterion"].get("args")
    normalize = isinstance(args, Mapping) and args.get("normalise_states") is True
    return ProjectionHeads(encoders, **given, normalize_states=normalize)


def _weights(state: Mapping[str, Any], which: str) -> "dict[str, Tensor]":
    """Return weights by their names without the wrappers of averages and of compiled modules."""
    from torch import Tensor

    held = state.get(which)
    return {
        str(name).replace("_orig_mod.", "").removeprefix("module."): value
        for name, value in (held.items() if isinstance(held, Mapping) else ())
        if isinstance(value, Tensor)
    }
