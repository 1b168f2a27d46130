"""Prepared videos to batches of clips: reading by byte ranges, data sets, order, loading, augmentation on the device.

In the path of a sample this package stands between a prepared store and the inputs of a model.

The names below are imported from their modules at first use: reading a store (`PreparedStore`) needs no torch.
"""

from typing import TYPE_CHECKING

from earmark.lazy import lazy_names

if TYPE_CHECKING:
    from earmark.clips.action_clips import ActionClips
    from earmark.clips.collation import collate
    from earmark.clips.dataset import MomentClips
    from earmark.clips.loading import load_batches
    from earmark.clips.remote import is_url
    from earmark.clips.sampling import EpochBatches, epoch_order, sample_seed, uniform_draw
    from earmark.clips.sound_augmentation import (
        AugmentedLogMel,
        SoundAugmentation,
        change_loudness,
        mask_spectrograms,
        mix_sounds,
    )
    from earmark.clips.splitmix64 import random_integers
    from earmark.clips.store import PreparedStore
    from earmark.clips.transforms import LogMel, VideoCrop, evenly_spaced
    from earmark.clips.windows import WindowClips, WindowOptions, plan_windows

_MODULE_OF = {
    "ActionClips": "action_clips",
    "AugmentedLogMel": "sound_augmentation",
    "EpochBatches": "sampling",
    "LogMel": "transforms",
    "MomentClips": "dataset",
    "PreparedStore": "store",
    "SoundAugmentation": "sound_augmentation",
    "VideoCrop": "transforms",
    "WindowClips": "windows",
    "WindowOptions": "windows",
    "change_loudness": "sound_augmentation",
    "collate": "collation",
    "epoch_order": "sampling",
    "evenly_spaced": "transforms",
    "is_url": "remote",
    "load_batches": "loading",
    "mask_spectrograms": "sound_augmentation",
    "mix_sounds": "sound_augmentation",
    "plan_windows": "windows",
    "random_integers": "splitmix64",
    "sample_seed": "sampling",
    "uniform_draw": "sampling",
}

__all__ = [
    "ActionClips",
    "AugmentedLogMel",
    "EpochBatches",
    "LogMel",
    "MomentClips",
    "PreparedStore",
    "SoundAugmentation",
    "VideoCrop",
    "WindowClips",
    "WindowOptions",
    "change_loudness",
    "collate",
    "epoch_order",
    "evenly_spaced",
    "is_url",
    "load_batches",
    "mask_spectrograms",
    "mix_sounds",
    "plan_windows",
    "random_integers",
    "sample_seed",
    "uniform_draw",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
