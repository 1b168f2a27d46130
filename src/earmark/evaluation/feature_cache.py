"""Features kept on disk under a name made of everything that they depend on.

Path of a sample: clips --transforms--> model inputs --encoder--> features --here--> features, without computing them.

A cached array is ``KEY.npy`` with ``KEY.json`` beside it. KEY is the SHA-256 of everything that the features depend on;
the JSON file lists it.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from earmark.atomic import replacing
from earmark.json_text import read_json

__all__ = [
    "Cacheable",
    "FeatureKey",
    "Modality",
    "encoder_fingerprint",
    "feature_key",
    "load_features",
    "saving_features",
]

Modality = Literal["video", "audio"]

_FORMAT_VERSION = 2  # raised when the same inputs would give other features

_logger = logging.getLogger(__name__)


@runtime_checkable
class Cacheable(Protocol):
    """An object that declares everything its output depends on beside its inputs; a feature cache needs that.

    `earmark.clips.action_clips.ActionClips`, `earmark.clips.transforms.VideoCrop` and every
    `earmark.encoders.base.Encoder` do. Other objects are refused: a key that leaves a setting out would return the
    features of another setting.
    """

    def cache_key(self) -> Mapping[str, Any]:
        """Return the class and the parameters as plain data that JSON can hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureKey:
    """Name of an array of features, made of everything it depends on.

    Attributes:
        content: What the features depend on, as json with sorted keys.
    """

    content: str

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def encoder_fingerprint(encoder: nn.Module) -> dict[str, str]:
    """Return what identifies an encoder and its weights: class, printed structure, parameters and buffers.

    Example:
        >>> sorted(encoder_fingerprint(nn.Identity()))
        ['encoder', 'encoder_structure', 'encoder_weights']
    """
    return {
        "encoder": type(encoder).__name__,
        "encoder_structure": _sha256(repr(encoder).encode()),
        "encoder_weights": _sha256(
            *(part for name, value in sorted(encoder.state_dict().items()) for part in _tensor_bytes(name, value))
        ),
    }


def feature_key(
    encoder: nn.Module,
    *,
    clips: object,
    transform: object,
    seed: int,
    modality: Modality = "video",
    tokens: bool = False,
) -> FeatureKey:
    """Return the key under which features are cached: equal keys mean equal features.

    It covers every parameter and buffer of the encoder and its structure, and what encoder, clips and transform declare
    (see `Cacheable`).

    Args:
        encoder: Maps clips to features.
        clips: Which clips are cut from which videos, and how.
        transform: How clips become inputs.
        seed: From which each item's own seed is drawn.
        modality: What of the clips the encoder is shown.
        tokens: Whether it is the feature map before the pool.

    Raises:
        TypeError: If one of the three does not declare what it depends on, or declares anything JSON cannot hold.

    Example:
        >>> class Small(nn.Identity):
        ...     def cache_key(self):
        ...         return {"class": "Small"}
        >>> key = feature_key(Small(), clips=Small(), transform=Small(), seed=7)
        >>> len(key.digest), json.loads(key.content)["clips"]
        (64, {'class': 'Small'})
    """
    content = {
        "format_version": _FORMAT_VERSION,
        **encoder_fingerprint(encoder),
        "encoder_parameters": _declared(encoder, "encoder"),
        "clips": _declared(clips, "clips"),
        "transform": _declared(transform, "transform"),
        "seed": seed,
    }
    if modality != "video":
        content["modality"] = modality
    if tokens:
        content["tokens"] = True
    return FeatureKey(json.dumps(content, sort_keys=True))


def load_features(cache_dir: Path, key: FeatureKey, *, memory_mapped: bool = False) -> npt.NDArray[Any] | None:
    """Return cached features, or None with a line in the log if they are damaged.

    Args:
        cache_dir: Where they are kept.
        key: Their name.
        memory_mapped: Leave them on the disk, from where they are read as they are used.
    """
    array_path, sidecar_path = cache_dir / f"{key.digest}.npy", cache_dir / f"{key.digest}.json"
    if not sidecar_path.exists():  # written last: without it there is nothing
        return None
    try:
        sidecar = read_json(sidecar_path, max_bytes=4 * len(key.content) + 10_000)  # indented, and more
        if sidecar["key"] != json.loads(key.content):
            raise ValueError(f"{sidecar_path.name} describes something else")
        if sidecar["sha256"] != _sha256_of_file(array_path):
            raise ValueError(f"{array_path.name} is not what was written")
        loaded: npt.NDArray[Any] = np.load(array_path, mmap_mode="r" if memory_mapped else None, allow_pickle=False)
        return loaded
    except (OSError, ValueError, KeyError, TypeError) as error:
        _logger.warning("%s: damaged feature cache (%s); computing the features again", array_path, error)
        return None


@contextmanager
def saving_features(cache_dir: Path, key: FeatureKey) -> Iterator[Path]:
    """Give a path to write an array to, and when the block ends well, write the json that makes it valid.

    Args:
        cache_dir: Where it is kept.
        key: Its name.

    Yields:
        Where to write the ``.npy``.
    """
    array_path = cache_dir / f"{key.digest}.npy"
    with replacing(array_path) as temporary:
        yield temporary
    shape = np.load(array_path, mmap_mode="r", allow_pickle=False).shape
    sidecar = {"shape": shape, "sha256": _sha256_of_file(array_path), "key": json.loads(key.content)}
    with replacing(array_path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(sidecar, indent=2, sort_keys=True) + "\n")


def _declared(thing: object, what: str) -> dict[str, Any]:
    """Return the declared parameters of an object.

    Raises:
        TypeError: If it declares none, or anything JSON cannot hold.
    """
    name = type(thing).__name__
    if not isinstance(thing, Cacheable):
        raise TypeError(
            f"the features of this {what} cannot be cached: {name} has no method cache_key() that says what its output "
            "depends on; define one, or compute without a cache"
        )
    declared = dict(thing.cache_key())
    try:
        json.dumps(declared, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}.cache_key() must return plain data: {error}") from error
    return declared


def _tensor_bytes(name: str, tensor: torch.Tensor) -> tuple[bytes, bytes]:
    """Return a tensor's header and its content; the bytes of any dtype, bfloat16 too, through a view."""
    header = f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return header, flat.view(torch.uint8).numpy().tobytes()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
