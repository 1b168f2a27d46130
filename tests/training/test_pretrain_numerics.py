"""What the loop computes besides: parts of a batch, clipped gradients, averaged weights, what a NaN names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from earmark.training.checkpoint import CheckpointError, load_checkpoint
from earmark.training.step import NonFiniteError
from tests.helpers.tiny_run import (
    NUM_CLIPS,
    NanAtStep,
    assert_same_end,
    plain_model,
    run,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(tmp_path: Path) -> None:
    """For a loss that is a mean over samples, and without batch norm and dropout, parts change rounding only."""
    whole = run(tmp_path / "whole", model=plain_model(), max_steps=6)
    parts = run(tmp_path / "parts", model=plain_model(), max_steps=6, accumulate=2)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-5, atol=1e-7)
    assert parts.last_losses == pytest.approx(whole.last_losses, rel=1e-5)
    with pytest.raises(ValueError, match="a batch of 4 samples of one process can't be cut into 3 equal parts"):
        run(tmp_path / "three", accumulate=3)


def test_a_gradient_longer_than_allowed_is_scaled_and_a_shorter_one_is_not(tmp_path: Path) -> None:
    """In the first step of momentum SGD without weight decay the weights move by lr times the gradient."""

    def moved(name: str, **options: Any) -> Tensor:
        model = plain_model()
        optimizer_free = {key: value.clone() for key, value in model.state_dict().items()}
        result = run(tmp_path / name, model=model, schedule="none", max_steps=1, **options)
        after = weights_of(result)
        return torch.cat([(after[key] - value * (1 - 0.05 * 1e-4)).flatten() for key, value in optimizer_free.items()])

    free, clipped, loose = moved("free"), moved("clipped", max_gradient_norm=0.01), moved("loose", max_gradient_norm=99)
    assert free.norm() > 10 * 0.05 * 0.01
    torch.testing.assert_close(clipped.norm(), torch.tensor(0.05 * 0.01), rtol=1e-3, atol=0)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-3, atol=1e-4)
    assert torch.equal(loose, free)


def test_the_average_of_the_weights_is_the_recurrence_and_survives_a_resume(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ema_decay": 0.8, "save_every_steps": 1, "retain": 99, "save_every_epochs": 99}
    whole = run(tmp_path / "whole", **options)
    paths = sorted((tmp_path / "whole" / "checkpoints").glob("latest_*.pt"))
    steps = [load_checkpoint(path)["model"] for path in [*paths, whole.checkpoint_path] if path]
    average = steps[0]["video.3.weight"].clone()
    for state in steps[1:]:
        average = 0.8 * average + 0.2 * state["video.3.weight"]
    assert len(steps) == 12
    torch.testing.assert_close(weights_of(whole, "ema")["module.video.3.weight"], average, rtol=1e-5, atol=1e-7)
    assert torch.equal(weights_of(whole, "ema")["module.video.1.running_mean"], steps[-1]["video.1.running_mean"])
    run(tmp_path / "parts", **options, max_steps=5)
    assert_same_end(whole, run(tmp_path / "parts", **options))
    with pytest.raises(CheckpointError, match="can't be resumed with an average of its weights if it had none"):
        run(tmp_path / "parts", **options | {"ema_decay": None})


def test_a_loss_that_is_not_finite_names_the_samples(tmp_path: Path) -> None:
    from earmark.clips.sampling import epoch_order, sample_seed

    indices = epoch_order(NUM_CLIPS, seed=5, epoch=1)[4:8].tolist()
    named = ", ".join(f"video {index} with {sample_seed(5, 1, index)}" for index in indices)
    with pytest.raises(NonFiniteError, match=f"the loss is nan on the batch of {named}"):
        run(tmp_path, model=NanAtStep(5), describe=lambda index, seed: f"video {index} with {seed}")
