"""The whole model: the original's names, losses and gradients; what it promises of its diagnostics."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.methods.replai import (
    AudioVisualModel,
    ClipPairOptions,
    ContrastiveOptions,
    MomentDetectionOptions,
    StateChangeOptions,
)
from tests.helpers.reference_weights import load_reference_weights

# The reference's names of embeddings: l before, r after, a audio; it normalizes those for the correspondence loss.
EMBEDDINGS = {
    "clr_emb_l": "contrastive_before",
    "clr_emb_r": "contrastive_after",
    "clr_emb_a": "contrastive_audio",
    "aot_emb_l": "state_before",
    "aot_emb_r": "state_after",
    "aot_emb_a": "state_audio",
}
FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def record(reference: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((reference / "objectives.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def arrays(reference: Path) -> Any:
    return np.load(reference / "objectives.npz")


def reference_inputs(record: dict[str, Any]) -> list[Tensor]:
    inputs = []
    for entry in record["inputs"].values():
        values = np.random.RandomState(entry["seed"]).standard_normal(entry["shape"])
        inputs.append(torch.from_numpy(values.astype(np.float32)))
    return inputs


@dataclass
class Step:
    """One step of the model with the reference's weights and inputs, in float64."""

    mode: str
    outputs: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    model: AudioVisualModel


@pytest.fixture(scope="module", params=["train", "eval"])
def step(request: pytest.FixtureRequest, record: dict[str, Any]) -> Step:
    model = AudioVisualModel(R2Plus1D(), SpecCNN9())
    load_reference_weights(model)
    model.double().train(request.param == "train")
    kept: dict[str, Tensor] = {}
    embed = model.embed
    model.embed = lambda *inputs: kept.update(embed(*inputs)) or kept  # type: ignore[func-returns-value, method-assign]
    outputs = model(*(x.double() for x in reference_inputs(record)))
    outputs["loss"].backward()
    return Step(request.param, outputs, {key: value.detach() for key, value in kept.items()}, model)


def assert_close(actual: Tensor, expected: np.ndarray, message: str) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-9, atol=1e-12 * scale, err_msg=message)


def test_reference_inputs_are_the_recorded_ones(record: dict[str, Any]) -> None:
    for x, entry in zip(reference_inputs(record), record["inputs"].values(), strict=True):
        assert x.flatten()[:4].tolist() == entry["first4"]
        assert x.double().sum().item() == pytest.approx(entry["sum"], rel=1e-9)


def test_state_dict_has_the_originals_keys_in_their_order(record: dict[str, Any]) -> None:
    state = AudioVisualModel(R2Plus1D(), SpecCNN9()).state_dict()
    expected = record["state_dict_keys"]
    assert [[key, list(value.shape), str(value.dtype)] for key, value in state.items()] == expected
    assert len(expected) == 275


def test_losses_are_the_originals(step: Step, record: dict[str, Any]) -> None:
    expected = record[f"{step.mode}_f64"]
    assert step.outputs["contrastive_loss"].item() == pytest.approx(expected["clr_loss"], rel=1e-9)
    # The original rounds the state change loss, not its gradients, to float32.
    assert step.outputs["state_change_loss"].item() == pytest.approx(expected["aot_loss"], rel=FLOAT32_EPSILON)
    assert step.outputs["loss"].item() == pytest.approx(expected["total_loss"], rel=FLOAT32_EPSILON)
    assert set(expected) == {"clr_loss", "aot_loss", "total_loss", "grad_norms"}


def test_gradient_norms_of_modules_are_the_originals(step: Step, record: dict[str, Any]) -> None:
    expected = record[f"{step.mode}_f64"]["grad_norms"]
    assert len(expected) == 10
    for module, norm in expected.items():
        prefix = "" if module == "ALL" else f"{module}."
        gradients = [
            p.grad for name, p in step.model.named_parameters() if name.startswith(prefix) and p.grad is not None
        ]
        assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(norm, rel=1e-9), module


