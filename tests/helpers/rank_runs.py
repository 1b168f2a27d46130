"""The tiny run in several real processes, and what it ends with."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earmark.encoders import Encoder
from earmark.methods.replai import AudioVisualModel
from earmark.training.checkpoint import load_checkpoint
from earmark.training.launch import Launch, join_processes, plan_launch
from earmark.training.pretraining import PretrainResult
from tests.helpers.tiny_run import lines_of, run


def processes(num_local: int) -> Launch:
    return plan_launch({}, accelerator="cpu", num_local=num_local)


class NormedEncoder(Encoder):
    """A linear map with batch norm, whose statistics tell processes apart unless they are shared."""

    output_dim = 6

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_dim, 8), nn.BatchNorm1d(8), nn.Linear(8, 6))

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x).tanh()
        return features[:, :, None]


def normed_model() -> AudioVisualModel:
    torch.manual_seed(3)
    return AudioVisualModel(NormedEncoder(3 * 2 * 4 * 4), NormedEncoder(12), hidden_dim=7, out_dim=5)


def train(launch: Launch, folder: str, precision: str, options: dict[str, Any]) -> PretrainResult:
    """Twenty steps of batches of 4, five of them an epoch."""
    torch.set_num_threads(1)
    fabric = join_processes(launch, precision=precision)
    model = options.pop("model", normed_model)()
    defaults: dict[str, Any] = {"epochs": 7, "schedule": "multi_step", "max_steps": 20}
    return run(Path(folder), model=model, fabric=fabric, **defaults | options)


def end_of(result: PretrainResult) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """Return the losses of all steps, the weights, and the momentum: the sum of all gradients, the late ones most."""
    assert result.checkpoint_path is not None
    state = load_checkpoint(result.checkpoint_path)
    losses = [line["loss"] for line in lines_of(result) if line["kind"] == "step"]
    momentum = [value["momentum_buffer"] for value in state["optimizer"]["state"].values()]
    return torch.tensor(losses, dtype=torch.float64), state["model"], momentum
