"""Frozen features of labelled clips, computed once and kept on disk.

Path of a sample: clips --transforms--> model inputs --encoder--> features --probe--> scores. The encoder is not
changed: evaluation mode (batch norm uses its running statistics and does not update them), no gradient, float32.

A GPU is not waited for: features are copied out of it behind the batches that are queued meanwhile, and the encoder's
convolutions are laid out with channels last for as long as it works, which is the layout that its kernels are made for.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn

from earmark.clips.dataset import collate
from earmark.clips.loading import load_batches
from earmark.console import new_console
from earmark.evaluation.feature_cache import (
    Cacheable,
    FeatureKey,
    Modality,
    encoder_fingerprint,
    feature_key,
    load_features,
    saving_features,
)

if TYPE_CHECKING:
    from earmark.encoders import Encoder

__all__ = [
    "Cacheable",
    "FeatureKey",
    "FeatureOptions",
    "Features",
    "LabelledClips",
    "Modality",
    "encoder_fingerprint",
    "extract_features",
    "feature_key",
]

_BATCHES_UNDER_WAY = 8  # on a device at most: enough that it never idles, and memory does not grow with the clips

_VALUES_AT_ONCE = 2**24  # looked at while they are checked

Features = npt.NDArray[Any]  # float32; of tokens, which are many, float16
_Allocate = Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]


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


class LabelledClips(Protocol):
    """What evaluation needs of a labelled data set; `earmark.clips.action_clips.ActionClips` is one.

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


@runtime_checkable
class _Separable(Protocol):
    """Clips of which one modality alone can be read, as `earmark.clips.action_clips.ActionClips`."""

    def only(self, modality: Modality) -> LabelledClips:
        """Return the same clips, of which only this is read."""


def extract_features(
    encoder: nn.Module,
    clips: LabelledClips,
    *,
    transform: nn.Module,
    modality: Modality = "video",
    tokens: bool = False,
    options: FeatureOptions | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    label: str = "features",
) -> Features:
    """Return the encoder's features of every clip of every action.

    The encoder and the transform are moved to `device` and left there; the encoder's train or eval mode is restored,
    and the layout of its weights.

    Args:
        encoder: Maps ``(B, 3, T, H, W)`` float, or ``(B, 1, frames, F)`` for sound, to ``(B, D)``.
        clips: Items keyed by ``(index, seed)``, as `earmark.clips.action_clips.ActionClips`.
        transform: Called on the device: as ``transform(video, seed, video_size)``, as
            `earmark.clips.transforms.VideoCrop`, or for sound as ``transform(audio)``, as
            `earmark.clips.transforms.LogMel`.
        modality: What of the clips the encoder is shown: their pictures or their sound; the other is not read.
        tokens: Return the feature map before the pool, one vector for each place and time; the encoder has
            ``forward_features``. With a cache it stays on the disk and is read from there as it is used: it is as many
            times larger as there are places.
        options: Batches, workers, cache and progress bar; None for the defaults. With a cache, encoder, clips and
            transform must be `Cacheable`.
        device: Where the encoder runs.
        seed: From which each item's own seed is drawn; matters for clips or transforms that draw.
        label: Name of the progress bar.

    Returns:
        float32, shape ``(num_actions, num_clips, D)``; of tokens float16, ``(num_actions, num_clips, tokens, D)``.

    Raises:
        ValueError: If actions have different numbers of clips, or the encoder returns anything but ``(B, D)``, or
            numbers that are not finite, or the clips do not have what it is to be shown.
        TypeError: If features are to be cached, and encoder, clips or transform do not say what they depend on; or
            tokens are asked of an encoder without ``forward_features``.
    """
    options = options or FeatureOptions()
    if tokens and not hasattr(encoder, "forward_features"):
        raise TypeError(f"{type(encoder).__name__} has no forward_features, the feature map that tokens are taken from")
    if isinstance(clips, _Separable):
        clips = clips.only(modality)
    num_items = len(clips)
    action_of_item = np.asarray(clips.action_of_item)
    num_actions = int(action_of_item.max()) + 1 if num_items else 0
    clips_of_action = np.bincount(action_of_item, minlength=num_actions)
    if num_items == 0 or len(action_of_item) != num_items or len(set(clips_of_action.tolist())) != 1:
        raise ValueError(
            f"every action needs the same number of clips, at least one; got {num_items} items of {num_actions} actions"
        )
    shape = (num_actions, int(clips_of_action[0]))
    key = None
    if options.cache_dir is not None:
        key = feature_key(encoder, clips=clips, transform=transform, seed=seed, modality=modality, tokens=tokens)
        cached = load_features(options.cache_dir, key, memory_mapped=tokens)
        if cached is not None and cached.shape[:2] == shape:
            return cached

    # Moved here and not in `_run`: weights that are moved in inference mode can't be trained afterwards.
    encoder.to(device)
    transform.to(device)

    def computed(allocate: _Allocate = np.empty) -> Features:
        # On the CPU, where features are to repeat to the bit, the layout stays as it is.
        on_gpu = torch.device(device).type == "cuda"
        with _in_eval_mode(encoder), _channels_last(encoder) if on_gpu else nullcontext():
            rows = _run(
                encoder,
                clips,
                transform,
                options,
                device=torch.device(device),
                seed=seed,
                label=label,
                modality=modality,
                tokens=tokens,
                allocate=allocate,
            )
        _require_finite(rows, np.argsort(action_of_item, kind="stable"))
        return rows.reshape(*shape, *rows.shape[1:])

    if options.cache_dir is None or key is None:
        return computed()
    with saving_features(options.cache_dir, key) as path:
        if tokens:  # as many as there are places: never in memory at once
            computed(
                lambda rows, dtype: np.lib.format.open_memmap(path, "w+", dtype, (*shape, *rows[1:])).reshape(rows)
            )
        else:
            features = computed()
            np.save(path, features, allow_pickle=False)
            return features
    on_disk: Features = np.load(options.cache_dir / f"{key.digest}.npy", mmap_mode="r", allow_pickle=False)
    return on_disk


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
    modality: Modality = "video",
    tokens: bool = False,
    allocate: _Allocate = np.empty,
) -> Features:
    """Return the features of every item, those of an action beside each other: (num_items, D) or (.., tokens, D)."""
    seeds = np.random.default_rng(seed).integers(2**63, size=len(clips)).tolist()
    keys = list(enumerate(seeds))
    batches = [keys[start : start + options.batch_size] for start in range(0, len(keys), options.batch_size)]
    loaded = load_batches(clips, batches, collate_fn=collate, num_workers=options.num_workers, device=device)
    places = np.argsort(np.argsort(np.asarray(clips.action_of_item), kind="stable"))
    features = _FeatureRows(len(keys), allocate=allocate)
    screen = new_console(stderr=True)
    shown = track(loaded, label, total=len(batches), console=screen, disable=not options.progress)
    with closing(loaded):  # ends its workers where the encoder fails
        for batch_keys, batch in zip(batches, shown, strict=True):
            if modality == "audio":
                inputs = transform(batch["audio"])
            else:
                inputs = transform(batch["video"], batch["seed"], batch["video_size"])
            if tokens:
                feature_map: Tensor = cast("Encoder", encoder).forward_features(inputs)
                output = feature_map.flatten(2).transpose(1, 2).half()
            else:
                output = encoder(inputs)
                if output.ndim != 2:
                    raise ValueError(f"an encoder must return features (B, D), got shape {tuple(output.shape)}")
            features.add(places[[item for item, _ in batch_keys]], output)
    return features.collect()


