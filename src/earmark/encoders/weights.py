"""Encoder weights in files: AVID's, the original RepLAI code's, Earmark's own, torchvision's, PANNs', aiSFX's.

Training and evaluation start from them; `save_encoder` writes an encoder alone, for use elsewhere. Files are untrusted:
nothing but tensors and plain data is read from them.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from earmark import __version__
from earmark.atomic import replacing
from earmark.encoders.base import Encoder
from earmark.encoders.bounded_building import at_most_elements
from earmark.encoders.by_name import AUDIO_ENCODERS, VIDEO_ENCODERS, new_encoder
from earmark.encoders.published import find_weights
from earmark.encoders.recognition import recognise
from earmark.encoders.torch_file import read_torch_file
from earmark.encoders.torch_outline import TorchFileError
from earmark.json_text import read_json

__all__ = ["LoadedWeights", "WeightsError", "load_encoder", "load_encoder_weights", "save_encoder"]

Kind = Literal["video", "audio"]
Weights = Literal["ema", "model"]

EXPORT_FORMAT_VERSION = 1
MAX_DESCRIPTION_BYTES = 2**20
# What the encoders' names begin with, once the wrappers of torch ("module.", "_orig_mod.") are taken off.
_LAYOUTS: tuple[tuple[str, Mapping[Kind, str]], ...] = (
    ("checkpoint of AVID or AVID-CMA", {"video": "video_model.", "audio": "audio_model."}),
    ("checkpoint of RepLAI", {"video": "backbone.video.", "audio": "backbone.audio."}),
    ("linear probe of the RepLAI code", {"video": "backbone."}),
)

_STORED_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_NEVER_NEGATIVE = ("running_var", "num_batches_tracked")

_log = logging.getLogger(__name__)


class WeightsError(ValueError):
    """A file that does not hold the weights asked for; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What was found in a file, what of it was loaded, and what was ignored.

    Attributes:
        path: The file.
        layout: What it is, in words.
        kind: Which of its encoders was loaded.
        weights: ``ema`` for the average of the weights that a run kept, ``model`` for those of its last step, and of
            files that hold one set.
        num_tensors: How many tensors were loaded: every one that the encoder has.
        ignored: What else is in the file, in words.
    """

    path: Path
    layout: str
    kind: Kind
    weights: Weights
    num_tensors: int
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        ignored = f"; ignored: {', '.join(self.ignored)}" if self.ignored else ""
        return f"{self.path} ({self.layout}): loaded all {self.num_tensors} tensors of the {self.kind} encoder{ignored}"


@dataclass(frozen=True, slots=True)
class _WeightsFile:
    """What a file holds: encoders by kind, what it says of them, and the number of tensors of what else is in it."""

    path: Path
    layout: str
    encoders: Mapping[Kind, Mapping[str, Tensor]]
    described: Mapping[Kind, tuple[str, Mapping[str, Any]]]
    others: Mapping[str, int]
    weights: Weights = "model"


def load_encoder(
    path_or_name: str | Path,
    *,
    kind: Kind | None = None,
    weights: Weights | None = None,
    pretrained: bool = True,
    **options: Any,
) -> Encoder:
    """Return an encoder with trained weights, from a file or by its name.

    What was found, loaded and ignored is in its ``origin``, and in the log at level INFO.

    Args:
        path_or_name: A checkpoint of Earmark, RepLAI, AVID or AVID-CMA; an exported encoder (``.safetensors``); weights
            of torchvision, PANNs or aiSFX; or the name of an encoder, such as ``avid_r2plus1d_18``, whose published
            weights are then looked for where `earmark.encoders.find_weights` says.
        kind: Which encoder of a file that has several; ``video`` by default.
        weights: Which weights of a checkpoint of Earmark: ``ema`` for the moving average that a run may keep, with the
            statistics of batch norm that belong to it, or ``model`` for those of the last step. By default the average
            where there is one: it is what the probe of a run judges.
        pretrained: With a name: False for random weights.
        options: With a name: what `earmark.encoders.new_encoder` takes, such as ``width``.

    Returns:
        The encoder, in evaluation mode (call ``train()`` to train it), on the CPU.

    Raises:
        FileNotFoundError: If there is no such file; for a name, the message says which one to fetch from where.
        WeightsError: If the file does not hold exactly the weights of a known encoder, or not those asked for.
        ValueError: If an option or the kind is not one of the named encoder's, or options come with a file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "small.safetensors"
        >>> save_encoder(load_encoder("avid_spec_cnn_9", pretrained=False, width=4), path)
        >>> load_encoder(path).options
        {'width': 4}
    """
    name = str(path_or_name)
    if name in VIDEO_ENCODERS or name in AUDIO_ENCODERS:
        if kind not in (None, _kind_of(name)):
            raise ValueError(f"{name} is not an encoder of {kind}")
        if weights is not None:
            raise ValueError(
                f"{name}: weights={weights} chooses among those of a checkpoint; this is the name of an encoder"
            )
        return _named_encoder(name, pretrained=pretrained, options=options).eval()
    path = Path(path_or_name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path_or_name}: neither a file nor an encoder; encoders are {', '.join(VIDEO_ENCODERS)} for video and "
            f"{', '.join(AUDIO_ENCODERS)} for audio"
        )
    if options or not pretrained:
        raise ValueError(f"{path}: a file says which encoder it holds; options are for encoders that are built by name")
    file = _read(path, weights)
    asked: Kind = kind or ("audio" if "video" not in file.encoders else "video")
    tensors = _encoder_weights(file, asked)
    found = file.described.get(asked) or recognise(tensors)
    there = VIDEO_ENCODERS if asked == "video" else AUDIO_ENCODERS
    if found is None or found[0] not in there:
        raise WeightsError(
            f"{path}: its {asked} encoder is not one that Earmark knows (one of its tensors: {_shown(min(tensors))})"
        )
    try:
        with at_most_elements(sum(tensor.numel() for tensor in tensors.values())):
            encoder = new_encoder(found[0], **found[1])
    except Exception as error:  # what a file says of options may be of any type and size
        if isinstance(error, ImportError):
            raise
        raise WeightsError(f"{path}: {str(error)[:500] or type(error).__name__}") from error
    _load(encoder, file, asked)
    return encoder.eval()


def _named_encoder(name: str, *, pretrained: bool, options: Mapping[str, Any]) -> Encoder:
    if name.startswith("hf_"):
        encoder = new_encoder(name, **options, pretrained=pretrained)
        if pretrained:
            encoder.origin = f"{options['model']} (Hugging Face): loaded all weights of the encoder"
        return encoder
    encoder = new_encoder(name, **options)
    if pretrained:
        load_encoder_weights(encoder, find_weights(name), kind=_kind_of(name))
    return encoder


def _kind_of(name: str) -> Kind:
    return "video" if name in VIDEO_ENCODERS else "audio"


def load_encoder_weights(
    encoder: Encoder,
    path: str | Path,
    *,
    kind: Kind,
    weights: Weights | None = None,
    state: Mapping[str, Any] | None = None,
) -> LoadedWeights:
    """Fill an encoder with the weights that a file holds for it.

    Args:
        encoder: The encoder; each of its weights must be in the file, with its shape, and no others except those that
            are known not to belong to an encoder (a classifier, projection heads, an optimizer).
        path: A checkpoint or weights file, as `load_encoder` takes.
        kind: Which encoder of the file.
        weights: Which weights of a checkpoint of Earmark, as in `load_encoder`: by default the average if there is one.
        state: What `earmark.encoders.torch_file.read_torch_file` or `earmark.load_checkpoint` returned for this file,
            where it has been read already: then the file itself is only named, not opened.

    Returns:
        What was found, loaded and ignored; the encoder's ``origin`` says the same.

    Raises:
        FileNotFoundError: If there is no such file.
        WeightsError: If the file cannot be read or does not hold exactly this encoder's weights.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from earmark.encoders import SpecCNN9
        >>> path = Path(tempfile.mkdtemp()) / "avid.pth"
        >>> trained, fresh = SpecCNN9(width=4), SpecCNN9(width=4)
        >>> state = {f"module.audio_model.{key}": value for key, value in trained.state_dict().items()}
        >>> torch.save({"model": state, "epoch": 3}, path)
        >>> print(str(load_encoder_weights(fresh, path, kind="audio")).removeprefix(f"{path} "))
        (checkpoint of AVID or AVID-CMA): loaded all 54 tensors of the audio encoder; ignored: epoch
        >>> all(torch.equal(fresh.state_dict()[key], value) for key, value in trained.state_dict().items())
        True
    """
    path = Path(path).expanduser()
    if state is None and not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return _load(encoder, _read(path, weights, state), kind)


def save_encoder(encoder: Encoder, path: str | Path) -> None:
    """Write an encoder alone: its weights as safetensors, and beside them a json that says what it is.

    Args:
        encoder: One that `load_encoder` or `earmark.encoders.new_encoder` built, trained since or not.
        path: File to write, ``NAME.safetensors``; ``NAME.json`` is written too.

    Raises:
        ValueError: If the encoder has no name, or the path another suffix.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: an exported encoder is called NAME.safetensors")
    if not encoder.name:
        raise ValueError("only encoders built by name can be exported: use earmark.encoders.new_encoder")
    description = {
        "format_version": EXPORT_FORMAT_VERSION,
        "kind": _kind_of(encoder.name),
        "name": encoder.name,
        "options": dict(encoder.options),
        "output_dim": encoder.output_dim,
        "origin": encoder.origin,
        "earmark": __version__,
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n")
    with replacing(path) as temporary:
        save_file(weights, temporary)


# --- reading ---


def _read(path: Path, weights: Weights | None, state: Any = None) -> _WeightsFile:
    """Read a file, or take what was read from it before, and tell what is in it."""
    if weights not in (None, "ema", "model"):
        raise ValueError(f"weights: ema or model, got {weights!r}")
    if path.suffix == ".safetensors":
        if weights is not None:
            raise WeightsError(f"{path}: holds one set of weights, so there is no weights={weights} to choose")
        return _read_safetensors(path)
    if state is None:
        try:
            state = read_torch_file(path)
        except TorchFileError as error:
            raise WeightsError(str(error)) from error
    if isinstance(state, dict) and "format_version" in state and "model" in state:
        return _read_own(path, state, weights)
    if weights == "ema":
        raise WeightsError(f"{path}: holds no average of the weights (it is not a checkpoint of Earmark)")
    others: list[str] = []
    if isinstance(state, tuple) and state and isinstance(state[0], dict):  # aiSFX: weights, then its data sets' names
        others = [f"what follows the weights ({len(state) - 1} more)"] if state[1:] else []
        state = state[0]
    model = state.get("model", state) if isinstance(state, dict) else None
    tensors = _tensors(path, model)  # first of all: what was saved may be a number, or a function of torch's own
    beside = others if model is state else [_named(name) for name in state if name != "model"]
    return _split(path, tensors, beside)


def _named(key: Any) -> str:
    """Return the key of a file's part as text; what is no text may be nested too deep to be shown."""
    return key if isinstance(key, str) else f"(a key of the type {type(key).__name__})"


def _read_own(path: Path, state: Mapping[str, Any], weights: Weights | None) -> _WeightsFile:
    """Read a checkpoint of Earmark: the average of the weights where there is one, unless others are asked for."""
    average = state.get("ema")
    if average is None and weights == "ema":
        raise WeightsError(
            f"{path}: holds no average of the weights (the run kept none); weights=model reads those of its last step"
        )
    chosen: Weights = weights or ("model" if average is None else "ema")
    held = "" if average is None else f", {'average of the weights' if chosen == 'ema' else 'weights of the last step'}"
    tensors = _tensors(path, state[chosen])
    tensors.pop("n_averaged", None)  # how many steps are in the average
    beside = [_named(name) for name in state if name != chosen and not (name == "ema" and average is None)]
    described = _described(state.get("config"))
    return _split(path, tensors, beside, layout=f"checkpoint of Earmark{held}", described=described, weights=chosen)


def _tensors(path: Path, state: Any) -> dict[str, Tensor]:
    """Return the tensors of a state by their names without wrappers."""
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds no weights by name")
    return {_unwrapped(_named(name)): value for name, value in state.items() if isinstance(value, Tensor)}


def _read_safetensors(path: Path) -> _WeightsFile:
    try:
        tensors = load_file(path)
    except Exception as error:  # a damaged file may raise anything
        raise WeightsError(f"{path}: not a safetensors file ({str(error)[:200]})") from error
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return _split(path, tensors, [])
    try:
        description = read_json(beside, max_bytes=MAX_DESCRIPTION_BYTES)
        version, kind = description["format_version"], description["kind"]
        name, options = str(description["name"]), dict(description["options"])
        if kind not in ("video", "audio"):
            raise ValueError(f"its kind is {kind!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{beside}: does not say which encoder {path.name} holds ({error})") from error
    if version != EXPORT_FORMAT_VERSION:
        raise WeightsError(f"{beside}: of format {version}; this Earmark reads {EXPORT_FORMAT_VERSION}")
    return _WeightsFile(path, "encoder exported by Earmark", {kind: tensors}, {kind: (name, options)}, {})


def _split(
    path: Path,
    tensors: Mapping[str, Tensor],
    beside: list[str],
    *,
    layout: str = "",
    described: Mapping[Kind, tuple[str, Mapping[str, Any]]] | None = None,
    weights: Weights = "model",
) -> _WeightsFile:
    """Tell the encoders of a checkpoint from what else is in it."""
    if not tensors:
        raise WeightsError(f"{path}: holds no weights by name")
    for known, prefixes in _LAYOUTS:
        encoders: dict[Kind, dict[str, Tensor]] = {}
        rest: Counter[str] = Counter()
        for name, value in tensors.items():
            kind = next((kind for kind, prefix in prefixes.items() if name.startswith(prefix)), None)
            if kind is None:
                rest[name.partition(".")[0]] += 1
            else:
                encoders.setdefault(kind, {})[name.removeprefix(prefixes[kind])] = value
        if encoders:
            others = {**rest, **dict.fromkeys(beside, 0)}
            return _WeightsFile(path, layout or known, encoders, described or {}, others, weights)
    # One encoder without a prefix: what it is for, its names tell; if they do not, it may be either.
    found = recognise(tensors)
    kinds: tuple[Kind, ...] = ("video", "audio") if found is None else (_kind_of(found[0]),)
    return _WeightsFile(
        path,
        layout or "weights alone",
        dict.fromkeys(kinds, tensors),
        described or {},
        dict.fromkeys(beside, 0),
        weights,
    )


def _described(config: Any) -> dict[Kind, tuple[str, Mapping[str, Any]]]:
    """Return what the configuration in a checkpoint of Earmark says of its encoders, where it says it."""
    described: dict[Kind, tuple[str, Mapping[str, Any]]] = {}
    kinds: tuple[Kind, ...] = ("video", "audio")
    for kind in kinds:
        try:
            section = config["backbone"][kind]
            options = {key: value for key, value in section["args"].items() if value is not None}
            # how a run began, and what it trained, is not what was built
            built = options.keys() - {"pretrained", "weights", "frozen"}
            described[kind] = str(section["name"]), {key: options[key] for key in built}
        except (KeyError, TypeError, AttributeError):
            continue
    return described


def _unwrapped(name: str) -> str:
    """Return a name as it was before DataParallel, AveragedModel or torch.compile wrapped the model."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


# --- loading ---


def _encoder_weights(file: _WeightsFile, kind: Kind) -> Mapping[str, Tensor]:
    if kind not in file.encoders:
        raise WeightsError(f"{file.path}: holds no {kind} encoder (it is a {file.layout})")
    return file.encoders[kind]


def _load(encoder: Encoder, file: _WeightsFile, kind: Kind) -> LoadedWeights:
    found = _encoder_weights(file, kind)
    weights = {name: value for name, value in found.items() if name.partition(".")[0] not in encoder.not_encoder}
    misfits = _misfits(encoder.state_dict(), weights)
    if misfits:
        held = file.described.get(kind) or recognise(found)
        options = ", ".join(f"{key}={value}" for key, value in held[1].items()) if held else ""
        looks = f" (it looks like {held[0]}({options}))" if held else ""
        raise WeightsError(f"{file.path}: its {kind} encoder does not fit this one: {misfits}{looks}")
    encoder.load_state_dict(weights)  # the check leaves only counters of batch norm that old files lack
    others: Counter[str] = Counter(name.partition(".")[0] for name in found if name not in weights)
    others.update({f"{other} encoder": len(held) for other, held in file.encoders.items() if held is not found})
    others.update(file.others)
    ignored = tuple(f"{name} ({number} tensors)" if number else name for name, number in others.items())
    loaded = LoadedWeights(file.path, file.layout, kind, file.weights, len(weights), ignored)
    encoder.origin = str(loaded)
    _log.info("%s", loaded)
    return loaded


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return, in words, in what weights differ from those expected; empty if they fit."""
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unknown = [name for name in found if name not in expected]
    common = {name: (found[name], value) for name, value in expected.items() if name in found}
    shapes = [
        f"{name} is {tuple(there.shape)} in the file and {tuple(here.shape)} here"
        for name, (there, here) in common.items()
        if there.shape != here.shape
    ]
    kinds = [
        f"{name} is {there.dtype} in the file and {here.dtype} here"
        for name, (there, here) in common.items()
        if there.dtype != here.dtype and (there.dtype not in _STORED_FLOATS or not here.is_floating_point())
    ]
    infinite, negative = [], []
    if not (shapes or kinds):
        for name, (there, here) in common.items():
            value = there.to(here.dtype)  # as it will be used: what float64 holds may be beyond float32
            if value.is_floating_point() and not value.isfinite().all():
                infinite.append(name)
            elif name.endswith(_NEVER_NEGATIVE) and (value < 0).any():
                negative.append(name)
    problems = {
        "missing": missing,
        "unknown": unknown,
        "of another shape": shapes,
        "of another type": kinds,
        "not finite": infinite,
        "negative": negative,
    }
    return "; ".join(
        f"{len(names)} {what}, such as {', '.join(_shown(name) for name in names[:2])}"
        for what, names in problems.items()
        if names
    )


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 200 else f"{name[:197]}...")[1:-1]
