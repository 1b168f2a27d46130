"""Frozen features of labelled clips, computed once and kept on disk.

Path of a sample: clips --transforms--> model inputs --encoder--> features --probe--> scores. The encoder is not
changed: evaluation mode (batch norm uses its running statistics and does not update them), no gradient, float32.

A GPU is not waited for: features are copied out of it behind the batches that are queued meanwhile, and the encoder's
convolutions are laid out with channels last for as long as it works, which is the layout that its kernels are made for.

A cached array is ``KEY.npy`` with ``KEY.json`` beside it. KEY is the SHA-256 of everything that the features depend on;
the JSON file lists it.
"""

import dataclasses
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn

from earmark.atomic import replacing
from earmark.clips.dataset import collate
from earmark.clips.loading import load_batches
from earmark.console import new_console
from earmark.json_text import read_json

__all__ = [
    "Cacheable",
    "FeatureKey",
    "FeatureOptions",
    "LabelledClips",
    "encoder_fingerprint",
    "extract_features",
    "feature_key",
]

_FORMAT_VERSION = 2  # raised when the same inputs would give other features
_BATCHES_UNDER_WAY = 8  # on a device at most: enough that it never idles, and memory does not grow with the clips

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureOptions:
    """How features are computed and kept; the features themselves do not depend on it.

    Attributes:
        batch_size: Clips per batch.
        num_workers: Workers that read clips (see `earmark.clips.loading.load_batches`); 0 reads between computing.
        cache_dir: Folder to keep features in, made if missing; None keeps none.
        progress: Show a progress bar.
    """

    batch_size: int = 64
    num_workers: int = 0
    cache_dir: Path | None = None
    progress: bool = False


@runtime_checkable
class Cacheable(Protocol):
    """An object that declares everything its output depends on beside its inputs; a feature cache needs that.

    `earmark.clips.dataset.ActionClips`, `earmark.clips.transforms.VideoCrop` and every
    `earmark.encoders.base.Encoder` do. Other objects are refused: a key that leaves a setting out would return the
    features of another setting.
    """

    def cache_key(self) -> Mapping[str, Any]:
        """Return the class and the parameters as plain data that JSON can hold."""


class LabelledClips(Protocol):
    """What evaluation needs of a labelled data set; `earmark.clips.dataset.ActionClips` is one.

    Attributes:
        action_of_item: Which action each item is a clip of, int64 ``(num_items,)``; every action has the same number of
            clips.
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


def feature_key(encoder: nn.Module, *, clips: object, transform: object, seed: int) -> FeatureKey:
    """Return the key under which features are cached: equal keys mean equal features.

    It covers every parameter and buffer of the encoder and its structure, and what encoder, clips and transform declare
    (see `Cacheable`).

    Args:
        encoder: Maps clips to features.
        clips: Which clips are cut from which videos, and how.
        transform: How clips become inputs.
        seed: From which each item's own seed is drawn.

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
    return FeatureKey(json.dumps(content, sort_keys=True))


def extract_features(
    encoder: nn.Module,
    clips: LabelledClips,
    *,
    transform: nn.Module,
    options: FeatureOptions | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    label: str = "features",
) -> npt.NDArray[np.float32]:
    """Return the encoder's features of every clip of every action.

    The encoder and the transform are moved to `device` and left there; the encoder's train or eval mode is restored,
    and the layout of its weights.

    Args:
        encoder: Maps ``(B, 3, T, H, W)`` float to ``(B, D)``.
        clips: Items keyed by ``(index, seed)``, as `earmark.clips.dataset.ActionClips`.
        transform: Called as ``transform(video, seed, video_size)`` on the device, as
            `earmark.clips.transforms.VideoCrop`.
        options: Batches, workers, cache and progress bar; None for the defaults. With a cache, encoder, clips and
            transform must be `Cacheable`.
        device: Where the encoder runs.
        seed: From which each item's own seed is drawn; matters for clips or transforms that draw.
        label: Name of the progress bar.

    Returns:
        float32, shape ``(num_actions, num_clips, D)``.

    Raises:
        ValueError: If actions have different numbers of clips, or the encoder returns anything but ``(B, D)``, or
            numbers that are not finite.
        TypeError: If features are to be cached, and encoder, clips or transform do not say what they depend on.
    """
    options = options or FeatureOptions()
    num_items = len(clips)
    action_of_item = np.asarray(clips.action_of_item)
    num_actions = int(action_of_item.max()) + 1 if num_items else 0
    clips_of_action = np.bincount(action_of_item, minlength=num_actions)
    if num_items == 0 or len(action_of_item) != num_items or len(set(clips_of_action.tolist())) != 1:
        raise ValueError(
            f"every action needs the same number of clips, at least one; got {num_items} items of {num_actions} actions"
        )
    cache_key = None
    if options.cache_dir is not None:
        cache_key = feature_key(encoder, clips=clips, transform=transform, seed=seed)
        cached = _load(options.cache_dir, cache_key)
        if cached is not None and cached.shape[:2] == (num_actions, clips_of_action[0]):
            return cached

    # Moved here and not in `_run`: weights that are moved in inference mode can't be trained afterwards.
    encoder.to(device)
    transform.to(device)
    device = torch.device(device)
    # On the CPU, where features are to repeat to the bit, the layout stays as it is.
    with _in_eval_mode(encoder), _channels_last(encoder) if device.type == "cuda" else nullcontext():
        features = _run(encoder, clips, transform, options, device=device, seed=seed, label=label)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(f"features of item {int(bad.argmax())} (and {int(bad.sum()) - 1} more) are not finite")
    order = np.argsort(action_of_item, kind="stable")
    features = features[order].reshape(num_actions, clips_of_action[0], -1)
    if options.cache_dir is not None and cache_key is not None:
        _save(options.cache_dir, cache_key, features)
    return features


