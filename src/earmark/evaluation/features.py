"""Frozen features of labelled clips, computed once and kept on disk.

Path of a sample: clips --transforms--> model inputs --encoder--> features --probe--> scores. The encoder is only looked
at: evaluation mode (batch norm uses its running statistics and does not change them), no gradient, float32.

A cached array is ``KEY.npy`` with ``KEY.json`` beside it. KEY is the SHA-256 of everything that the features depend on;
the json says what that was in plain words.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from earmark.atomic import replacing
from earmark.clips.dataset import collate
from earmark.clips.loading import load_batches

__all__ = ["FeatureKey", "LabelledClips", "describe", "extract_features", "feature_key"]

_FORMAT_VERSION = 1  # raised when the same inputs would give other features

_logger = logging.getLogger(__name__)


class LabelledClips(Protocol):
    """What evaluation needs of a labelled data set; `earmark.clips.dataset.ActionClips` is one.

    Attributes:
        action_of_item: Which action each item is a clip of, int64 ``(num_items,)``; every action has as many clips.
        labels: Class ids of each label column, int64 ``(num_actions,)``; -1 where an action has none.
    """

    action_of_item: npt.NDArray[np.int64]
    labels: dict[str, npt.NDArray[np.int64]]

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of a key ``(index, seed)``, as the labelled batch contract has it."""


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureKey:
    """Name of an array of features: what it depends on.

    Attributes:
        content: What the features depend on, as json with sorted keys.
    """

    content: str

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def feature_key(
    encoder: nn.Module,
    *,
    clip_parameters: Mapping[str, Any],
    transform_parameters: Mapping[str, Any],
    fingerprint: str,
) -> FeatureKey:
    """Return the key under which features are cached: equal keys mean equal features.

    It covers every parameter and buffer of the encoder and its structure (as printed), the clips and the transform by
    their parameters, and the videos by the fingerprint.

    Args:
        encoder: Maps clips to features.
        clip_parameters: Which clips are cut and how, for example `describe` of the data set; plain data.
        transform_parameters: How clips become inputs, for example `describe` of the transform; plain data.
        fingerprint: Identifies the data, for example ``PreparedStore.fingerprint``.

    Example:
        >>> options = {"clip_parameters": {"clip_seconds": 0.5}, "transform_parameters": {}, "fingerprint": "kitchen"}
        >>> key = feature_key(nn.Identity(), **options)
        >>> len(key.digest), json.loads(key.content)["fingerprint"]
        (64, 'kitchen')
    """
    content = {
        "format_version": _FORMAT_VERSION,
        "encoder": type(encoder).__name__,
        "encoder_structure": _sha256(repr(encoder).encode()),
        "encoder_weights": _sha256(
            *(part for name, value in sorted(encoder.state_dict().items()) for part in _tensor_bytes(name, value))
        ),
        "clips": dict(clip_parameters),
        "transform": dict(transform_parameters),
        "fingerprint": fingerprint,
    }
    return FeatureKey(json.dumps(content, sort_keys=True))


def describe(thing: object) -> dict[str, Any]:
    """Return the attributes of a data set or transform that say what it does, as plain data.

    Numbers, strings and short tuples stand as they are; arrays, tensors and lists of records (such as the actions) as a
    SHA-256 of their content. Anything else, such as an open store, is left out: that is what a fingerprint is for.

    Args:
        thing: For example an `earmark.clips.dataset.ActionClips`, or a transform.

    Example:
        >>> class Crop:
        ...     def __init__(self):
        ...         self.size, self.flip = 112, False
        >>> describe(Crop())
        {'class': 'Crop', 'flip': False, 'size': 112}
    """
    described = {"class": type(thing).__name__}
    attributes = dict(vars(thing))
    if isinstance(thing, nn.Module):
        attributes = {name: value for name, value in attributes.items() if name not in vars(nn.Module())}
        attributes |= thing._parameters | thing._buffers | thing._modules
    for name, value in sorted(attributes.items()):
        plain = _plain(value)
        if plain is not None:
            described[name] = plain
    return described


