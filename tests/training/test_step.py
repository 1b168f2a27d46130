"""What an update must not leave behind: momentum of weights that were drawn anew, parameters out of their range."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from earmark.methods import XDC
from earmark.methods.replai import MIN_TEMPERATURE, AudioVisualModel, ContrastiveOptions, StateChangeOptions
from earmark.training.checkpoint import load_checkpoint, save_checkpoint
from earmark.training.step import begin_anew, ema_of
from tests.helpers.rank_runs import processes, train
from tests.helpers.small_methods import TRAINED, LabelledClips, normed_encoders
from tests.helpers.tiny_run import NUM_CLIPS, assert_same_end, lines_of, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=0.1),
    ],
)
def test_parameters_that_begin_anew_are_updated_as_by_a_fresh_optimizer_and_others_as_before(make: Any) -> None:
    def steps(model: nn.Module, optimizer: Any, number: int) -> None:
        for step in range(number):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(step + 1))).square().sum().backward()
            optimizer.step()

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer, ema = make(model.parameters()), ema_of(model, 0.9)
    steps(model, optimizer, 3)
    ema.update_parameters(model)
    averaged = ema.module[0].weight.clone()
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.normal_()
    begin_anew(model[1].parameters(), model, optimizer, ema)
    assert torch.equal(ema.module[1].weight, model[1].weight)
    assert torch.equal(ema.module[0].weight, averaged)

    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    other.load_state_dict(model.state_dict())
    fresh = make(other.parameters())
    old = {id(p): {k: v.clone() for k, v in optimizer.state[p].items()} for p in model[0].parameters()}
    steps(model, optimizer, 1)
    steps(other, fresh, 1)
    torch.testing.assert_close(model[1].state_dict(), other[1].state_dict())
    for parameter in model[0].parameters():  # whose momentum stayed
        assert not torch.equal(dict(other.named_parameters())["0.weight"], model[0].weight)
        assert any((value != 0).any() for value in old[id(parameter)].values())


def classifiers_of(state: Mapping[str, Any]) -> list[int]:
    """Places of the classifiers of XDC among the parameters."""
    names = [name for name, _ in TRAINED["xdc"]().named_parameters()]
    return [place for place, name in enumerate(names) if name.startswith("classifiers.")]


def test_new_classifiers_of_xdc_take_nothing_over_from_those_of_the_epoch_before(tmp_path: Path) -> None:
    """At an epoch's edge their momentum and average may be anything: the run goes on alike."""

    def train_xdc(name: str, max_steps: int) -> Any:
        options = {"model": TRAINED["xdc"](), "clips": LabelledClips(), "ema_decay": 0.9}
        return run(tmp_path / name, max_steps=max_steps, **options)

    whole = train_xdc("whole", 8)
    for name, scale in (("same", 1.0), ("other", 1000.0)):
        first = train_xdc(name, 3)  # an epoch
        assert first.checkpoint_path is not None
        state = dict(load_checkpoint(first.checkpoint_path))
        for place in classifiers_of(state):
            state["optimizer"]["state"][place]["momentum_buffer"].mul_(scale)
        for key, value in state["ema"].items():
            if "classifiers" in key:
                value.mul_(scale)
        save_checkpoint(first.checkpoint_path, state)
        assert_same_end(whole, train_xdc(name, 8))


def test_momentum_of_new_classifiers_is_that_of_their_own_gradients(tmp_path: Path) -> None:
    """After the first step of an epoch it is the one gradient there was, of the size of what is learned from it."""
    seen: dict[str, Tensor] = {}

    class Watched(XDC):
        def forward(self, *inputs: Tensor, **keywords: Any) -> dict[str, Tensor]:
            outputs = super().forward(*inputs, **keywords)
            for name, classifier in self.classifiers.items():
                weight = classifier.get_parameter("weight")
                gradient = torch.autograd.grad(outputs["loss"], weight, retain_graph=True)[0]
                seen[name] = gradient + 1e-4 * weight.detach()  # the weight decay of the optimizer
            return outputs

    result = run(
        tmp_path / "run",
        model=Watched(*normed_encoders(), num_samples=NUM_CLIPS, num_clusters=3),
        clips=LabelledClips(),
        max_steps=4,  # one after the first epoch
    )
    assert result.checkpoint_path is not None
    state = load_checkpoint(result.checkpoint_path)
    names = [name for name, _ in TRAINED["xdc"]().named_parameters()]
    for kind, expected in seen.items():
        momentum = state["optimizer"]["state"][names.index(f"classifiers.{kind}.weight")]["momentum_buffer"]
        torch.testing.assert_close(momentum, expected)


def hot_model() -> AudioVisualModel:
    """Its first temperature begins at the bound, and one large update would take it far below."""
    torch.manual_seed(3)
    options: dict[str, Any] = {
        "learnable_temperature": True,
        "contrastive": ContrastiveOptions(temperature=MIN_TEMPERATURE),
        "state_change": StateChangeOptions(weight=0.0),
    }
    return AudioVisualModel(*normed_encoders(), hidden_dim=7, out_dim=5, **options)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_learned_temperatures_stay_in_their_range_and_leave_its_edge(tmp_path: Path, accumulate: int) -> None:
    def train_hot(name: str, max_steps: int) -> Any:
        options = {"accumulate": accumulate, "ema_decay": 0.5, "max_steps": max_steps, "model": hot_model}
        return train(processes(1), str(tmp_path / name), "64-true", options)

    whole = train_hot("whole", 20)
    temperatures = [line["temperature"] for line in lines_of(whole) if line["kind"] == "step"]
    assert min(temperatures) >= MIN_TEMPERATURE * (1 - 1e-6)
    assert max(temperatures) > 1.01 * MIN_TEMPERATURE
    assert whole.checkpoint_path is not None
    state = load_checkpoint(whole.checkpoint_path)
    for scales in (state["model"]["log_temperature_scales"], state["ema"]["module.log_temperature_scales"]):
        assert scales[0] >= -1e-12

    # What an older run left out of range is put back to the edge.
    first = train_hot("parts", 10)
    assert first.checkpoint_path is not None
    state = dict(load_checkpoint(first.checkpoint_path))
    state["model"]["log_temperature_scales"][0] = -5.0
    save_checkpoint(first.checkpoint_path, state)
    later = [line for line in lines_of(train_hot("parts", 20)) if line["kind"] == "step" and line["step"] > 10]
    assert later[0]["temperature"] == pytest.approx(MIN_TEMPERATURE)
    assert later[-1]["temperature"] > 1.01 * MIN_TEMPERATURE
