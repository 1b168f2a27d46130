"""Checkpoints that someone made to do harm, and what each of the four readers of checkpoints says of them.

Run as a script it is one of these readers in a process of its own: ``READER GOOD WRITTEN FOLDER`` tries the good
checkpoint and then every file that `write_cases` wrote, within bounds on memory, and prints a line of JSON for each.
"""

import dataclasses
import json
import pickle
import resource
import shutil
import struct
import sys
import time
import traceback
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

READERS = ("load_encoder", "evaluate", "resume", "runs")
MEMORY_BYTES = 500 * 2**20  # of address space, beyond what is taken before the first file is read
NAME = "latest_00000002.pt"
WEIGHT = "backbone.video.conv1.0.weight"
MEAN, VARIANCE = "backbone.video.conv1.1.running_mean", "backbone.video.conv1.1.running_var"
_MARK = "to be replaced"  # in the place of what cannot be saved from within Python

State = dict[str, Any]
Write = Callable[[State, Path], None]


# --- how a file is written ---


def saved(change: Callable[[State], object], *, zip_format: bool = True) -> Write:
    """Save the state as `change` leaves it."""

    def write(state: State, path: Path) -> None:
        change(state)
        torch.save(state, path, _use_new_zipfile_serialization=zip_format)

    return write


def put(*keys: Any, value: Any, **options: Any) -> Write:
    """Save the state with another value in one place; a function gets the value that is there."""

    def change(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value(state[keys[-1]]) if callable(value) else value

    return saved(change, **options)


def pickled(*keys: Any, operations: bytes) -> Write:
    """Save the state with the result of some operations of pickle in one place."""

    def write(state: State, path: Path) -> None:
        put(*keys, value=_MARK)(state, path)
        mark = b"X" + struct.pack("<I", len(_MARK)) + _MARK.encode()

        def exchanged(content: bytes) -> bytes:
            assert content.count(mark) == 1
            return content.replace(mark, operations)

        repacked(path, {"data.pkl": exchanged})

    return write


def repacked(path: Path, changes: Mapping[str, Callable[[bytes], bytes]]) -> None:
    """Write a zip file anew with some of its parts changed."""
    with zipfile.ZipFile(path) as archive:
        parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts:
            change = changes.get(name.partition("/")[2])
            archive.writestr(name, content if change is None else change(content))


def with_parts(changes: Mapping[str, Callable[[bytes], bytes]]) -> Write:
    def write(state: State, path: Path) -> None:
        torch.save(state, path)
        repacked(path, changes)

    return write


def with_second_pickle(state: State, path: Path) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0].partition("/")[0] + "/DATA.PKL", pickle.dumps({}, protocol=2))


def with_comment(state: State, path: Path) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x05\x06" + bytes(18)


def deflate_bomb(state: State, path: Path) -> None:
    """Write a tensor of 600 MB of zeros, compressed to less than one."""
    torch.save(state, path)
    repacked(path, {})
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].partition("/")[0]
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{folder}/data/more", "w") as part,
    ):
        for _ in range(600):
            part.write(bytes(2**20))


def cut_storage(state: State, path: Path) -> None:
    """Write the old format with less behind its pickles than they claim."""
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: -(2**16)])


def cyclic(state: State) -> None:
    state["config"]["data"]["again"] = state["config"]


def with_methods(state: State) -> None:
    model = OrderedDict(state["model"])
    vars(model)["keys"] = 5
    state["model"] = model


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("evil"),)


def encoded_again_and_again(length: int, times: int) -> bytes:
    """Return a list of one text and of as many copies of it as bytes."""
    text = b"X" + struct.pack("<I", length) + b"a" * length + b"r\x00\x00\x01\x00"
    copied = b"c_codecs\nencode\nj\x00\x00\x01\x00X\x06\x00\x00\x00latin1\x86R"
    return b"](" + text + copied * times + b"e"


