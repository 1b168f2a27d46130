"""Every objective in real processes: N of them and one on the global batch give one loss, gradient and memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods import AVID, XDC
from earmark.methods.gathering import gather_without_gradient, sum_over_processes, world_size
from earmark.methods.replai import AudioVisualModel, StateChangeOptions
from earmark.training.launch import Launch, run_processes
from earmark.training.pretraining import PretrainResult
from earmark.training.processes import process_group_left
from earmark.training.speed import compile_encoders, use_channels_last
from earmark.training.sync_batch_norm import CPUSyncBatchNorm
from tests.helpers.rank_runs import end_of, processes, train
from tests.helpers.small_methods import (
    METHODS,
    NUM_SAMPLES,
    TRAINED,
    LabelledClips,
    QuietClips,
    encoders,
    keywords_of,
    make_inputs,
)
from tests.helpers.tiny_run import NUM_CLIPS, TinyClips, assert_same_end

BATCH, NUM_STEPS = 8, 2


def make_method(name: str) -> nn.Module:
    """Build a method whose features go through batch norm, in float64."""
    method: Any = METHODS[name]().double()
    for encoder in method.backbone.values():
        encoder.layer = nn.Sequential(encoder.layer, CPUSyncBatchNorm(encoder.output_dim).double())
    return method  # type: ignore[no-any-return]


def steps(name: str, rows: slice) -> dict[str, Any]:
    """Do two steps without changing weights, so that the second sees what the first left in buffers.

    In processes, gradients are averaged as in training: by DistributedDataParallel.
    """
    method = make_method(name)
    inputs, keywords = [x[rows] for x in make_inputs(BATCH)], keywords_of(name, BATCH)
    keywords = {
        "index": keywords["index"][rows],
        "labels": {column: x[rows] for column, x in keywords["labels"].items()},
    }
    if isinstance(method, XDC):
        before, after, audio = make_inputs(NUM_SAMPLES)
        share = torch.arange(NUM_SAMPLES)[rank_of(rows) :: BATCH // len(inputs[0])]
        method.eval()
        method.start_epoch(0, lambda: [(share, method.embed(before[share], after[share], audio[share]))])
        method.train()
    module = DistributedDataParallel(method) if dist.is_initialized() else method
    losses = []
    for _ in range(NUM_STEPS):
        outputs = module(*inputs, **keywords)
        losses.append(outputs["loss"].detach())
        outputs["loss"].backward()
    gradients = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(method.parameters()))
    return {"losses": torch.stack(losses), "gradients": gradients, "buffers": dict(method.named_buffers())}


def rank_of(rows: slice) -> int:
    return 0 if rows.start is None else rows.start // (rows.stop - rows.start)


def reference_gather_gradients(rows: slice) -> list[Tensor]:
    """The gradients of the correspondence loss with the original's gather."""
    method = AudioVisualModel(
        *encoders(), hidden_dim=7, out_dim=5, gather="reference", state_change=StateChangeOptions(weight=0.0)
    ).double()
    module = DistributedDataParallel(method) if dist.is_initialized() else method
    module(*(x[rows] for x in make_inputs(BATCH)))["loss"].backward()
    return [p.grad for p in method.parameters() if p.grad is not None]


def run_rank(this_rank: int, num_processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    with process_group_left():
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=this_rank, world_size=num_processes
        )
        share = BATCH // num_processes
        rows = slice(this_rank * share, (this_rank + 1) * share)
        results: dict[str, Any] = {name: steps(name, rows) for name in METHODS}
        for name in METHODS:
            results[name]["losses"] = sum_over_processes(results[name]["losses"]) / num_processes
        own = torch.full((1, 2), float(this_rank), requires_grad=True)
        results["gathered"] = gather_without_gradient(own)
        results["summed"] = sum_over_processes(own)
        results["reference_gradients"] = reference_gather_gradients(rows)
        torch.save(results, Path(folder) / f"{this_rank}.pt")


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 4])
def test_n_processes_give_the_loss_gradient_and_memory_of_one_on_the_global_batch(
    num_processes: int, tmp_path: Path
) -> None:
    expected = {name: steps(name, slice(None)) for name in METHODS}
    mp.spawn(run_rank, args=(num_processes, str(tmp_path)), nprocs=num_processes)
    for this_rank in range(num_processes):
        results = torch.load(tmp_path / f"{this_rank}.pt", weights_only=True)
        for name, one in expected.items():
            for what in ("losses", "gradients", "buffers"):
                torch.testing.assert_close(
                    results[name][what],
                    one[what],
                    rtol=1e-10,
                    atol=1e-12,
                    msg=lambda text, name=name: f"{name}: {text}",
                )
        ranks = torch.arange(num_processes, dtype=torch.float32)[:, None].expand(-1, 2)
        assert torch.equal(results["gathered"], ranks)
        assert not results["gathered"].requires_grad
        assert torch.equal(results["summed"], ranks.sum(dim=0, keepdim=True))

        # The original's gather loses the gradient of the candidates, in one process as in several.
        torch.testing.assert_close(
            results["reference_gradients"], reference_gather_gradients(slice(None)), rtol=1e-10, atol=1e-12
        )


def test_without_processes_nothing_is_gathered() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    assert torch.equal(gather_without_gradient(x), x)
    assert not gather_without_gradient(x).requires_grad
    assert sum_over_processes(x) is x
    assert world_size() == 1