def test_embeddings_are_the_originals(step: Step, arrays: Any) -> None:
    for key, name in EMBEDDINGS.items():
        embedding = step.embeddings[name]
        if key.startswith("clr"):
            embedding = embedding / embedding.norm(dim=1, keepdim=True)
        assert_close(embedding, arrays[f"{step.mode}__f64__{key}"], key)


def test_gradients_are_the_originals(step: Step, arrays: Any) -> None:
    prefix = f"{step.mode}__f64__grad__"
    keys = [key for key in arrays.files if key.startswith(prefix)]
    assert len(keys) == 5
    for key in keys:
        gradient = step.model.get_parameter(key.removeprefix(prefix)).grad
        assert gradient is not None
        assert_close(gradient.flatten()[:64], arrays[key], key)


def test_batch_norm_after_one_step_is_the_originals(step: Step, arrays: Any) -> None:
    prefix = "train__f64__after__"
    keys = [key for key in arrays.files if key.startswith(prefix)]
    assert len(keys) == 4
    if step.mode == "train":
        for key in keys:
            assert_close(step.model.get_buffer(key.removeprefix(prefix)), arrays[key], key)
    else:
        assert all(int(value) == 0 for key, value in step.model.state_dict().items() if key.endswith("batches_tracked"))


def test_no_reference_array_is_forgotten(arrays: Any, record: dict[str, Any]) -> None:
    read = {f"{mode}__f64__{key}" for mode in ("train", "eval") for key in EMBEDDINGS}
    read |= {key for key in arrays.files if "__f64__grad__" in key or "__f64__after__" in key}
    # These are read in test_objectives.py.
    read |= {
        f"pure_{loss}__n4__{x}"
        for loss in ("clr", "aot")
        for x in ("l", "r", "a", "loss", "grad_l", "grad_r", "grad_a")
    }
    assert set(arrays.files) == read
    assert set(record) == {"inputs", "state_dict_keys", "train_f64", "eval_f64"}


def small_model(**options: Any) -> AudioVisualModel:
    return AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4), hidden_dim=16, out_dim=8, **options)