def numpy_at(place: int) -> Callable[[Any], Any]:
    return lambda rng: [{**rng[0], "numpy": (*rng[0]["numpy"][:2], place, *rng[0]["numpy"][3:])}]


def rng_with(**states: Any) -> Callable[[Any], Any]:
    return lambda rng: [{**rng[0], **states}]


def quantized(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def nested(tensor: Tensor) -> Tensor:
    return torch.nested.nested_tensor([tensor[0], tensor[1]])


MOMENTUM = ("optimizer", "state", 0, "momentum_buffer")
# A name, how it is written, and what every reader must name.
CASES: dict[str, tuple[Write, str]] = {
    "momentum of another shape": (put(*MOMENTUM, value=torch.zeros(2)), r"optimizer\.state\[0\]\.momentum_buffer"),
    "momentum expanded": (put(*MOMENTUM, value=lambda x: torch.zeros(1).expand(x.shape)), r"momentum_buffer.*expanded"),
    "momentum of integers": (put(*MOMENTUM, value=lambda x: x.to(torch.int8)), r"momentum_buffer.*int8"),
    "weight expanded": (put("model", WEIGHT, value=lambda x: torch.zeros(1).expand(x.shape)), "conv1.*expanded"),
    "weight expanded, old format": (
        put("model", WEIGHT, value=lambda x: torch.zeros(1).expand(x.shape), zip_format=False),
        "conv1.*expanded",
    ),
    "weight overlapping itself": (
        put("model", WEIGHT, value=lambda x: torch.zeros(x.numel()).as_strided(x.shape, (1,) * x.ndim)),
        "conv1.*expanded",
    ),
    "weight meta": (put("model", WEIGHT, value=lambda x: x.to("meta")), "conv1.*meta"),
    "weight sparse": (put("model", WEIGHT, value=lambda x: x.to_sparse()), "conv1.*sparse"),
    "weight nested": (put("model", WEIGHT, value=nested), "conv1.*nested"),
    "weight quantized": (put("model", WEIGHT, value=quantized), "conv1.*quantized"),
    "weight of float8": (put("model", WEIGHT, value=lambda x: x.to(torch.float8_e4m3fn)), "conv1.*float8"),
    "weight complex": (put("model", WEIGHT, value=lambda x: x.to(torch.complex64)), "conv1.*complex"),
    "weight 0-d": (put("model", WEIGHT, value=torch.zeros(())), "shape"),
    "weight with attributes": (
        put("model", WEIGHT, value=lambda x: setattr(x, "note", "x") or x),
        "conv1.*(attributes|class)",
    ),
    "weight that is text": (put("model", WEIGHT, value="x"), f"model.*{WEIGHT}.*not a tensor"),
    "running mean NaN": (put("model", MEAN, value=lambda x: x * torch.nan), "running_mean.*not finite"),
    "running variance negative": (put("model", VARIANCE, value=lambda x: -x - 1), "running_var.*negative"),
    "running variance infinite": (put("model", VARIANCE, value=lambda x: x / 0), "running_var.*not finite"),
    "model that is a tensor": (put("model", value=torch.zeros(3)), "model"),
    "model with attributes": (saved(with_methods), "attributes of its own"),
    "width 10^6": (put("config", "backbone", "video", "args", "width", value=10**6), "width.*1000000"),
    "config cyclic": (saved(cyclic), "config.*(circle|deep)"),
    "config of a number": (put("config", value=5), "config: not values by name"),
    "config of a tensor": (put("config", "data", value=torch.zeros(3)), r"config\.data: not plain data"),
    "config nested 10^5": (pickled("config", "data", operations=b"]" * 10**5 + b"a" * (10**5 - 1)), "config.*deep"),
    "config with 10^7 letters": (put("config", "data", value="x" * 10**7), r"config\.data.*10,000,000 characters"),
    "config keyed by numbers": (put("config", value={1: 2}), "config: not text"),
    "versions of a number": (put("versions", value=5), "versions: not values by name"),
    "versions of tensors": (put("versions", "torch", value=torch.zeros(1)), r"versions\.torch: not text"),
    "arguments of a list": (put("arguments", value=[1]), "arguments: not values by name"),
    "arguments of text": (put("arguments", "seed", value="5"), r"arguments\.seed: not a whole number"),
    "arguments of 2000 bits": (put("arguments", "seed", value=10**600), r"arguments\.seed: not a whole number"),
    "fingerprint of a number": (put("fingerprint", value=5), "fingerprint: not text"),
    "videos of a list": (saved(lambda state: state.update(videos=["P01"])), "videos: not values by name"),
    "epoch 10^30": (put("position", "epoch", value=10**30), r"position\.epoch: 1000000000.* is not from 0"),
    "epoch -1": (put("position", "epoch", value=-1), r"position\.epoch: -1 is not from 0"),
    "epoch true": (put("position", "epoch", value=True), r"position\.epoch: not a whole number"),
    "epoch 1.5": (put("position", "epoch", value=1.5), r"position\.epoch: not a whole number"),
    "epoch of a tensor": (put("position", "epoch", value=torch.ones(())), r"position\.epoch: not a whole number"),
    "epochs without steps": (put("position", "epoch", value=10**6), "position: more epochs than steps"),
    "position of more": (saved(lambda state: state["position"].update(evil=1)), "position: holds 'evil'"),
    "position of text": (put("position", value="start"), "position: not values by name"),
    "best score of text": (put("position", "best_score", value="best"), r"position\.best_score: not a number"),
    "totals of more": (saved(lambda state: state["epoch_totals"].update(evil=1)), "epoch_totals: holds 'evil'"),
    "scalars of text": (put("last_scalars", "loss", value="x"), r"last_scalars\.loss: not a number"),
    "scaler of text": (put("scaler", value={"scale": "x"}), r"scaler\.scale: not a number"),
    "scheduler of text": (put("scheduler", value="x"), "scheduler: not values by name"),
    "rng of a number": (put("rng", value=5), "rng: not a list"),
    "rng of nobody": (put("rng", value=[]), "rng: not a list"),
    "rng of torch, another type": (put("rng", value=rng_with(torch=torch.zeros(5056))), r"rng\[0\]\.torch"),
    "rng of torch, short": (put("rng", value=rng_with(torch=torch.zeros(3, dtype=torch.uint8))), r"rng\[0\]\.torch"),
    "rng of python, short": (put("rng", value=rng_with(python=(3, (1, 2), None))), r"rng\[0\]\.python"),
    "rng of python, text": (put("rng", value=rng_with(python="x")), r"rng\[0\]\.python"),
    "rng of NumPy, place 10^9": (put("rng", value=numpy_at(10**9)), r"rng\[0\]\.numpy"),
    "rng of NumPy, place -1": (put("rng", value=numpy_at(-1)), r"rng\[0\]\.numpy"),
    "optimizer of text": (put("optimizer", value="x"), "optimizer: not values by name"),
    "optimizer without groups": (put("optimizer", "param_groups", value=[]), "optimizer: not the state"),
    "optimizer of one more": (
        saved(lambda state: state["optimizer"]["state"].update({10**6: {}})),
        r"optimizer\.state: of a parameter",
    ),
    "learning rate NaN": (put("optimizer", "param_groups", 0, "lr", value=float("nan")), r"param_groups\[0\]\.lr"),
    "format true": (put("format_version", value=True), "format_version"),
    "format of tomorrow": (put("format_version", value=2), "by a newer Earmark"),
    "deflate bomb": (deflate_bomb, "claims to unpack to"),
    "memory cut short": (with_parts({"data/0": lambda content: content[:4]}), "of which it holds 4"),
    "memory cut short, old format": (cut_storage, "damaged"),
    "two pickles": (with_second_pickle, "two of its parts have one name"),
    "comment": (with_comment, "damaged|not a file of torch"),
    "one text encoded 10^4 times": (
        pickled("fingerprint", operations=encoded_again_and_again(10**6, 10**4)),
        "holds more than its size",
    ),
    "key of tuples 10^5 deep": (
        pickled("fingerprint", operations=b"})" + b"\x85" * 10**5 + b"K\x01s"),
        "keys of the type tuple",
    ),
    "2,000,000 values": (pickled("fingerprint", operations=b"](" + b"N" * 2_000_000 + b"e"), "more than 1,000,000"),
    "code": (put("fingerprint", value=Evil()), "holds more than tensors and plain data"),
}  # fmt: skip


def write_cases(good_path: Path, folder: Path) -> None:
    """Write a file for each case, and a good one that was written in the same way."""
    for number, write in enumerate((saved(lambda state: None), *(write for write, _ in CASES.values()))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nested and quantized tensors, which PyTorch will change or drop
            write(torch.load(good_path, weights_only=True), folder / f"{number:03d}.pt")


# --- the readers ---


def reader_named(name: str, good: State, folder: Path) -> Callable[[Path], object]:
    """Return what reads a checkpoint as one of the readers does: it raises, or returns what it says is wrong."""
    from earmark.cli.config import EvaluateConfig, checked, compose

    if name == "load_encoder":
        from earmark.encoders import load_encoder

        return load_encoder
    if name == "runs":
        from earmark.cli.runs import runs_in

        (folder / "run" / "config.yaml").write_text("optim:\n  epochs: 3\n")

        def listed(path: Path) -> object:
            assert path.parent.parent == folder / "run"
            (run,) = runs_in(folder)
            if run.problems:
                raise ValueError("; ".join(run.problems))
            return run

        return listed
    if name == "evaluate":
        from earmark.cli.judged import judged_encoders

        values = compose("default_lincls", ["environment.accelerator=cpu", "evaluate.as_trained=false"])
        config = checked(EvaluateConfig, values)
        return lambda path: judged_encoders(
            dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, checkpoint=str(path))), values
        )
    return resumer(good)


