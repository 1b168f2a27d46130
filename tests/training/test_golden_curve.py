"""Golden curves: the losses of 20 steps in float64 on the CPU, frozen, so that no change of the loop goes unseen.

``tests/golden/curve_METHOD.json`` holds the loss of each step as the model gave it; the lines of metrics, which round
it to float32; and sum and norm of each tensor in the last checkpoint. Data and first weights come from NumPy's
`RandomState`, whose draws NumPy promises to keep, and the transforms work in float64, so that processor and version of
PyTorch matter by rounding only. A change that is meant to move the curves writes them anew, and says so:

    python -m tests.training.test_golden_curve
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from earmark.clips.dataset import collate
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods import AVID, XDC
from earmark.methods.replai import AudioVisualModel, ContrastiveOptions
from earmark.training.checkpoint import load_checkpoint
from earmark.training.optim import one_cycle, sgd
from earmark.training.pretraining import PretrainResult
from tests.helpers.flat_pretrain import pretrain
from tests.helpers.tiny_run import lines_of

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parents[1] / "golden"
NUM_CLIPS, BATCH_SIZE, EPOCHS = 18, 4, 5  # 4 batches an epoch, 2 clips left out of each: 20 steps
TOLERANCE = {"replai": 1e-9, "avid": 1e-9, "xdc": 1e-5}  # XDC draws its classifiers in float32, anew in each epoch
IN_FLOAT32 = 1e-6  # metrics are rounded to it, so a loss between two of its numbers may become either


class DrawnClips:
    """Clips and sounds drawn from (index, seed)."""

    def __len__(self) -> int:
        return NUM_CLIPS

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        draw = np.random.RandomState([index, seed % 2**32])
        scene = draw.randint(0, 256, (1, 16, 16, 3))
        before, after = (scene + draw.randint(-60, 60, (4, 16, 16, 3)) for _ in range(2))
        return {
            "video_before": before.clip(0, 255).astype(np.uint8),
            "video_after": after.clip(0, 255).astype(np.uint8),
            "audio": (scene[0, :, :, 0].reshape(-1) * 100 + draw.randint(-3000, 3000, 256)).astype(np.int16),
            "index": np.int64(index),
            "seed": np.int64(seed),
            "video_size": np.array([16, 16]),
        }


class ScaledVideo(nn.Module):
    """(B, T, H, W, 3) to (B, 3, T, H, W) float64, each sample times a number of its seed and stream."""

    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor, *, stream: int) -> Tensor:
        scales = [np.random.RandomState([int(s) % 2**32, stream]).uniform(0.5, 1.5) for s in seed]
        scale = torch.tensor(scales, dtype=torch.float64)[:, None, None, None, None]
        return (video.permute(0, 4, 1, 2, 3).double() / 128 - 1) * scale


class SquareSound(nn.Module):
    """(B, 256) to (B, 1, 16, 16) float64."""

    def forward(self, audio: Tensor) -> Tensor:
        return (audio.double() / 2**15).reshape(-1, 1, 16, 16)


def make_model(method: str) -> nn.Module:
    """Build a small model in float64 with weights from NumPy."""
    encoders = R2Plus1D(10, width=4), SpecCNN9(width=4)
    model: nn.Module = {
        "replai": lambda: AudioVisualModel(
            *encoders, hidden_dim=16, out_dim=8, contrastive=ContrastiveOptions(queue_size=8)
        ),
        "avid": lambda: AVID(*encoders, num_samples=NUM_CLIPS, num_negatives=8, hidden_dim=16, out_dim=8),
        "xdc": lambda: XDC(*encoders, num_samples=NUM_CLIPS, num_clusters=3),
    }[method]()
    model.double()
    draw = np.random.RandomState(3)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if name.endswith(".bias"):
                tensor.zero_()
            elif tensor.ndim >= 2 and tensor.is_floating_point():
                values = torch.from_numpy(draw.standard_normal(tuple(tensor.shape)))
                is_direction = "queue" in name or "memory" in name
                tensor.copy_(values / (values.norm(dim=-1, keepdim=True) if is_direction else tensor[0].numel() ** 0.5))
    return model


def run(run_dir: Path, method: str, losses: list[float], *, max_steps: int | None = None) -> PretrainResult:
    """Start the run, or go on with it, as a fresh process would; the losses are added to the list."""
    model = make_model(method)
    model.register_forward_hook(lambda module, inputs, output: losses.append(output["loss"].item()))
    optimizer = sgd(model.parameters(), lr=0.02)
    return pretrain(
        model=model,
        clips=DrawnClips(),
        collate_fn=collate,
        video_transform=ScaledVideo(),
        audio_transform=SquareSound(),
        optimizer=optimizer,
        scheduler=one_cycle(optimizer, max_lr=0.02, total_steps=EPOCHS),
        run_dir=run_dir,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        seed=5,
        num_workers=0,
        fabric=Fabric(accelerator="cpu", devices=1, precision="64-true"),
        config={},
        fingerprint="golden",
        max_steps=max_steps,
        max_gradient_norm=2.0,
        ema_decay=0.9,
        log_every=1,
        tensorboard=False,
        progress=False,
    )


def curve_of(result: PretrainResult, losses: list[float]) -> dict[str, Any]:
    """Return what is frozen of a run: losses, lines of metrics, two numbers of each tensor of its last checkpoint."""
    state = load_checkpoint(str(result.checkpoint_path))
    momentum = {str(number): values["momentum_buffer"] for number, values in state["optimizer"]["state"].items()}
    parts = {"model": state["model"], "ema": state["ema"], "momentum": momentum}
    return {
        "losses": losses,
        "metrics": lines_of(result),
        "tensors": {
            f"{part}.{name}": [tensor.double().sum().item(), tensor.double().norm().item()]
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        },
    }


def assert_same_curve(found: Mapping[str, Any], method: str) -> None:
    golden = json.loads((GOLDEN / f"curve_{method}.json").read_text())
    tolerance = TOLERANCE[method]
    assert len(golden["losses"]) == 20
    assert found["losses"] == pytest.approx(golden["losses"], rel=tolerance, abs=0)
    for line, expected in zip(found["metrics"], golden["metrics"], strict=True):
        assert line.pop("kind") == expected.pop("kind")
        assert line == pytest.approx(expected, rel=max(tolerance, IN_FLOAT32), abs=max(tolerance, 1e-7))
    assert found["tensors"].keys() == golden["tensors"].keys()
    for name, (total, norm) in golden["tensors"].items():
        # a sum of terms that cancel is exact to the norm's rounding only
        assert found["tensors"][name] == pytest.approx([total, norm], rel=tolerance, abs=tolerance * (1 + norm)), name


@pytest.mark.parametrize("method", TOLERANCE)
def test_twenty_steps_give_the_golden_curve(tmp_path: Path, method: str) -> None:
    losses: list[float] = []
    assert_same_curve(curve_of(run(tmp_path, method, losses), losses), method)


@pytest.mark.parametrize("method", TOLERANCE)
def test_a_run_resumed_in_mid_epoch_gives_the_golden_curve(tmp_path: Path, method: str) -> None:
    losses: list[float] = []
    assert run(tmp_path, method, losses, max_steps=10).steps == 10
    assert_same_curve(curve_of(run(tmp_path, method, losses), losses), method)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name in TOLERANCE:
        drawn: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(curve_of(run(Path(folder), name, drawn), drawn), indent=1)
        (GOLDEN / f"curve_{name}.json").write_text(text + "\n")