def small_inputs(num: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    before, after = torch.randn(2, num, 3, 4, 32, 32)
    return before, after, torch.randn(num, 1, 40, 32)


def test_both_clips_are_one_batch_for_batch_norm() -> None:
    model, (before, after, audio) = small_model(), small_inputs()
    shapes = []
    model.backbone["video"].register_forward_pre_hook(lambda _module, args: shapes.append(args[0].shape))
    model(before, after, audio)
    model.eval()(before, after, audio)
    assert shapes == [(8, 3, 4, 32, 32)] * 2
    assert model.backbone["video"].get_buffer("conv1.1.num_batches_tracked") == 1


def test_exchanging_the_clips_exchanges_the_embeddings() -> None:
    model, (before, after, audio) = small_model().eval(), small_inputs()
    there, back = model.embed(before, after, audio), model.embed(after, before, audio)
    for one, other in (("contrastive_before", "contrastive_after"), ("change_forward", "change_backward")):
        torch.testing.assert_close(there[one], back[other])
        torch.testing.assert_close(there[other], back[one])


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    inputs = small_inputs()
    for contrastive_weight, state_change_weight in ((0.5, 0.5), (1.0, 0.0), (0.25, 2.0)):
        options = {
            "contrastive": ContrastiveOptions(weight=contrastive_weight),
            "state_change": StateChangeOptions(weight=state_change_weight),
        }
        outputs = small_model(**options)(*inputs)
        expected = contrastive_weight * outputs["contrastive_loss"] + state_change_weight * outputs["state_change_loss"]
        assert outputs["loss"].item() == pytest.approx(expected.item())


def test_pairs_of_clips_are_one_more_term_by_its_definition() -> None:
    torch.manual_seed(2)
    model, inputs = small_model(clip_pair=ClipPairOptions(weight=0.3, temperature=0.2)).double().eval(), small_inputs()
    inputs = tuple(x.double() for x in inputs)
    embeddings, outputs = model.embed(*inputs), model(*inputs)
    views = np.concatenate(
        [embeddings[f"contrastive_{clip}"].detach().numpy() for clip in ("before", "after")]
    )  # (2 x 4, 8)
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    expected = 0.0
    for view in range(8):
        to_others = {other: math.exp(views[view] @ views[other] / 0.2) for other in range(8) if other != view}
        expected -= math.log(to_others[(view + 4) % 8] / sum(to_others.values())) / 8
    assert outputs["clip_pair_loss"].item() == pytest.approx(expected, rel=1e-12)
    two_terms = 0.5 * outputs["contrastive_loss"] + 0.5 * outputs["state_change_loss"]
    assert outputs["loss"].item() == pytest.approx(two_terms.item() + 0.3 * expected, rel=1e-12)
    model.clip_pair = ClipPairOptions()
    without = model(*inputs)
    assert without["loss"].item() == pytest.approx(two_terms.item(), rel=1e-12)
    assert "clip_pair_loss" not in without


def test_pairs_of_clips_reach_the_video_encoder_alone() -> None:
    model = small_model(
        contrastive=ContrastiveOptions(weight=0.0),
        state_change=StateChangeOptions(weight=0.0),
        clip_pair=ClipPairOptions(weight=1.0),
    )
    model(*small_inputs())["loss"].backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert {"mlp.video_clr.0.weight", "backbone.video.conv1.0.weight"} <= reached
    assert not any(name.startswith(("backbone.audio", "mlp.audio", "mlp.aot", "mlp.video_aot")) for name in reached)


IS_MOMENT = torch.tensor([1, 0, 1, 1])


def test_quiet_times_are_left_out_of_the_losses_of_moments() -> None:
    model = small_model(clip_pair=ClipPairOptions(weight=0.3)).double().eval()
    inputs = tuple(x.double() for x in small_inputs())
    outputs, embeddings = model(*inputs, labels={"moment": IS_MOMENT}), model.embed(*inputs)
    before, after, sound = (
        (x := embeddings[f"contrastive_{kind}"].detach().numpy()) / np.linalg.norm(x, axis=1, keepdims=True)
        for kind in ("before", "after", "audio")
    )
    terms = []
    for i in (0, 2, 3):
        for anchors, candidates in ((before, sound), (after, sound), (sound, before), (sound, after)):
            logits = {j: anchors[i] @ candidates[j] / 0.07 for j in (0, 2, 3)}
            terms.append(math.log(sum(math.exp(x) for x in logits.values())) - logits[i])
    assert outputs["contrastive_loss"].item() == pytest.approx(np.mean(terms), rel=1e-10)
    kept = model(*(x[IS_MOMENT > 0] for x in inputs))
    for name in ("contrastive_loss", "state_change_loss", "clip_pair_loss"):
        assert outputs[name].item() == pytest.approx(kept[name].item(), rel=1e-12)
    for name in ("positive_similarity", "state_change_accuracy", "direction_accuracy"):
        assert outputs[name].item() == pytest.approx(kept[name].item(), rel=1e-6)
    negative = [clips[i] @ sound[j] for clips in (before, after) for i in (0, 2, 3) for j in range(4) if i != j]
    assert outputs["negative_similarity"].item() == pytest.approx(np.mean(negative), rel=1e-6)
    every = model(*inputs, labels={"moment": torch.ones(4, dtype=torch.int64)})
    plain = model(*inputs)
    assert every["loss"].item() == pytest.approx(plain["loss"].item(), rel=1e-12)


def test_a_batch_of_quiet_times_alone_has_no_loss_but_that_of_telling_them() -> None:
    model = small_model(moment_detection=MomentDetectionOptions(weight=0.5))
    inputs = small_inputs()
    outputs = model(*inputs, labels={"moment": torch.zeros(4, dtype=torch.int64)})
    assert outputs["contrastive_loss"].item() == outputs["state_change_loss"].item() == 0
    assert outputs["loss"].item() == pytest.approx(0.5 * outputs["moment_detection_loss"].item(), rel=1e-6)
    outputs["loss"].backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())
    plain = model(*inputs, labels={"moment": torch.ones(4, dtype=torch.int64)})
    for name in ("positive_similarity", "negative_similarity", "state_change_accuracy", "direction_accuracy"):
        assert outputs[name].item() == pytest.approx(plain[name].item(), rel=1e-5)  # of all samples, and no NaN