@torch.inference_mode()
def _run(
    encoder: nn.Module,
    clips: LabelledClips,
    transform: nn.Module,
    options: FeatureOptions,
    *,
    device: torch.device,
    seed: int,
    label: str,
) -> npt.NDArray[np.float32]:
    """Return the features of every item, shape (num_items, D)."""
    seeds = np.random.default_rng(seed).integers(2**63, size=len(clips)).tolist()
    keys = list(enumerate(seeds))
    batches = [keys[start : start + options.batch_size] for start in range(0, len(keys), options.batch_size)]
    loaded = load_batches(clips, batches, collate_fn=collate, num_workers=options.num_workers, device=device)
    features = _FeatureRows(len(keys))
    screen = new_console(stderr=True)
    shown = track(loaded, label, total=len(batches), console=screen, disable=not options.progress)
    with closing(loaded):  # ends its workers where the encoder fails
        for batch_keys, batch in zip(batches, shown, strict=True):
            output = encoder(transform(batch["video"], batch["seed"], batch["video_size"]))
            if output.ndim != 2:
                raise ValueError(f"an encoder must return features (B, D), got shape {tuple(output.shape)}")
            features.add([item for item, _ in batch_keys], output)
    return features.collect()


class _Arrival(Protocol):
    """The end of a copy, as a `torch.cuda.Event` marks it."""

    def query(self) -> bool:
        """Return whether it has been reached."""

    def synchronize(self) -> None:
        """Wait for it."""


def _send_to_host(rows: Tensor) -> tuple[Tensor, _Arrival | None]:
    """Begin to copy rows to the host; what they are once the copy has ended, and its end: None if it has already."""
    if rows.device.type != "cuda":
        return rows.float().cpu(), None
    on_host = torch.empty(rows.shape, dtype=torch.float32, pin_memory=True)
    on_host.copy_(rows.float(), non_blocking=True)
    return on_host, torch.cuda.current_stream(rows.device).record_event()


class _FeatureRows:
    """Features of all items on the host, filled batch by batch by a device that goes on working meanwhile.

    Args:
        num_items: Rows in all.
        send: Begins to copy rows to the host, as `_send_to_host`.
    """

    def __init__(
        self, num_items: int, send: Callable[[Tensor], tuple[Tensor, _Arrival | None]] = _send_to_host
    ) -> None:
        self._num_items = num_items
        self._send = send
        self._rows: npt.NDArray[np.float32] | None = None
        self._under_way: deque[tuple[Sequence[int], Tensor, _Arrival | None]] = deque()

    def add(self, items: Sequence[int], output: Tensor) -> None:
        """Take the features (B, D) of a batch, whose numbers may not be computed yet."""
        self._under_way.append((items, *self._send(output)))
        while self._under_way:
            arrival = self._under_way[0][2]
            if arrival is not None and len(self._under_way) <= _BATCHES_UNDER_WAY and not arrival.query():
                return
            self._take_first()

    def collect(self) -> npt.NDArray[np.float32]:
        """Wait for all, and return them, shape (num_items, D)."""
        while self._under_way:
            self._take_first()
        assert self._rows is not None  # there is at least one item
        return self._rows

    def _take_first(self) -> None:
        items, rows, arrival = self._under_way.popleft()
        if arrival is not None:
            arrival.synchronize()
        if self._rows is None:
            self._rows = np.empty((self._num_items, rows.shape[1]), dtype=np.float32)
        self._rows[items] = rows.numpy()


@contextmanager
def _in_eval_mode(encoder: nn.Module) -> Iterator[None]:
    """Have an encoder in evaluation mode, and each of its modules in its own mode again at the end."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _channels_last(encoder: nn.Module) -> Iterator[None]:
    """Lay the weights of convolutions out with channels last, which inputs follow, and at the end as they were.

    Where a compiler has looked at the layout already, it stays.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in encoder.modules())
    weights = [weight for weight in encoder.parameters() if weight.ndim in formats and not compiled]
    before = [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=formats[weight.ndim])
        yield
    finally:
        for weight, data in zip(weights, before, strict=True):
            weight.data = data


def _load(cache_dir: Path, key: FeatureKey) -> npt.NDArray[np.float32] | None:
    """Return cached features, or None with a line in the log if they are damaged."""
    array_path, sidecar_path = cache_dir / f"{key.digest}.npy", cache_dir / f"{key.digest}.json"
    if not sidecar_path.exists():  # written last: without it there is nothing
        return None
    try:
        sidecar = read_json(sidecar_path, max_bytes=4 * len(key.content) + 10_000)  # indented, and more
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


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
