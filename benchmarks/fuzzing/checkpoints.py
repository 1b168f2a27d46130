"""Damaged checkpoints: an encoder loaded from one, a run gone on with.

An encoder counts as right where each of its tensors is the one that the file holds. A run that goes on counts as right
where it ends as the undisturbed one does; where a number was changed into another that could stand there, it may end
elsewhere, but with finite weights.
"""

import io
import json
import math
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earmark.encoders.weights import load_encoder, save_encoder
from fuzzing.mutations import edited_bytes, edited_tree, hostile, json_text, places_in
from fuzzing.running import Input, Kind, WrongError
from fuzzing.trained import train

State = dict[str, Any]
PLAIN = ("config", "arguments", "position", "epoch_totals", "last_scalars", "scheduler", "scaler", "videos", "rng",
         "versions", "format_version", "fingerprint", "optimizer.param_groups")  # fmt: skip


class Checkpoints(Kind):
    """The checkpoint of a run after its first epoch of two, and the other files that encoders are read from."""

    name = "checkpoint"

    def make(self, folder: Path) -> None:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")  # torch's own, of prototypes and deprecated dtypes
        run = folder / "run"
        train(run)
        end = _loaded(run / "checkpoints" / "checkpoint_0002.pt")
        self._end = {name: end[name] for name in ("model", "ema")}
        (run / "checkpoints" / "checkpoint_0002.pt").unlink()
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(lines[: len(lines) // 2]))
        self._run, self._file = run, run / "checkpoints" / "checkpoint_0001.pt"
        self._state = _loaded(self._file)
        self._exported = folder / "exported.safetensors"
        save_encoder(load_encoder(self._file, kind="audio"), self._exported)

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        target = draw.choice(("load", "load", "resume", "resume", "published", "exported"))
        if target == "exported":
            return self._damaged_export(draw, folder)
        shutil.copytree(self._run, folder / "run")
        path = folder / "run" / "checkpoints" / self._file.name
        state, is_plausible = _copied(self._state), False
        if target == "published":
            state = _published(state)
        how = draw.choice(("tensor", "tensor", "plain", "plain", "keys", "pickle", "member", "bytes"))
        told = how
        if how in EDITS:
            told, is_plausible = EDITS[how](state, draw)
        old_format = target == "published" and draw.random() < 0.3
        try:
            torch.save(state, path, _use_new_zipfile_serialization=not old_format)
        except Exception as error:  # torch cannot write it: then nobody hands it in as a file of torch's
            torch.save(_copied(self._state), path)
            state, told = _copied(self._state), f"nothing: torch cannot save it ({type(error).__name__}, {told})"
        whole = state if how in EDITS else None
        if how in ("pickle", "member") and not old_format:
            told, is_consistent = _edited_archive(path, draw, pickle=how == "pickle")
            if is_consistent:  # with its right checksum: a file that holds something else, if it can be read at all
                is_plausible, whole = True, _loaded_if_possible(path)
        elif how not in EDITS:
            data, told = edited_bytes(path.read_bytes(), draw)
            path.write_bytes(data)
            if old_format:  # which has no checksums: what torch reads of it is what it holds
                whole = _loaded_if_possible(path)
        names: tuple[str, ...] = (str(path.parent.parent),)
        if told.endswith(" huge"):  # a number like any other, until a step is done with it
            names += ("is not finite after step", "the loss is ")
        if target == "resume":
            return Input(f"resume: {told}", lambda: self._resume(folder / "run", is_plausible), names)
        kind: Any = draw.choice(("video", "audio"))
        chosen: Any = draw.choice((None, "model")) if target == "load" else None

        def attempt() -> None:
            encoder = load_encoder(path, kind=kind, weights=chosen)
            _require_as_stored(encoder, whole, self._state, kind, chosen, published=target == "published")

        return Input(f"{target} {kind} {chosen or ''}: {told}", attempt, names)

    def _damaged_export(self, draw: random.Random, folder: Path) -> Input:
        for path in (self._exported, self._exported.with_suffix(".json")):
            shutil.copy(path, folder)
        path = folder / self._exported.name
        beside = path.with_suffix(".json")
        how = draw.choice(("json", "json bytes", "bytes", "header"))
        if how == "json":
            tree, told = edited_tree(json.loads(beside.read_text()), draw)
            beside.write_text(json_text(tree))
        elif how == "json bytes":
            data, told = edited_bytes(beside.read_bytes(), draw)
            beside.write_bytes(data)
        elif how == "bytes":
            data, told = edited_bytes(path.read_bytes(), draw)
            path.write_bytes(data)
        else:
            told = _edited_safetensors_header(path, draw)

        def attempt() -> None:
            encoder = load_encoder(path)
            for name, value in encoder.state_dict().items():
                if not bool(value.isfinite().all()):
                    raise WrongError(f"{name} is not finite")
                if name.endswith("running_var") and bool((value < 0).any()):
                    raise WrongError("a negative variance was loaded")

        return Input(f"exported {how}: {told}", attempt, (str(folder),))

    def _resume(self, run: Path, is_plausible: bool) -> None:
        result = train(run)
        if result.checkpoint_path is None:
            raise WrongError("went on from nothing, and says so to nobody")
        end = _loaded(result.checkpoint_path)
        for part in ("model", "ema"):
            for name, expected in self._end[part].items():
                found = end[part][name]
                if not bool(found.isfinite().all()):
                    raise WrongError("ended with weights that are not finite")
                if not is_plausible and not (found.shape == expected.shape and torch.equal(found, expected)):
                    raise WrongError("ended elsewhere than the undisturbed run, and no word of it")


def _require_as_stored(
    encoder: Any, state: State | None, undamaged: State, kind: str, chosen: str | None, *, published: bool
) -> None:
    """Compare the tensors of an encoder with those that a file holds."""
    held = undamaged if state is None else state
    is_own = not published and "format_version" in held
    part = (chosen or ("model" if held.get("ema") is None else "ema")) if is_own else "model"
    if published and state is None:
        stored = _of_encoder(undamaged["model"], kind)
    else:
        stored = _of_encoder(held.get(part, {}), kind, published=published)
    for name, value in encoder.state_dict().items():
        if name not in stored and name.endswith("num_batches_tracked"):
            continue
        there = stored.get(name)
        if not isinstance(there, Tensor):
            raise WrongError("loaded a tensor that the file does not hold")
        if there.layout is not torch.strided or there.is_nested or there.is_meta or there.is_quantized:
            raise WrongError(f"loaded a tensor of layout {there.layout} as a plain one")
        if there.is_complex() or there.is_floating_point() != value.is_floating_point():
            raise WrongError(f"loaded {there.dtype} as {value.dtype}")
        if there.shape != value.shape or not torch.equal(there.to(value.dtype), value):
            raise WrongError("loaded other values than the file holds")
        if not bool(value.isfinite().all()):
            raise WrongError("loaded weights that are not finite")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise WrongError("loaded a negative variance")


# --- damage ---


def _loaded(path: Path) -> State:
    state: State = torch.load(path, weights_only=True)
    return state


def _copied(state: State) -> State:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    copy: State = torch.load(file, weights_only=True)
    return copy


def _published(state: State) -> State:
    """Return the encoders of a checkpoint as AVID's are published."""
    weights = {
        f"module.{kind}_model.{name}": value
        for kind in ("video", "audio")
        for name, value in _of_encoder(state["model"], kind).items()
    }
    return {"model": weights, "epoch": 3, "config": {"a": [1]}}


def _loaded_if_possible(path: Path) -> State | None:
    try:
        state = torch.load(path, weights_only=True)
    except Exception:
        return None
    return state if isinstance(state, dict) and isinstance(state.get("model"), dict) else None


def _of_encoder(weights: State, kind: str, *, published: bool = False) -> State:
    prefix = f"{kind}_model." if published else f"backbone.{kind}."
    names = {str(name).removeprefix("module."): value for name, value in weights.items()}
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


TENSORS: dict[str, Callable[[Tensor, random.Random], Any]] = {
    "flat": lambda value, draw: value.reshape(-1),
    "with one more axis": lambda value, draw: value[None].clone(),
    "doubled": lambda value, draw: torch.cat([value.reshape(-1), value.reshape(-1)]),
    "0-d": lambda value, draw: torch.tensor(1.0),
    "empty": lambda value, draw: torch.empty(0),
    "expanded": lambda value, draw: torch.zeros(1).expand(value.shape) if value.ndim else value,
    "expanded to 2^40": lambda value, draw: torch.zeros(1).expand(2**20, 2**20),
    "transposed": lambda value, draw: value.mT if value.ndim >= 2 else value,
    "float64": lambda value, draw: value.double(),
    "float16": lambda value, draw: value.half(),
    "bfloat16": lambda value, draw: value.bfloat16(),
    "float8": lambda value, draw: value.float().to(torch.float8_e4m3fn),
    "complex": lambda value, draw: torch.complex(value.float(), value.float() + 1),
    "int64": lambda value, draw: value.long(),
    "bool": lambda value, draw: value.bool(),
    "sparse": lambda value, draw: value.float().to_sparse(),
    "sparse rows": lambda value, draw: value.float().reshape(1, -1).to_sparse_csr(),
    "nested": lambda value, draw: torch.nested.nested_tensor([value.float().reshape(-1), torch.zeros(1)]),
    "meta": lambda value, draw: value.to("meta"),
    "a parameter": lambda value, draw: torch.nn.Parameter(value.float()),
    "with a NaN": lambda value, draw: _with(value, math.nan, draw),
    "with an infinity": lambda value, draw: _with(value, math.inf, draw),
    "negative": lambda value, draw: -value.abs() - 1 if value.dtype is not torch.bool else value,
    "huge": lambda value, draw: _with(value, 3e38, draw),
    "a list": lambda value, draw: [1, 2],
    "a text": lambda value, draw: "text",
    "None": lambda value, draw: None,
    "a number": lambda value, draw: 0.5,
    "changed": lambda value, draw: _with(value, 0.25, draw),
}
PLAUSIBLE = {"changed", "huge", "float64", "float16", "bfloat16", "a parameter"}


def _with(value: Tensor, number: float, draw: random.Random) -> Tensor:
    changed = value.float().reshape(-1).clone()
    if len(changed):
        changed[draw.randrange(len(changed))] = number
    return changed.reshape(value.shape)


def _edited_tensor(state: State, draw: random.Random) -> tuple[str, bool]:
    parts = [state[name] for name in ("model", "ema") if name in state]
    parts += list(state.get("optimizer", {}).get("state", {}).values())
    holder = draw.choice(parts)
    names = [name for name, value in holder.items() if isinstance(value, Tensor)]
    name, how = draw.choice(names), draw.choice(sorted(TENSORS))
    if draw.random() < 0.2:
        name = draw.choice([name for name in names if str(name).endswith(("running_var", "n_averaged"))] or names)
    holder[name] = TENSORS[how](holder[name], draw)
    is_plausible = how in PLAUSIBLE or (how in ("negative", "expanded") and not str(name).endswith("running_var"))
    return f"{name} {how}", is_plausible


def _edited_plain(state: State, draw: random.Random) -> tuple[str, bool]:
    part = draw.choice(PLAIN)
    holder, key = (state.get("optimizer", state), "param_groups") if "." in part else (state, part)
    if key not in holder:
        holder, key = state, draw.choice(sorted(state))
    if draw.random() < 0.15:
        kind = draw.choice(("cyclic", "hostile"))
        if kind == "cyclic":
            cycle: dict[str, Any] = {}
            cycle["a"] = cycle
            holder[key] = cycle
        else:
            holder[key] = hostile(draw)
        return f"{key} {kind}", False
    if not isinstance(holder[key], dict | list):
        holder[key] = hostile(draw)
        return f"{key} set to {str(holder[key])[:40]!r}", False
    tree = _plain(holder[key])
    edited, told = edited_tree(tree, draw)
    holder[key] = edited
    return f"{key}: {told}", _same_shape(tree, edited)


def _plain(tree: Any) -> Any:
    """Return a tree whose tuples and tensors are leaves."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list) else tree


def _same_shape(tree: Any, edited: Any) -> bool:
    """Return whether nothing but numbers has changed, into others that could stand there."""
    if len(places_in(tree)) != len(places_in(edited)):
        return False
    if isinstance(tree, dict):
        return (
            isinstance(edited, dict)
            and tree.keys() == edited.keys()
            and all(_same_shape(tree[k], edited[k]) for k in tree)
        )
    if isinstance(tree, list):
        return isinstance(edited, list) and all(map(_same_shape, tree, edited))
    if isinstance(tree, Tensor | tuple):
        return tree is edited
    if isinstance(tree, int | float) and not isinstance(tree, bool):
        is_number = isinstance(edited, int | float) and not isinstance(edited, bool)
        return is_number and abs(edited) < 1e6 and (isinstance(tree, float) or isinstance(edited, int)) and edited >= 0
    return bool(tree == edited)


def _edited_keys(state: State, draw: random.Random) -> tuple[str, bool]:
    holder = draw.choice(
        [state, *(part for part in (state.get("model"), state.get("ema"), state.get("optimizer")) if part)]
    )
    key = draw.choice(list(holder))
    how = draw.choice(("gone", "renamed", "twice", "added"))
    if how == "added":
        holder[draw.choice((7, "extra", ("a", 1), 1.5, None, "backbone.video.extra"))] = torch.zeros(2)
    elif how == "twice":
        holder[f"module.{key}"] = torch.zeros(3)
    else:
        value = holder.pop(key)
        if how == "renamed":
            holder[f"{key}x"] = value
    return f"{key} {how}", False


EDITS = {"tensor": _edited_tensor, "plain": _edited_plain, "keys": _edited_keys}


def _edited_archive(path: Path, draw: random.Random, *, pickle: bool) -> tuple[str, bool]:
    """Edit a member of a zip file and write its right checksum; say whether it is still such a file as before."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    compression, told = zipfile.ZIP_STORED, ""
    if not pickle:
        name = draw.choice(sorted(members))
        how = draw.choice(("bytes", "bytes", "gone", "empty", "bomb", "compressed", "doubled"))
        told = f"{name.partition('/')[2]} {how}"
        if how == "bytes":
            members[name], where = edited_bytes(members[name], draw)
            told = f"{name.partition('/')[2]} with its right checksum: {where}"
        elif how == "gone":
            del members[name]
        elif how == "empty":
            members[name] = b""
        elif how == "doubled":
            members[f"{name}x"] = members[name]
        elif how == "compressed":
            compression = zipfile.ZIP_DEFLATED
        else:
            return (_with_bomb(path, members, name) if draw.random() < 0.3 else f"{told}, left out"), False
    else:
        depth = draw.choice((500, 10_000, 200_000))
        made = {
            "deep": b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".",
            "code": b"\x80\x02cos\nsystem\n(X\x14\x00\x00\x00touch ../../escaped  tR.",
            "dict bomb": b"\x80\x02" + b"}q\x00" + b"(" + b"h\x00h\x00" * 1000 + b"u.",
            "long": b"\x80\x02\x8b" + (2**20).to_bytes(4, "little") + b"\x7f" * 2**20 + b".",
        }
        how = draw.choice(("bytes", "bytes", "bytes", *made))
        told = f"pickle {how}"
        members[name] = made[how] if how in made else edited_bytes(members[name], draw)[0]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return told, how == "bytes"


def _with_bomb(path: Path, members: dict[str, bytes], name: str) -> str:
    """Write one member as 1.2 GB of zeros, deflated."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            if member != name:
                archive.writestr(member, content)
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as file:
            for _ in range(1200):
                file.write(bytes(2**20))
    return f"{name.partition('/')[2]} is 1.2 GB of zeros"


def _edited_safetensors_header(path: Path, draw: random.Random) -> str:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    tree, told = edited_tree(json.loads(data[8 : 8 + length]), draw)
    header = json_text(tree).encode()
    size = draw.choice((len(header), len(header), len(header), 2**63, 2**31, 0))
    path.write_bytes(size.to_bytes(8, "little") + header + data[8 + length :])
    return told


KIND = Checkpoints()
