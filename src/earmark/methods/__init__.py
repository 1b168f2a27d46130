"""The methods: RepLAI and those that it is compared with, on the same data, encoders, trainer and probes.

`earmark.methods.base.Method` says what a method is. To add one: write its file beside these and give it a line in
`METHODS`.
"""

from collections.abc import Mapping

from earmark.methods.avid import AVID
from earmark.methods.base import Embeddings, EpochAware, Method, Views
from earmark.methods.gathering import gather_with_gradient, gather_without_gradient
from earmark.methods.heads import heads_of_weights, projection_head
from earmark.methods.objectives import (
    audible_state_change_loss,
    audio_visual_correspondence_loss,
    contrastive_state_change_loss,
    l2_normalize,
    noise_contrastive_loss,
    nt_xent_loss,
    state_change_logits,
)
from earmark.methods.replai import (
    MIN_TEMPERATURE,
    AudioVisualModel,
    ClipPairOptions,
    ContrastiveOptions,
    MomentDetectionOptions,
    SoundUnitOptions,
    StateChangeOptions,
)
from earmark.methods.simclr_video import SimCLRVideo
from earmark.methods.sound_units import SoundUnits, sound_patches
from earmark.methods.supervised import Supervised
from earmark.methods.xdc import XDC

METHODS: Mapping[str, type[Method]] = {
    "replai": AudioVisualModel,
    "avid": AVID,
    "xdc": XDC,
    "simclr_video": SimCLRVideo,
    "supervised": Supervised,
}

__all__ = [
    "AVID",
    "METHODS",
    "MIN_TEMPERATURE",
    "XDC",
    "AudioVisualModel",
    "ClipPairOptions",
    "ContrastiveOptions",
    "Embeddings",
    "EpochAware",
    "Method",
    "MomentDetectionOptions",
    "SimCLRVideo",
    "SoundUnitOptions",
    "SoundUnits",
    "StateChangeOptions",
    "Supervised",
    "Views",
    "audible_state_change_loss",
    "audio_visual_correspondence_loss",
    "contrastive_state_change_loss",
    "gather_with_gradient",
    "gather_without_gradient",
    "heads_of_weights",
    "l2_normalize",
    "noise_contrastive_loss",
    "nt_xent_loss",
    "projection_head",
    "sound_patches",
    "state_change_logits",
]