@pytest.mark.parametrize("state_change_negatives", ["reverse", "batch"])
def test_the_originals_gather_gives_candidates_no_gradient_in_one_process_too(state_change_negatives: Any) -> None:
    """Against a loop over the pairs whose candidates are detached, the clip's own sound included."""

    def gradients(gather: Any, loss_of: Any = lambda method: method(*make_inputs())["loss"]) -> tuple[Tensor, Tensor]:
        options = {"gather": gather, "state_change": StateChangeOptions(negatives=state_change_negatives)}
        method = AudioVisualModel(*encoders(), hidden_dim=7, out_dim=5, **options).double()
        loss = loss_of(method)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    def cross_entropy(anchor: Tensor, candidates: list[Tensor], own: int, temperature: float) -> Tensor:
        logits = [anchor @ candidate.detach() / temperature for candidate in candidates]
        return -(logits[own].exp() / sum((logit.exp() for logit in logits), torch.zeros(()))).log()

    def looped(method: AudioVisualModel) -> Tensor:
        unit = {name: x / x.norm(dim=1, keepdim=True) for name, x in method.embed(*make_inputs()).items()}
        before, after, sound = ([*unit[f"contrastive_{name}"]] for name in ("before", "after", "audio"))
        change, reverse, state_sound = ([*unit[x]] for x in ("change_forward", "change_backward", "state_audio"))
        contrastive, state_change = [], []
        for i in range(len(sound)):
            for anchor, candidates in ((before, sound), (after, sound), (sound, before), (sound, after)):
                contrastive.append(cross_entropy(anchor[i], candidates, i, 0.07) / 4)
            if state_change_negatives == "batch":
                state_change.append(cross_entropy(state_sound[i], change + reverse, i, 0.2) / 2)
                state_change.append(cross_entropy(change[i], state_sound, i, 0.2) / 2)
            else:  # compares within a sample: nothing is gathered
                state_change.append(-(change[i] @ state_sound[i] / 0.2).sigmoid().log() / 2)
                state_change.append(-(1 - (reverse[i] @ state_sound[i] / 0.2).sigmoid()).log() / 2)
        return (sum(contrastive, torch.zeros(())) + sum(state_change, torch.zeros(()))) / 2 / len(sound)

    loss, gradient = gradients("reference")
    expected_loss, expected = gradients("reference", looped)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    full_loss, full = gradients("full")
    assert loss == full_loss
    assert (gradient - full).norm() > 0.1 * full.norm()


# --- whole runs, with batch norm over all processes ---


def train_method(launch: Launch, folder: str, name: str, max_steps: int = 8) -> PretrainResult:
    clips = QuietClips() if "quiet" in name else LabelledClips()
    options = {"model": TRAINED[name], "clips": clips, "max_steps": max_steps}
    return train(launch, folder, "64-true", options)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.parametrize("name", [pytest.param(x, marks=() if x == "avid" else pytest.mark.slow) for x in TRAINED])
def test_two_processes_train_a_method_as_one_does_with_what_it_remembers(tmp_path: Path, name: str) -> None:
    one = end_of(train_method(processes(1), str(tmp_path / "one"), name))
    two = end_of(run_processes(processes(2), train_method, str(tmp_path / "two"), name))
    torch.testing.assert_close(two[0], one[0], rtol=1e-6, atol=1e-6)
    for found, expected in zip(two[1:], one[1:], strict=True):  # weights and memories, sums of gradients
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["avid", "xdc", "replai with options", "replai with quiet times"])
def test_two_processes_resume_what_a_method_remembers_bit_for_bit(tmp_path: Path, name: str) -> None:
    whole = run_processes(processes(2), train_method, str(tmp_path / "whole"), name)
    run_processes(processes(2), train_method, str(tmp_path / "parts"), name, 4)  # in the middle of the second epoch
    assert_same_end(whole, run_processes(processes(2), train_method, str(tmp_path / "parts"), name))


class PictureClips(TinyClips):
    """Clips large enough for real encoders."""

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        draw = np.random.default_rng(key[1])
        clips = draw.integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)
        sound = draw.integers(-(2**15), 2**15, 40 * 32, dtype=np.int16)
        return super().__getitem__(key) | {"video_before": clips[0], "video_after": clips[1], "audio": sound}


class PictureOfSound(nn.Module):
    def forward(self, audio: Tensor) -> Tensor:
        return (audio.float() / 2**15).reshape(-1, 1, 40, 32)


def train_encoders(launch: Launch, folder: str, ways: Sequence[str]) -> PretrainResult:
    """Two steps of real encoders, run as asked for."""

    def build() -> nn.Module:
        torch.manual_seed(1)
        sizes = {"num_samples": NUM_CLIPS, "num_negatives": 9, "hidden_dim": 16, "out_dim": 8}
        model = AVID(R2Plus1D(10, width=4), SpecCNN9(width=4), **sizes)
        for way in ways:
            {"last": use_channels_last, "compiled": compile_encoders}[way](model)
        return model

    options = {"clips": PictureClips(), "audio_transform": PictureOfSound(), "max_steps": 2, "model": build}
    return train(launch, folder, "64-true", options)


@pytest.mark.usefixtures("forked_processes")
@pytest.mark.slow
@pytest.mark.parametrize("ways", [["last"], ["last", "compiled"]])
def test_two_processes_with_each_way_of_running_encoders_train_as_one_plain_one(
    tmp_path: Path, ways: list[str]
) -> None:
    one = end_of(train_encoders(processes(1), str(tmp_path / "one"), []))
    two = end_of(run_processes(processes(2), train_encoders, str(tmp_path / "two"), ways))
    torch.testing.assert_close(two[0], one[0], rtol=1e-5, atol=1e-6)
    for found, expected in zip(two[1:], one[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
