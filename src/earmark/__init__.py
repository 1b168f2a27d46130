"""Earmark: state-aware video representations learned from audible interactions.

The names below are the public API; each is imported from its module at first use, so that ``import earmark`` is quick
and brings in neither media nor configuration nor training machinery.

Example:
    >>> import earmark, torch
    >>> loss = earmark.audible_state_change_loss
    >>> same = torch.ones(4, 8)
    >>> round(loss(change_forward=same, change_backward=-same, audio=same, temperature=1.0).item(), 4)
    0.3133
"""

from typing import TYPE_CHECKING

from earmark.lazy import lazy_names

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from earmark.clips.action_clips import ActionClips
    from earmark.clips.dataset import MomentClips, collate
    from earmark.clips.sampling import EpochBatches
    from earmark.clips.store import PreparedStore
    from earmark.clips.transforms import LogMel, VideoCrop
    from earmark.encoders import R2Plus1D, SpecCNN9
    from earmark.encoders.weights import load_encoder, save_encoder
    from earmark.evaluation.feature_files import load_features
    from earmark.evaluation.features import extract_features
    from earmark.evaluation.probe import linear_probe
    from earmark.evaluation.report import write_report
    from earmark.kitchen import make_kitchen
    from earmark.media import media_info
    from earmark.methods.heads import projection_head
    from earmark.methods.objectives import audible_state_change_loss, audio_visual_correspondence_loss
    from earmark.methods.replai import AudioVisualModel
    from earmark.moments import Moment, find_moments, moments_of_file
    from earmark.preparation.preparing import prepare
    from earmark.training.checkpoint import load_checkpoint
    from earmark.training.pretraining import pretrain

_MODULE_OF = {
    "ActionClips": "clips.action_clips",
    "AudioVisualModel": "methods.replai",
    "EpochBatches": "clips.sampling",
    "LogMel": "clips.transforms",
    "Moment": "moments",
    "MomentClips": "clips.dataset",
    "PreparedStore": "clips.store",
    "R2Plus1D": "encoders",
    "SpecCNN9": "encoders",
    "VideoCrop": "clips.transforms",
    "audible_state_change_loss": "methods.objectives",
    "audio_visual_correspondence_loss": "methods.objectives",
    "collate": "clips.dataset",
    "extract_features": "evaluation.features",
    "find_moments": "moments",
    "linear_probe": "evaluation.probe",
    "load_checkpoint": "training.checkpoint",
    "load_encoder": "encoders.weights",
    "load_features": "evaluation.feature_files",
    "make_kitchen": "kitchen",
    "moments_of_file": "moments",
    "prepare": "preparation.preparing",
    "pretrain": "training.pretraining",
    "media_info": "media",
    "projection_head": "methods.heads",
    "save_encoder": "encoders.weights",
    "write_report": "evaluation.report",
}

__all__ = [
    "ActionClips",
    "AudioVisualModel",
    "EpochBatches",
    "LogMel",
    "Moment",
    "MomentClips",
    "PreparedStore",
    "R2Plus1D",
    "SpecCNN9",
    "VideoCrop",
    "__version__",
    "audible_state_change_loss",
    "audio_visual_correspondence_loss",
    "collate",
    "extract_features",
    "find_moments",
    "linear_probe",
    "load_checkpoint",
    "load_encoder",
    "load_features",
    "make_kitchen",
    "media_info",
    "moments_of_file",
    "prepare",
    "pretrain",
    "projection_head",
    "save_encoder",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