def extract_features(
    encoder: nn.Module,
    clips: LabelledClips,
    *,
    transform: nn.Module,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    seed: int = 0,
    cache_dir: Path | None = None,
    cache_key: FeatureKey | None = None,
    progress: bool = False,
    progress_label: str = "features",
) -> npt.NDArray[np.float32]:
    """Return the encoder's features of every clip of every action.

    The encoder and the transform are moved to `device` and left there; the encoder's train or eval mode is restored.

    Args:
        encoder: Maps ``(B, 3, T, H, W)`` float to ``(B, D)``.
        clips: Items keyed by ``(index, seed)``, as `earmark.clips.dataset.ActionClips`.
        transform: Called as ``transform(video, seed, video_size)`` on the device, as
            `earmark.clips.transforms.VideoCrop`.
        batch_size: Clips a batch; the features do not depend on it.
        num_workers: Threads that read clips; 0 reads in the one that computes.
        device: Where the encoder runs.
        seed: From which each item's own seed is drawn; matters for clips or transforms that draw.
        cache_dir: Folder to keep features in; made if missing.
        cache_key: What they depend on, by `feature_key`; with `cache_dir` only.
        progress: Show a progress bar.
        progress_label: What the bar is called.

    Returns:
        float32, shape ``(num_actions, num_clips, D)``.

    Raises:
        ValueError: If actions have different numbers of clips, the encoder returns something else than ``(B, D)`` or
            numbers that are not finite, or only one of `cache_dir` and `cache_key` is given.
    """
    if (cache_dir is None) != (cache_key is None):
        raise ValueError("cache_dir and cache_key go together: give both or neither")
    num_items = len(clips)
    action_of_item = np.asarray(clips.action_of_item)
    num_actions = int(action_of_item.max()) + 1 if num_items else 0
    clips_of_action = np.bincount(action_of_item, minlength=num_actions)
    if num_items == 0 or len(action_of_item) != num_items or len(set(clips_of_action.tolist())) != 1:
        raise ValueError(f"every action needs as many clips; {num_items} items of {num_actions} actions")
    if cache_dir is not None and cache_key is not None:
        cached = _load(cache_dir, cache_key)
        if cached is not None and cached.shape[:2] == (num_actions, clips_of_action[0]):
            return cached

    # Moved here and not in `_run`: weights that are moved in inference mode can't be trained afterwards.
    encoder.to(device)
    transform.to(device)
    features = _run(
        encoder, clips, transform, batch_size, num_workers, torch.device(device), seed, progress, progress_label
    )
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(f"features of item {int(bad.argmax())} (and {int(bad.sum()) - 1} more) are not finite")
    order = np.argsort(action_of_item, kind="stable")
    features = features[order].reshape(num_actions, clips_of_action[0], -1)
    if cache_dir is not None and cache_key is not None:
        _save(cache_dir, cache_key, features)
    return features


@torch.inference_mode()
def _run(
    encoder: nn.Module,
    clips: LabelledClips,
    transform: nn.Module,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    seed: int,
    progress: bool,
    progress_label: str,
) -> npt.NDArray[np.float32]:
    """Return the features of every item, shape (num_items, D)."""
    seeds = np.random.default_rng(seed).integers(2**63, size=len(clips)).tolist()
    keys = list(enumerate(seeds))
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    loaded = load_batches(clips, batches, collate_fn=collate, num_workers=num_workers, device=device)
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    features: npt.NDArray[np.float32] | None = None
    try:
        screen = Console(stderr=True)
        for batch in track(loaded, progress_label, total=len(batches), console=screen, disable=not progress):
            output = encoder(transform(batch["video"], batch["seed"], batch["video_size"]))
            if output.ndim != 2:
                raise ValueError(f"an encoder must return features (B, D), got shape {tuple(output.shape)}")
            if features is None:
                features = np.empty((len(clips), output.shape[1]), dtype=np.float32)
            features[batch["index"].cpu().numpy()] = output.float().cpu().numpy()
    finally:
        for module, mode in modes.items():
            module.training = mode
    assert features is not None  # there is at least one item
    return features


def _load(cache_dir: Path, key: FeatureKey) -> npt.NDArray[np.float32] | None:
    """Return cached features, or None with a line in the log if they are damaged."""
    array_path, sidecar_path = cache_dir / f"{key.digest}.npy", cache_dir / f"{key.digest}.json"
    if not sidecar_path.exists():  # written last: without it there is nothing
        return None
    try:
        sidecar = json.loads(sidecar_path.read_text())
        if sidecar["key"] != json.loads(key.content):
            raise ValueError(f"{sidecar_path.name} describes something else")
        if sidecar["sha256"] != _sha256(array_path.read_bytes()):
            raise ValueError(f"{array_path.name} is not what was written")
        return cast("npt.NDArray[np.float32]", np.load(array_path, allow_pickle=False))
    except (OSError, ValueError, KeyError, TypeError) as error:
        _logger.warning("%s: damaged feature cache (%s); computing the features again", array_path, error)
        return None


def _save(cache_dir: Path, key: FeatureKey, features: npt.NDArray[np.float32]) -> None:
    """Write the array, then the json that makes it valid."""
    array_path = cache_dir / f"{key.digest}.npy"
    with replacing(array_path) as temporary:
        np.save(temporary, features, allow_pickle=False)
    sidecar = {
        "shape": features.shape,
        "sha256": _sha256(array_path.read_bytes()),
        "key": json.loads(key.content),
    }
    with replacing(array_path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(sidecar, indent=2, sort_keys=True) + "\n")


def _plain(value: object) -> Any:
    """Return a value as json can hold it, long ones as their SHA-256; None for what has no plain content."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, nn.Module):
        return describe(value)
    if isinstance(value, torch.Tensor):
        return "sha256 " + _sha256(*_tensor_bytes("", value))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return "sha256 " + _sha256(f"{value.dtype}{value.shape}".encode(), np.ascontiguousarray(value).tobytes())
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        if value and all(dataclasses.is_dataclass(entry) for entry in value):
            return "sha256 " + _sha256(*(repr(entry).encode() + b"\n" for entry in value))
        return [_plain(entry) for entry in value]
    return None


def _tensor_bytes(name: str, tensor: torch.Tensor) -> tuple[bytes, bytes]:
    """Return a tensor's header and its content; the bytes of any dtype, bfloat16 too, through a view."""
    header = f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return header, flat.view(torch.uint8).numpy().tobytes()


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