class _Arrival(Protocol):
    """The end of a copy, as a `torch.cuda.Event` marks it."""

    def query(self) -> bool:
        """Return whether it has been reached."""

    def synchronize(self) -> None:
        """Wait for it."""


def _send_to_host(rows: Tensor) -> tuple[Tensor, _Arrival | None]:
    """Begin to copy rows to the host; what they are once the copy has ended, and its end: None if it has already."""
    dtype = torch.float16 if rows.dtype == torch.float16 else torch.float32
    if rows.device.type != "cuda":
        return rows.to("cpu", dtype), None
    on_host = torch.empty(rows.shape, dtype=dtype, pin_memory=True)
    on_host.copy_(rows.to(dtype), non_blocking=True)
    return on_host, torch.cuda.current_stream(rows.device).record_event()


def _require_finite(rows: Features, item_of_row: npt.NDArray[np.int64]) -> None:
    """Raise if a feature is not a finite number; a part of the rows is looked at at a time."""
    step = max(1, _VALUES_AT_ONCE // max(1, int(np.prod(rows.shape[1:]))))
    finite = [
        np.isfinite(rows[k : k + step].reshape(len(rows[k : k + step]), -1)).all(axis=1)
        for k in range(0, len(rows), step)
    ]
    bad = np.sort(item_of_row[~np.concatenate(finite)])
    if len(bad):
        raise ValueError(f"features of item {bad[0]} (and {len(bad) - 1} more) are not finite")


class _FeatureRows:
    """Features of all items on the host, filled batch by batch by a device that goes on working meanwhile.

    Args:
        num_items: Rows in all.
        send: Begins to copy rows to the host, as `_send_to_host`.
        allocate: Makes the array that they are written to, of a shape and a type.
    """

    def __init__(
        self,
        num_items: int,
        send: Callable[[Tensor], tuple[Tensor, _Arrival | None]] = _send_to_host,
        *,
        allocate: _Allocate = np.empty,
    ) -> None:
        self._num_items = num_items
        self._send = send
        self._allocate = allocate
        self._rows: Features | None = None
        self._under_way: deque[tuple[npt.ArrayLike, Tensor, _Arrival | None]] = deque()

    def add(self, items: npt.ArrayLike, output: Tensor) -> None:
        """Take the features (B, ...) of a batch for rows ``items``, whose numbers may not be computed yet."""
        self._under_way.append((items, *self._send(output)))
        while self._under_way:
            arrival = self._under_way[0][2]
            if arrival is not None and len(self._under_way) <= _BATCHES_UNDER_WAY and not arrival.query():
                return
            self._take_first()

    def collect(self) -> Features:
        """Wait for all, and return them, shape (num_items, ...)."""
        while self._under_way:
            self._take_first()
        assert self._rows is not None  # there is at least one item
        return self._rows

    def _take_first(self) -> None:
        items, rows, arrival = self._under_way.popleft()
        if arrival is not None:
            arrival.synchronize()
        if self._rows is None:
            self._rows = self._allocate((self._num_items, *rows.shape[1:]), rows.numpy().dtype)
        self._rows[np.asarray(items)] = rows.numpy()


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
