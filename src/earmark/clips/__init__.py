"""Prepared videos to batches of clips: reading by byte ranges, data sets, order, loading, augmentation on the device.

In the path of a sample this package stands between a prepared store and the inputs of a model.

The names below are imported from their modules at first use: reading a store (`PreparedStore`) needs no torch.
"""

from typing import TYPE_CHECKING

from earmark.lazy import lazy_names

if TYPE_CHECKING:
    from earmark.clips.collation import collate
    from earmark.clips.dataset import ActionClips, MomentClips
    from earmark.clips.loading import load_batches
    from earmark.clips.remote import is_url
    from earmark.clips.sampling import EpochBatches, epoch_order, sample_seed, uniform_draw
    from earmark.clips.splitmix64 import random_integers
    from earmark.clips.store import PreparedStore
    from earmark.clips.transforms import LogMel, VideoCrop, evenly_spaced
    from earmark.clips.windows import WindowClips, WindowOptions, plan_windows

_MODULE_OF = {
    "ActionClips": "dataset",
    "EpochBatches": "sampling",
    "LogMel": "transforms",
    "MomentClips": "dataset",
    "PreparedStore": "store",
    "VideoCrop": "transforms",
    "WindowClips": "windows",
    "WindowOptions": "windows",
    "collate": "collation",
    "epoch_order": "sampling",
    "evenly_spaced": "transforms",
    "is_url": "remote",
    "load_batches": "loading",
    "plan_windows": "windows",
    "random_integers": "splitmix64",
    "sample_seed": "sampling",
    "uniform_draw": "sampling",
}

__all__ = [
    "ActionClips",
    "EpochBatches",
    "LogMel",
    "MomentClips",
    "PreparedStore",
    "VideoCrop",
    "WindowClips",
    "WindowOptions",
    "collate",
    "epoch_order",
    "evenly_spaced",
    "is_url",
    "load_batches",
    "plan_windows",
    "random_integers",
    "sample_seed",
    "uniform_draw",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
