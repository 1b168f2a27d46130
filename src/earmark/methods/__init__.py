"""The methods that RepLAI (`earmark.methods.replai`) is compared with: same data, encoders, trainer and probes.

Each is a module whose forward takes clips before and after, sounds, and by keyword the samples' indices and labels, and
returns scalars, ``loss`` among them. State beside the weights (memory bank, cluster assignments) is in buffers, so that
checkpoints hold it. ``backbone.video`` and, where sound is used, ``backbone.audio`` are the encoders.
"""

from earmark.methods.avid import AVID
from earmark.methods.simclr_video import SimCLRVideo
from earmark.methods.supervised import Supervised
from earmark.methods.xdc import XDC

__all__ = ["AVID", "XDC", "SimCLRVideo", "Supervised"]
