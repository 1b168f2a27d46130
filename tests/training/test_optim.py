"""Schedules against their closed forms, epoch by epoch."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from earmark.training.optim import WarmupCosineLR, multi_step, one_cycle, require_schedule_covers, sgd


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


@pytest.mark.parametrize(
    ("total_steps", "warmup_steps"), [(1, 0.0), (10, 0.0), (12, 3.0), (12, 2.5), (7, 0.25), (40, 39.9)]
)
def test_the_cosine_with_warm_up_is_its_closed_form_in_float64(total_steps: int, warmup_steps: float) -> None:
    """Stepped, or told each place in any order: the same rates, each group's in proportion to its own."""
    layer = nn.Linear(2, 1)
    optimizer = sgd([{"params": [layer.weight], "lr": 0.7}, {"params": [layer.bias], "lr": 0.07}], lr=0.1)
    scheduler = WarmupCosineLR(optimizer, total_steps=total_steps, warmup_steps=warmup_steps)
    steps = np.arange(total_steps, dtype=np.float64)
    cosine = np.cos(np.pi * (steps - warmup_steps) / (total_steps - warmup_steps) / 2) ** 2  # by the half angle
    expected = np.where(steps < warmup_steps, (steps + 1) / (warmup_steps + 1), cosine)
    stepped = []
    for _ in range(total_steps):
        stepped.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(stepped, expected[:, None] * [0.7, 0.07], rtol=1e-12)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]  # where a step after the last would be
    told = {}
    for step in reversed(range(total_steps)):
        scheduler.go_to(step)
        told[step] = [group["lr"] for group in optimizer.param_groups]
        assert scheduler.get_last_lr() == told[step]
    assert [told[step] for step in range(total_steps)] == stepped
    assert min(min(rates) for rates in stepped) > 0


def test_the_cosine_rises_without_a_break_and_then_falls() -> None:
    schedule = WarmupCosineLR(_optimizer(), total_steps=100, warmup_steps=10)
    shares = np.array([schedule.share_of(step) for step in range(100)])
    np.testing.assert_allclose(np.diff(shares[:11]), 1 / 11)
    assert shares[10] == shares.max() == 1
    assert (np.diff(shares[10:]) < 0).all()


@pytest.mark.parametrize("warmup_steps", [-0.5, 12, 13.5])
def test_a_warm_up_that_leaves_no_cosine_is_refused(warmup_steps: float) -> None:
    with pytest.raises(ValueError, match="need a warm-up of at least 0 and fewer than the 12 steps"):
        WarmupCosineLR(_optimizer(), total_steps=12, warmup_steps=warmup_steps)


def test_a_cosine_shorter_than_the_run_is_refused() -> None:
    schedule = WarmupCosineLR(_optimizer(), total_steps=11)
    require_schedule_covers(schedule, epochs=11)
    with pytest.raises(ValueError, match="total_steps=11, but the run has 12: 4 epochs of 3 steps"):
        require_schedule_covers(schedule, epochs=4, steps_per_epoch=3)


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