def resumer(good: State) -> Callable[[Path], object]:
    """Return what resumes the run of the good checkpoint and does a step, with its settings."""
    from lightning_fabric import Fabric

    from earmark.encoders import R2Plus1D, SpecCNN9
    from earmark.methods.replai import AudioVisualModel
    from earmark.training import Checkpointing, Learner, sgd
    from earmark.training.run_state import RunSaver

    hidden_dim, out_dim = (len(good["model"][f"mlp.video_clr.{layer}.weight"]) for layer in (0, 2))

    def resume(path: Path) -> object:
        model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4), hidden_dim=hidden_dim, out_dim=out_dim)
        optimizer = sgd(model.parameters(), lr=0.005, fused=True)
        saver = RunSaver(
            directory=path.parent,
            fabric=Fabric(accelerator="cpu", devices=1),
            learner=Learner(model=model, optimizer=optimizer),
            options=Checkpointing(config=good["config"]),
            arguments=good["arguments"],
            fingerprint=good["fingerprint"],
            epochs=3,
        )
        position = saver.restore()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        return position

    return resume


def main(name: str, good_path: Path, written: Path, folder: Path) -> None:
    checkpoints = folder / "run" / "checkpoints"
    checkpoints.mkdir(parents=True)
    path = checkpoints / NAME
    read = reader_named(name, torch.load(good_path, weights_only=True), folder)
    shutil.copyfile(good_path, path)
    read(path)  # whatever is imported at first use
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, resource.RLIM_INFINITY))
    for case, file in zip(("good", *CASES), sorted(written.iterdir()), strict=True):
        shutil.copyfile(file, path)
        print(json.dumps({"begun": case}), flush=True)
        started = time.process_time()
        kind, message = "", ""
        try:
            read(path)
        except Exception as error:
            kind, message = type(error).__name__, "".join(traceback.format_exception(error)) + str(error)
        done = {"case": case, "error": kind, "message": message, "seconds": time.process_time() - started}
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
