"""The encoders: from model inputs (clips, spectrograms) to features; by name, and with trained weights from files.

The names below are imported from their modules at first use: what a file of torch claims to hold (`read_outline`) can
be read without torch.
"""

from typing import TYPE_CHECKING

from earmark.lazy import lazy_names

if TYPE_CHECKING:
    from earmark.encoders.aisfx import AisfxCnn
    from earmark.encoders.base import Encoder, spectrogram_for
    from earmark.encoders.by_name import AUDIO_ENCODERS, VIDEO_ENCODERS, new_encoder
    from earmark.encoders.hugging_face import HuggingFaceAudio, HuggingFaceVideo
    from earmark.encoders.panns import PannsCnn
    from earmark.encoders.published import PUBLISHED, WEIGHTS_VARIABLE, PublishedWeights, find_weights
    from earmark.encoders.r2plus1d import R2Plus1D
    from earmark.encoders.recognition import recognise
    from earmark.encoders.spec_cnn import SpecCNN9
    from earmark.encoders.torch_file import read_torch_file
    from earmark.encoders.torch_outline import DamagedTorchFileError, TorchFileError, read_outline
    from earmark.encoders.torchvision_video import S3D, MViT, Swin3D, VideoResNet
    from earmark.encoders.weights import LoadedWeights, WeightsError, load_encoder, load_encoder_weights, save_encoder

_MODULE_OF = {
    "AUDIO_ENCODERS": "by_name",
    "AisfxCnn": "aisfx",
    "PUBLISHED": "published",
    "S3D": "torchvision_video",
    "VIDEO_ENCODERS": "by_name",
    "WEIGHTS_VARIABLE": "published",
    "DamagedTorchFileError": "torch_outline",
    "Encoder": "base",
    "HuggingFaceAudio": "hugging_face",
    "HuggingFaceVideo": "hugging_face",
    "LoadedWeights": "weights",
    "MViT": "torchvision_video",
    "PannsCnn": "panns",
    "PublishedWeights": "published",
    "R2Plus1D": "r2plus1d",
    "SpecCNN9": "spec_cnn",
    "Swin3D": "torchvision_video",
    "TorchFileError": "torch_outline",
    "VideoResNet": "torchvision_video",
    "WeightsError": "weights",
    "find_weights": "published",
    "load_encoder": "weights",
    "load_encoder_weights": "weights",
    "new_encoder": "by_name",
    "read_outline": "torch_outline",
    "read_torch_file": "torch_file",
    "recognise": "recognition",
    "save_encoder": "weights",
    "spectrogram_for": "base",
}

__all__ = [
    "AUDIO_ENCODERS",
    "PUBLISHED",
    "S3D",
    "VIDEO_ENCODERS",
    "WEIGHTS_VARIABLE",
    "AisfxCnn",
    "DamagedTorchFileError",
    "Encoder",
    "HuggingFaceAudio",
    "HuggingFaceVideo",
    "LoadedWeights",
    "MViT",
    "PannsCnn",
    "PublishedWeights",
    "R2Plus1D",
    "SpecCNN9",
    "Swin3D",
    "TorchFileError",
    "VideoResNet",
    "WeightsError",
    "find_weights",
    "load_encoder",
    "load_encoder_weights",
    "new_encoder",
    "read_outline",
    "read_torch_file",
    "recognise",
    "save_encoder",
    "spectrogram_for",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