def test_moments_are_told_from_quiet_times_by_what_changes_in_the_features() -> None:
    model = small_model(moment_detection=MomentDetectionOptions(weight=0.5, quiet_share=0.2)).double().eval()
    inputs = tuple(x.double() for x in small_inputs())
    outputs = model(*inputs, labels={"moment": IS_MOMENT})
    features = [model.backbone["video"](clip).detach().numpy() for clip in inputs[:2]]
    head = {key: value.detach().numpy() for key, value in model.mlp["moment"].state_dict().items()}
    hidden = np.maximum(np.abs(features[1] - features[0]) @ head["0.weight"].T + head["0.bias"], 0)
    logits = (hidden @ head["2.weight"].T + head["2.bias"])[:, 0]
    chance = 1 / (1 + np.exp(-logits))
    moment = IS_MOMENT.numpy()
    # in batches of one quiet time of five the mean is half that of moments and half that of quiet times
    expected = -(np.log(chance[moment > 0]).sum() / 0.8 + np.log(1 - chance[moment == 0]).sum() / 0.2) / 2 / 4
    assert outputs["moment_detection_loss"].item() == pytest.approx(expected, rel=1e-10)
    assert outputs["moment_detection_accuracy"].item() == pytest.approx(np.mean((logits > 0) == moment))
    reversed_clips = model(inputs[1], inputs[0], inputs[2], labels={"moment": IS_MOMENT})
    assert reversed_clips["moment_detection_loss"].item() == pytest.approx(expected, rel=1e-10)  # whatever the order
    with pytest.raises(ValueError, match="cannot be told from quiet times: the samples have no label moment"):
        model(*inputs)
    with pytest.raises(ValueError, match="a queue of past samples would hold quiet times"):
        small_model(contrastive=ContrastiveOptions(queue_size=4))(*small_inputs(), labels={"moment": IS_MOMENT})


def test_temperatures_reach_their_losses() -> None:
    torch.manual_seed(1)
    model, inputs = small_model().eval(), small_inputs()
    usual = model(*inputs)
    model.contrastive = ContrastiveOptions(temperature=0.5)
    warmer = model(*inputs)
    assert warmer["contrastive_loss"] != usual["contrastive_loss"]
    assert warmer["state_change_loss"] == usual["state_change_loss"]
    model.state_change = StateChangeOptions(temperature=0.5)
    assert model(*inputs)["state_change_loss"] != usual["state_change_loss"]


