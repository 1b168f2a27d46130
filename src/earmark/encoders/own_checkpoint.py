"""What a checkpoint of Earmark may hold, part by part: checked on its outline, before anything in it is used.

`earmark.training.checkpoint` writes such files; it and `earmark.encoders.weights` read them. A file can be made by
anyone, so each part is of its kind, its size and its range, or is refused by its name. What fits a given model,
optimizer and schedule is checked where they are at hand, in `earmark.training.fitting`.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from earmark.encoders.pickle_outline import StorageOutline, TensorOutline

__all__ = ["FORMAT_VERSION", "PARAMETER_SHAPED", "require_sound"]

FORMAT_VERSION = 1
# What optimizers keep of a parameter in its own shape: SGD's, and those of Adam and its like.
PARAMETER_SHAPED = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_MAX_COUNT = 10**12  # of steps, epochs, samples: beyond any run, and exact as a float
_MAX_STATISTICS = 2**22  # numbers of all batch norms together; large models have some 10,000
_MAX_TEXT, _MAX_VALUES, _MAX_DEPTH = 100_000, 200_000, 32
_POSITION = {"epoch": int, "batch": int, "step": int, "best_epoch": int, "best_score": float}
_TOTALS = {"steps": int, "samples": int, "seconds": float, "data_wait_seconds": float, "scalars": dict}
_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")

Read = Callable[[StorageOutline], bytes | None]


def require_sound(content: Mapping[Any, Any], read: Read) -> None:
    """Raise unless each part of a checkpoint is what `earmark.training` writes under its name.

    Args:
        content: The outline of the whole file. Parts may be missing; whoever needs one asks for it.
        read: Returns the bytes of a tensor's memory, or None where they are not at hand.

    Raises:
        ValueError: If a part is not; the message begins with its name.
    """
    version = content["format_version"]
    if type(version) is not int or not 1 <= version < 10**6:
        raise ValueError("format_version: not the number of a format")
    for part, check in _CHECKS.items():
        if part in content and (version <= FORMAT_VERSION or part == "versions"):
            check(part, content[part])
    if version > FORMAT_VERSION:
        by = content.get("versions", {}).get("earmark", "unknown version")
        raise ValueError(
            f"written in format {version} by a newer Earmark ({by}); this one reads up to {FORMAT_VERSION}"
        )
    position = content.get("position", {})
    if position.get("epoch", 0) > position.get("step", position.get("epoch", 0)):
        raise ValueError("position: more epochs than steps")
    if isinstance(content.get("model"), dict):
        if content.get("optimizer") is not None:
            _require_momentum_fits(content["optimizer"], content["model"])
        _require_widths_fit(content.get("config"), content["model"])
    for part in ("model", "ema"):
        if content.get(part) is not None:
            _require_statistics(part, content[part], read)


# --- plain data ---


def _require_plain(part: str, value: Any) -> None:
    """Raise unless a value is plain data: a tree, and not a graph, of modest size and depth."""
    waiting: list[tuple[str, Any, int]] = [(part, value, 0)]
    for count, (name, inner, depth) in enumerate(_popping(waiting)):
        if count > _MAX_VALUES:
            raise ValueError(f"{part}: more than {_MAX_VALUES:,} values, or in a circle")
        if depth > _MAX_DEPTH:
            raise ValueError(f"{part}: nested more than {_MAX_DEPTH} deep, or in a circle")
        if isinstance(inner, dict):
            for key, below in inner.items():
                waiting.append((f"{name}.{_text(part, key)[:80]}", below, depth + 1))
        elif isinstance(inner, list | tuple):
            waiting.extend((f"{name}[{place}]", below, depth + 1) for place, below in enumerate(inner))
        elif isinstance(inner, str):
            _text(name, inner)
        elif isinstance(inner, int) and abs(inner) >= 2**64:
            raise ValueError(f"{_shown(name)}: a number of {inner.bit_length()} bits")
        elif inner is not None and not isinstance(inner, bool | int | float):
            raise ValueError(f"{_shown(name)}: not plain data")


def _popping(waiting: list[tuple[str, Any, int]]) -> Any:
    while waiting:
        yield waiting.pop()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(name)}: not text")
    if len(value) > _MAX_TEXT:
        raise ValueError(f"{_shown(name)}: a text of {len(value):,} characters")
    return value


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 200 else f"{name[:197]}...")[1:-1]


def _require_config(part: str, value: Any) -> None:
    if value is None:
        return
    _mapping(part, value)
    _require_plain(part, value)


def _mapping(part: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{part}: not values by name")
    for key in value:
        _text(part, key)
    return value


def _require_versions(part: str, value: Any) -> None:
    if len(_mapping(part, value)) > 100:
        raise ValueError(f"{part}: of {len(value):,} libraries")
    for name, version in value.items():
        if len(_text(f"{part}.{name}", version)) > 200:
            raise ValueError(f"{_shown(f'{part}.{name}')}: a text of {len(version):,} characters")


def _require_count(name: str, value: Any) -> None:
    if type(value) is not int:
        raise ValueError(f"{_shown(name)}: not a whole number")
    if not 0 <= value <= _MAX_COUNT:
        digits = len(str(value)) if abs(value) < 10**40 else 41
        raise ValueError(f"{_shown(name)}: {value if digits < 41 else 'a number'} is not from 0 to {_MAX_COUNT:,}")


def _require_number(name: str, value: Any, *, finite: bool = True) -> None:
    if type(value) not in (int, float) or (isinstance(value, int) and abs(value) > 2**64):
        raise ValueError(f"{_shown(name)}: not a number")
    if finite and not math.isfinite(value):
        raise ValueError(f"{_shown(name)}: {value} is not finite")


def _require_arguments(part: str, value: Any) -> None:
    for name, number in _mapping(part, value).items():
        if type(number) not in (int, bool) or abs(number) >= 2**64:
            raise ValueError(f"{_shown(f'{part}.{name}')}: not a whole number")


def _require_fingerprint(part: str, value: Any) -> None:
    if len(_text(part, value)) > 1000:
        raise ValueError(f"{part}: a text of {len(value):,} characters")


def _require_videos(part: str, value: Any) -> None:
    for use, ids in _mapping(part, value).items():
        if not isinstance(ids, list):
            raise ValueError(f"{_shown(f'{part}.{use}')}: not a list of ids")
        for video_id in ids:
            if len(_text(f"{part}.{use}", video_id)) > 4096:
                raise ValueError(f"{_shown(f'{part}.{use}')}: an id of {len(video_id):,} characters")


# --- where a run stands ---


def _require_position(part: str, value: Any) -> None:
    _require_fields(part, value, _POSITION)


def _require_totals(part: str, value: Any) -> None:
    _require_fields(part, value, _TOTALS)
    _require_scalars(f"{part}.scalars", value.get("scalars", {}))


def _require_fields(part: str, value: Any, fields: Mapping[str, type]) -> None:
    for name, inner in _mapping(part, value).items():
        if name not in fields:
            raise ValueError(f"{part}: holds {_shown(name)!r}, which is not part of it")
        if fields[name] is int:
            _require_count(f"{part}.{name}", inner)
        elif fields[name] is float and not (name == "best_score" and inner is None):
            _require_number(f"{part}.{name}", inner)


def _require_scalars(part: str, value: Any) -> None:
    for name, number in _mapping(part, value).items():
        _require_number(f"{part}.{name}", number, finite=False)  # a diagnostic may have no value in a step


def _require_scaler(part: str, value: Any) -> None:
    for name, number in (_mapping(part, value) if value is not None else {}).items():
        if name not in _SCALER:
            raise ValueError(f"{part}: holds {_shown(name)!r}, which is not part of it")
        _require_number(f"{part}.{name}", number)


def _require_scheduler(part: str, value: Any) -> None:
    if value is None:
        return
    for name, inner in _mapping(part, value).items():
        if name in ("last_epoch", "_step_count"):
            _require_count(f"{part}.{name}", inner)
    _require_plain(part, {name: inner for name, inner in value.items() if not isinstance(inner, Counter)})
    for name, inner in value.items():
        if isinstance(inner, Counter):  # milestones
            for milestone, times in inner.items():
                _require_count(f"{part}.{name}", milestone)
                _require_count(f"{part}.{name}", times)


def _require_rng(part: str, value: Any) -> None:
    if not isinstance(value, list) or not 1 <= len(value) <= 100_000:
        raise ValueError(f"{part}: not a list of the states of each process")
    for rank, state in enumerate(value):
        _require_rng_of_rank(f"{part}[{rank}]", state)


def _require_rng_of_rank(name: str, state: Any) -> None:
    if not isinstance(state, dict) or not {"python", "numpy", "torch"} <= state.keys() <= _GENERATORS:
        raise ValueError(f"{name}: not the states of the generators of python, numpy and torch")
    if not _is_python_state(state["python"]):
        raise ValueError(f"{name}.python: not a state of python's generator")
    if not _is_numpy_state(state["numpy"]):
        raise ValueError(f"{name}.numpy: not a state of NumPy's generator")
    for generator in ("torch", "cuda"):
        tensor = state.get(generator)
        if generator in state and not (
            isinstance(tensor, TensorOutline)
            and tensor.dtype == "uint8"
            and len(tensor.shape) == 1
            and 8 <= tensor.shape[0] <= 100_000
        ):
            raise ValueError(f"{name}.{generator}: not a state of torch's generator")


_GENERATORS = {"python", "numpy", "torch", "cuda"}


def _is_python_state(state: Any) -> bool:
    if not isinstance(state, tuple) or len(state) != 3 or state[0] != 3 or not isinstance(state[1], tuple):
        return False
    words, gauss = state[1], state[2]
    return (
        len(words) == 625
        and all(type(word) is int and 0 <= word < 2**32 for word in words)
        and words[-1] <= 624
        and (gauss is None or type(gauss) is float)
    )


def _is_numpy_state(state: Any) -> bool:
    if not isinstance(state, tuple) or len(state) != 5:
        return False
    name, keys, place, has_gauss, gauss = state
    return (
        name == "MT19937"
        and isinstance(keys, TensorOutline)
        and (keys.dtype, keys.shape) == ("int64", (624,))
        and type(place) is int
        and 0 <= place <= 624  # NumPy believes it, and reads there
        and type(has_gauss) is int
        and has_gauss in (0, 1)
        and type(gauss) is float
    )


# --- tensors ---


def _require_tensors(part: str, value: Any) -> None:
    if value is None and part == "ema":
        return
    for name, tensor in _mapping(part, value).items():
        if not isinstance(tensor, TensorOutline):
            raise ValueError(f"{_shown(f'{part}.{name}')}: not a tensor")
        if tensor.dtype.startswith(("complex", "float8", "float4")):
            raise ValueError(f"{_shown(f'{part}.{name}')}: a tensor of {tensor.dtype}")


def _require_optimizer(part: str, value: Any) -> None:
    _mapping(part, value)
    states, groups = value.get("state"), value.get("param_groups")
    if not isinstance(states, dict) or not isinstance(groups, list) or not groups or len(value) != 2:
        raise ValueError(f"{part}: not the state of an optimizer")
    numbers: list[Any] = []
    for place, group in enumerate(groups):
        params = group.get("params") if isinstance(group, dict) else None
        if not isinstance(params, list):
            raise ValueError(f"{part}.param_groups[{place}]: not a group of parameters")
        numbers += params
        _require_plain(f"{part}.param_groups[{place}]", {k: v for k, v in group.items() if k != "params"})
        for name, number in group.items():
            if isinstance(number, float):
                _require_number(f"{part}.param_groups[{place}].{name}", number)
    if any(type(number) is not int for number in numbers) or sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"{part}.param_groups: its parameters are not numbered from 0")
    for number, state in states.items():
        if type(number) is not int or not 0 <= number < len(numbers):
            raise ValueError(f"{part}.state: of a parameter that its groups do not have")
        _require_parameter_state(f"{part}.state[{number}]", state)


def _require_parameter_state(part: str, state: Any) -> None:
    for name, inner in _mapping(part, state).items():
        if not isinstance(inner, TensorOutline):
            if inner is not None:
                _require_number(f"{part}.{name}", inner)
        elif inner.dtype not in (*_FLOATS, "int64"):
            raise ValueError(f"{_shown(f'{part}.{name}')}: a tensor of {inner.dtype}")


def _require_momentum_fits(optimizer: Mapping[str, Any], model: Mapping[str, TensorOutline]) -> None:
    """Raise unless the model has as many tensors of each shape as the optimizer keeps momentum of.

    The fused update of PyTorch believes that they fit, and writes beyond the smaller one's memory.
    """
    for kept in PARAMETER_SHAPED:
        left = Counter(tensor.shape for tensor in model.values())
        for number, state in optimizer["state"].items():
            tensor = state.get(kept)
            if not isinstance(tensor, TensorOutline):
                continue
            left[tensor.shape] -= 1
            if left[tensor.shape] < 0:
                raise ValueError(
                    f"optimizer.state[{number}].{kept}: of the shape {tensor.shape}, which no parameter is left for"
                )


def _require_widths_fit(config: Any, model: Mapping[str, TensorOutline]) -> None:
    """Raise where the configuration tells of encoders wider than any weight: building them would fill any memory."""
    widest = max((length for tensor in model.values() for length in tensor.shape), default=0)
    for kind in ("video", "audio"):
        width = config
        for key in ("backbone", kind, "args", "width"):
            width = width.get(key) if isinstance(width, dict) else None
        if isinstance(width, int) and not 0 < width <= widest:
            raise ValueError(f"config.backbone.{kind}.args.width: {width}, where no weight is wider than {widest}")


def _require_statistics(part: str, tensors: Mapping[str, TensorOutline], read: Read) -> None:
    """Raise where running statistics of batch norm are none: a variance below zero makes every feature NaN."""
    num_left = _MAX_STATISTICS
    for name, tensor in tensors.items():
        if name.endswith(("running_mean", "running_var")):
            values = _values(tensor, read)
            if values is None:
                continue
            num_left -= len(values)
            if num_left < 0:
                raise ValueError(f"{part}: over {_MAX_STATISTICS:,} running statistics")
            if not np.isfinite(values).all():
                raise ValueError(f"{_shown(f'{part}.{name}')}: not finite")
            if name.endswith("running_var") and (values < 0).any():
                raise ValueError(f"{_shown(f'{part}.{name}')}: a negative variance")


def _values(tensor: TensorOutline, read: Read) -> "np.ndarray[Any, np.dtype[Any]] | None":
    """Return the values of a small tensor of one axis; None where they are not at hand."""
    if tensor.storage is None or len(tensor.shape) != 1 or tensor.dtype not in _FLOATS:
        return None
    content = read(tensor.storage) if tensor.storage.num_bytes <= 2**20 else None
    if content is None:
        return None
    (length,), (stride,) = tensor.shape, tensor.stride
    places = slice(tensor.offset, tensor.offset + max(0, length - 1) * stride + min(1, length), max(1, stride))
    if tensor.dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(content, "<u2")[places].astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(tensor.dtype))[places]


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "versions": _require_versions,
    "config": _require_config,
    "arguments": _require_arguments,
    "fingerprint": _require_fingerprint,
    "videos": _require_videos,
    "position": _require_position,
    "epoch_totals": _require_totals,
    "last_scalars": _require_scalars,
    "scaler": _require_scaler,
    "scheduler": _require_scheduler,
    "rng": _require_rng,
    "model": _require_tensors,
    "ema": _require_tensors,
    "optimizer": _require_optimizer,
}
