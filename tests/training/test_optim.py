"""Schedules against their closed forms, epoch by epoch."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD

from earmark.training.optim import multi_step, one_cycle, require_schedule_covers, sgd


def _optimizer(**options: float) -> SGD:
    return sgd(nn.Linear(2, 1).parameters(), lr=0.7, **options)


def _rates_by_epoch(optimizer: SGD, scheduler: torch.optim.lr_scheduler.LRScheduler, epochs: int) -> list[list[float]]:
    """Return [lr, momentum] of each epoch of a run that steps the schedule between epochs."""
    rates = []
    for epoch in range(epochs):
        if epoch > 0:
            scheduler.step()
        rates.append([optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]])
        optimizer.step()
    return rates


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _one_cycle_oracle(step: int, *, max_lr: float, total_steps: int) -> list[float]:
    peak, end = 0.3 * total_steps - 1, total_steps - 1
    if step <= peak:
        return [_cosine(max_lr / 25, max_lr, step / peak), _cosine(0.95, 0.85, step / peak)]
    share = (step - peak) / (end - peak)
    return [_cosine(max_lr, max_lr / 250_000, share), _cosine(0.85, 0.95, share)]


@pytest.mark.parametrize("first_step", [0, 1])
@pytest.mark.parametrize(("max_lr", "total_steps"), [(0.005, 100), (0.05, 7)])
def test_one_cycle_follows_its_cosines_from_the_step_of_the_original(
    first_step: int, max_lr: float, total_steps: int
) -> None:
    optimizer = _optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a schedule stepped before its optimizer
        scheduler = one_cycle(
            optimizer, max_lr=max_lr, total_steps=total_steps, epochs=total_steps, first_step=first_step
        )
        rates = _rates_by_epoch(optimizer, scheduler, total_steps)
    expected = [
        _one_cycle_oracle(epoch + first_step, max_lr=max_lr, total_steps=total_steps) for epoch in range(total_steps)
    ]
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64))


def test_the_published_run_starts_at_step_one_and_ends_one_past_the_end() -> None:
    optimizer = _optimizer()
    rates = _rates_by_epoch(optimizer, one_cycle(optimizer, max_lr=0.005, total_steps=100), 100)
    assert rates[0][0] == pytest.approx(_cosine(0.0002, 0.005, 1 / 29))
    assert rates[28] == pytest.approx([0.005, 0.85])
    assert rates[98] == pytest.approx([0.005 / 250_000, 0.95])
    assert rates[99][0] > rates[98][0]


def test_a_schedule_shorter_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="total_steps=99, but the run has 100 epochs"):
        one_cycle(_optimizer(), max_lr=0.1, total_steps=99, epochs=100)
    optimizer = _optimizer()
    require_schedule_covers(multi_step(optimizer, milestones=[1]), epochs=100)
    require_schedule_covers(one_cycle(optimizer, max_lr=0.1, total_steps=100), epochs=100)


def test_a_first_step_that_is_neither_0_nor_1_is_refused() -> None:
    with pytest.raises(ValueError, match="first_step must be 0 or 1"):
        one_cycle(_optimizer(), max_lr=0.1, total_steps=9, first_step=2)


def test_multi_step_drops_the_rate_at_the_published_epochs() -> None:
    optimizer = _optimizer()
    rates = [lr for lr, _ in _rates_by_epoch(optimizer, multi_step(optimizer, milestones=(18, 24)), 30)]
    assert rates == pytest.approx([0.7] * 18 + [0.07] * 6 + [0.007] * 6)


def test_sgd_steps_as_its_formula_says() -> None:
    """Two steps on gradient g with weight decay: v = g + wd w; then v = 0.9 v + g + wd w."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = sgd([weight], lr=0.1)
    expected, velocity = 2.0, 0.0
    for gradient in (0.5, -0.25):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 1e-4 * expected
        expected -= 0.1 * velocity
    assert weight.item() == pytest.approx(expected, rel=1e-12)