def test_learned_temperatures_start_from_the_given_ones_and_stay_above_a_bound() -> None:
    torch.manual_seed(1)
    usual = small_model()
    learning = small_model(learnable_temperature=True)
    assert set(learning.state_dict()) - set(usual.state_dict()) == {"log_temperature_scales"}
    learning.load_state_dict(usual.state_dict(), strict=False)
    inputs = small_inputs()
    outputs, expected = learning(*inputs), usual(*inputs)
    assert outputs["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)
    assert outputs["temperature"].item() == pytest.approx(0.07)
    assert outputs["state_change_temperature"].item() == pytest.approx(0.2)
    outputs["loss"].backward()
    scales = learning.log_temperature_scales
    assert scales is not None
    assert scales.grad is not None
    assert (scales.grad != 0).all()
    for value, expected_value in ((-99.0, 0.01), (0.5, 0.07 * math.exp(0.5))):
        torch.nn.init.constant_(scales, value)
        learning.keep_in_range()
        assert learning(*inputs)["temperature"].item() == pytest.approx(expected_value)


def test_a_learned_temperature_at_its_bound_gets_the_gradient_of_the_loss_and_can_leave_it() -> None:
    model = small_model(learnable_temperature=True).double().eval()
    scales, inputs = model.log_temperature_scales, [x.double() for x in small_inputs()]
    assert scales is not None
    torch.nn.init.constant_(scales, -99.0)
    model.keep_in_range()
    optimizer = torch.optim.SGD([scales], lr=0.01)
    temperatures = []
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model(*inputs)
        outputs["loss"].backward()
        assert scales.grad is not None
        kept, gradient = scales.detach().clone(), scales.grad.clone()
        slopes = []
        for which in range(2):  # by differences
            losses = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    scales[which] = kept[which] + shift
                    losses.append(model(*inputs)["loss"].item())
                    scales.copy_(kept)
            slopes.append((losses[0] - losses[1]) / 2e-5)
        assert gradient.tolist() == pytest.approx(slopes, rel=1e-5, abs=1e-7)
        optimizer.step()
        model.keep_in_range()
        temperatures.append([outputs["temperature"].item(), outputs["state_change_temperature"].item()])
    # At 0.01 the loss of clips and sounds that do not match is far too sure of itself: it asks for more.
    assert temperatures[0] == pytest.approx([0.01, 0.01])
    assert temperatures[0][0] < temperatures[1][0] < temperatures[2][0]


def test_temperatures_that_would_begin_below_the_bound_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stay at or above 0.01, but the initial ones are 0.005 and 0.2"):
        small_model(learnable_temperature=True, contrastive=ContrastiveOptions(temperature=0.005))


def test_normalized_states_are_unit_vectors_and_changes_are_theirs() -> None:
    model, inputs = small_model(state_change=StateChangeOptions(normalize_states=True)).eval(), small_inputs()
    embeddings = model.embed(*inputs)
    for name in ("state_before", "state_after"):
        torch.testing.assert_close(embeddings[name].norm(dim=1), torch.ones(4))
    change = model.mlp["aot_diff"](embeddings["state_after"] - embeddings["state_before"])
    torch.testing.assert_close(embeddings["change_forward"], change)
    model.state_change = StateChangeOptions()
    assert (model.embed(*inputs)["state_before"].norm(dim=1) - 1).abs().min() > 1e-3


def test_negatives_of_other_samples_reach_the_state_change_loss() -> None:
    from earmark.methods.objectives import contrastive_state_change_loss

    model, inputs = small_model(state_change=StateChangeOptions(negatives="batch")).eval(), small_inputs()
    embeddings = model.embed(*inputs)
    expected = contrastive_state_change_loss(
        change_forward=embeddings["change_forward"],
        change_backward=embeddings["change_backward"],
        audio=embeddings["state_audio"],
        temperature=0.2,
    )
    torch.testing.assert_close(model(*inputs)["state_change_loss"], expected)


def test_the_queue_keeps_the_newest_samples_and_they_are_negatives() -> None:
    from earmark.methods.objectives import audio_visual_correspondence_loss

    model = small_model(contrastive=ContrastiveOptions(queue_size=6))
    model.backbone.eval()  # so that the same clips are embedded alike, while the model trains
    assert model.queue is not None
    expected_queue = model.queue.clone()
    assert (expected_queue.norm(dim=2) - 1).abs().max() < 1e-6
    place = 0
    for step in range(4):
        torch.manual_seed(step)
        inputs = small_inputs(4)
        embeddings = model.embed(*inputs)
        named = {kind: embeddings[f"contrastive_{kind}"].detach() for kind in ("before", "after", "audio")}
        expected = audio_visual_correspondence_loss(
            video_before=named["before"], video_after=named["after"], audio=named["audio"], queue=expected_queue
        )
        torch.testing.assert_close(model(*inputs)["contrastive_loss"].detach(), expected)
        for row in range(4):
            for position, x in enumerate(named.values()):
                expected_queue[position, place] = x[row] / x[row].norm()
            place = (place + 1) % 6
        torch.testing.assert_close(model.queue, expected_queue)
    model.eval()(*small_inputs(4))
    torch.testing.assert_close(model.queue, expected_queue)


def test_a_batch_larger_than_the_queue_leaves_its_last_samples_there() -> None:
    model = small_model(contrastive=ContrastiveOptions(queue_size=3))
    model.backbone.eval()
    inputs = small_inputs(5)
    model(*inputs)
    newest = model.embed(*inputs)["contrastive_audio"].detach()[-3:]
    assert model.queue is not None
    torch.testing.assert_close(model.queue[2], newest / newest.norm(dim=1, keepdim=True))


def model_with_embeddings(embeddings: dict[str, Tensor]) -> AudioVisualModel:
    model = small_model()
    model.embed = lambda *_: embeddings  # type: ignore[method-assign]
    return model


def test_diagnostics_have_their_definitions() -> None:
    names = (
        "contrastive_before",
        "contrastive_after",
        "contrastive_audio",
        "state_audio",
        "change_forward",
        "change_backward",
    )
    embeddings = dict(zip(names, torch.randn(len(names), 5, 8), strict=True))
    outputs = model_with_embeddings(embeddings)(*small_inputs(5))
    unit = {key: (x / x.norm(dim=1, keepdim=True)).numpy() for key, x in embeddings.items()}
    positive, negative, right, told_apart = [], [], [], []
    for i in range(5):
        forward = unit["change_forward"][i] @ unit["state_audio"][i]
        backward = unit["change_backward"][i] @ unit["state_audio"][i]
        right += [forward > 0, backward < 0]
        told_apart.append(forward > backward)
        for j in range(5):
            for clip in ("contrastive_before", "contrastive_after"):
                (positive if i == j else negative).append(unit[clip][i] @ unit["contrastive_audio"][j])
    assert outputs["positive_similarity"].item() == pytest.approx(np.mean(positive), abs=1e-6)
    assert outputs["negative_similarity"].item() == pytest.approx(np.mean(negative), abs=1e-6)
    assert outputs["state_change_accuracy"].item() == pytest.approx(np.mean(right))
    assert outputs["direction_accuracy"].item() == pytest.approx(np.mean(told_apart))


def test_outputs_are_scalars_and_only_losses_carry_gradients() -> None:
    outputs = small_model()(*small_inputs())
    assert all(value.shape == () for value in outputs.values())
    assert {key for key, value in outputs.items() if value.requires_grad} == {
        "loss",
        "contrastive_loss",
        "state_change_loss",
    }


def test_a_batch_of_one_has_no_negatives() -> None:
    outputs = small_model().eval()(*small_inputs(1))
    assert outputs["contrastive_loss"].item() == pytest.approx(0, abs=1e-6)
    assert outputs["negative_similarity"].isnan()
    assert outputs["loss"].isfinite()


def test_losses_are_float32_under_autocast() -> None:
    model, inputs = small_model().eval(), small_inputs()
    expected = model(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(*inputs)
    assert all(value.dtype == torch.float32 for value in outputs.values())
    assert outputs["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.05)


def test_a_few_steps_on_one_batch_lower_the_loss_below_chance() -> None:
    model, inputs = small_model(), small_inputs(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        outputs = model(*inputs)
        outputs["loss"].backward()
        optimizer.step()
    assert outputs["contrastive_loss"] < 0.5 * np.log(8)
    assert outputs["state_change_loss"] < 0.5 * np.log(2)
    assert outputs["direction_accuracy"] == 1


def test_inputs_that_do_not_belong_together_are_refused() -> None:
    before, after, audio = small_inputs()
    with pytest.raises(ValueError, match="as many sounds as clips"):
        small_model()(before, after, audio[:3])
    with pytest.raises(ValueError, match="clips of one shape"):
        small_model()(before, after[:, :, :2], audio)
