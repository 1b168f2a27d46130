"""The encoders: from model inputs (clips, spectrograms) to features; by name, and with trained weights from files."""

from earmark.encoders.base import Encoder
from earmark.encoders.by_name import AUDIO_ENCODERS, VIDEO_ENCODERS, new_encoder
from earmark.encoders.hugging_face import HuggingFaceAudio, HuggingFaceVideo
from earmark.encoders.panns import PannsCnn
from earmark.encoders.published import PUBLISHED, WEIGHTS_VARIABLE, PublishedWeights, find_weights
from earmark.encoders.r2plus1d import R2Plus1D
from earmark.encoders.recognition import recognise
from earmark.encoders.spec_cnn import SpecCNN9
from earmark.encoders.torch_file import DamagedTorchFileError, TorchFileError, read_torch_file
from earmark.encoders.torchvision_video import S3D, MViT, Swin3D, VideoResNet
from earmark.encoders.weights import LoadedWeights, WeightsError, load_encoder, load_encoder_weights, save_encoder

__all__ = [
    "AUDIO_ENCODERS",
    "PUBLISHED",
    "S3D",
    "VIDEO_ENCODERS",
    "WEIGHTS_VARIABLE",
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
    "read_torch_file",
    "recognise",
    "save_encoder",
]
