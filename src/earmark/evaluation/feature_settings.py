"""What features of videos depend on: encoders, places, data, and how they are computed and kept.

Path of a sample: encoders + options --settings--> the files of `earmark.evaluation.feature_writing`. Files of other
settings are never mixed, and a file whose settings are the same is not made again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from earmark import __version__
from earmark.clips.store import PreparedStore
from earmark.clips.windows import VideoWindows, WindowOptions
from earmark.evaluation.feature_cache import _declared, encoder_fingerprint
from earmark.evaluation.feature_files import FORMAT_VERSION, Format, require_format
from earmark.evaluation.feature_index import FeatureSettingsError, compared_settings
from earmark.evaluation.features import Modality

__all__ = ["FeatureModel", "FeatureWriting", "check_settings", "digest_of", "feature_settings", "video_settings"]


@dataclass(frozen=True, slots=True)
class FeatureModel:
    """An encoder with what makes its inputs.

    Attributes:
        encoder: Maps inputs to (B, D); it is moved to the device and left there, in its own mode.
        transform: Makes inputs of clips, as `earmark.clips.transforms.VideoCrop`, or of sound, as `LogMel`. It must not
            draw: a place has one feature.
        name: What the encoder is, in words, for whoever reads the file.
    """

    encoder: nn.Module
    transform: nn.Module
    name: str


@dataclass(frozen=True, slots=True)
class FeatureWriting:
    """How features are computed and kept.

    Attributes:
        format: Of the files.
        part: (k, n): of all videos, in their order, only every n-th from the k-th on.
        batch_size: Places per batch.
        num_workers: Processes that read clips; 0 reads between computing.
        device: Where the encoders run.
        bfloat16: Compute in bfloat16; on GPUs alone.
        progress: Show a progress bar.
    """

    format: Format = "npz"
    part: tuple[int, int] = (1, 1)
    batch_size: int = 64
    num_workers: int = 0
    device: torch.device | str = "cpu"
    bfloat16: bool = False
    progress: bool = False


def check_settings(models: Mapping[Modality, FeatureModel], writing: FeatureWriting) -> None:
    """Refuse what no features can be written with.

    Raises:
        FeatureSettingsError: If bfloat16 is asked for on the CPU.
        FeatureFileError: If the format needs a library that is not installed.
        ValueError: If there is no model, a part or a batch size is out of range, or a transform draws at random.
    """
    if not models:
        raise ValueError("no model is given")
    if writing.bfloat16 and torch.device(writing.device).type != "cuda":
        raise FeatureSettingsError("bfloat16 is for GPUs: on the CPU it is slower, and not exact")
    if not 1 <= writing.part[0] <= writing.part[1] or writing.batch_size < 1:
        raise ValueError(f"need a part (k, n) with k from 1 to n and batches of at least one, got {writing}")
    if any(getattr(model.transform, "random", False) for model in models.values()):
        raise ValueError("the transform draws at random: features of a place would not be the same twice")
    require_format(writing.format)


def feature_settings(
    store: PreparedStore, options: WindowOptions, models: Mapping[Modality, FeatureModel], writing: FeatureWriting
) -> dict[str, Any]:
    """Return what all files of a folder have in common, as plain data."""
    places = {name: value for name, value in asdict(options).items() if value is not None}
    if "audio" not in models:
        del places["audio_seconds"]
    if "video" in models:
        places["frames_per_clip"] = round(options.window_seconds * options.fps)
    else:
        del places["fps"]
    encoders = {}
    for modality, model in models.items():
        encoders[modality] = {
            "model": model.name,
            **encoder_fingerprint(model.encoder),
            "parameters": _declared(model.encoder, "encoder"),
            "transform": _declared(model.transform, "transform"),
        }
    return {
        "format_version": FORMAT_VERSION,
        "earmark": __version__,
        "format": writing.format,
        **places,
        "precision": "bfloat16" if writing.bfloat16 else "float32",
        "encoders": encoders,
        "prepared": store.parameters,
    }


def video_settings(store: PreparedStore, windows: VideoWindows, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the features of one video depend on, as plain data, and the digest of it.

    Args:
        store: Where the video is prepared.
        windows: Its places.
        settings: What it has in common with the others, of `feature_settings`.
    """
    video = store.videos[windows.video_id]
    data = hashlib.sha256(json.dumps(store.parameters, sort_keys=True).encode())
    # of this video alone, so that features stay valid when others are added to the store
    content = [video.video_id, video.num_frames, video.num_samples, video.num_bytes, video.file_digest]
    data.update(json.dumps(content).encode())
    data.update(windows.times_seconds.tobytes())
    for name, values in sorted(windows.columns.items()):
        data.update(f"{name}:".encode() + json.dumps(values.tolist()).encode())
    return {
        **settings,
        "video_id": windows.video_id,
        "source": video.path,
        "duration_seconds": video.duration_seconds,
        "num_rows": len(windows.times_seconds),
        "data_fingerprint": data.hexdigest(),
        "digest": digest_of([compared_settings(settings), data.hexdigest()]),
    }


def digest_of(content: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
