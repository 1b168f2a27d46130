"""The losses: slow oracles, the original's values and gradients, closed forms, invariants, gradcheck, odd input."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.methods.heads import projection_head
from earmark.methods.objectives import (
    audible_state_change_loss,
    audio_visual_correspondence_loss,
    contrastive_state_change_loss,
    noise_contrastive_loss,
    nt_xent_loss,
    state_change_logits,
)
from tests.helpers.reference_weights import reference_tensor


def embeddings(num: int, dim: int = 6, *, count: int = 3, seed: int = 0, scale: float = 3.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(scale * torch.randn(count, num, dim, dtype=torch.float64, generator=generator))


def correspondence(before: Tensor, after: Tensor, audio: Tensor, **options: Any) -> Tensor:
    return audio_visual_correspondence_loss(video_before=before, video_after=after, audio=audio, **options)


def state_change(forward: Tensor, backward: Tensor, audio: Tensor, **options: Any) -> Tensor:
    return audible_state_change_loss(change_forward=forward, change_backward=backward, audio=audio, **options)


def contrastive_state_change(forward: Tensor, backward: Tensor, audio: Tensor, **options: Any) -> Tensor:
    return contrastive_state_change_loss(
        change_forward=forward, change_backward=backward, audio=audio, **{"temperature": 0.2} | options
    )


def nt_xent(first: Tensor, second: Tensor, third: Tensor, **options: Any) -> Tensor:
    """Of three sets of views: of the first and the second, and of the second and the third."""
    one, other = (
        nt_xent_loss(first=first, second=second, **options),
        nt_xent_loss(first=second, second=third, **options),
    )
    return (one + other) / 2


LOSSES = pytest.mark.parametrize("loss", [correspondence, state_change, contrastive_state_change, nt_xent])


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
    return dot / math.sqrt(sum(float(p) ** 2 for p in x) * sum(float(q) ** 2 for q in y))


def slow_correspondence(before: np.ndarray, after: np.ndarray, audio: np.ndarray, temperature: float) -> float:
    terms = []
    for anchors, candidates in ((before, audio), (after, audio), (audio, before), (audio, after)):
        for i, anchor in enumerate(anchors):
            exponentials = [math.exp(cosine(anchor, candidate) / temperature) for candidate in candidates]
            terms.append(-math.log(exponentials[i] / sum(exponentials)))
    return sum(terms) / len(terms)


def slow_state_change(forward: np.ndarray, backward: np.ndarray, audio: np.ndarray, temperature: float) -> float:
    terms = []
    for d, reverse, a in zip(forward, backward, audio, strict=True):
        terms.append(-math.log(1 / (1 + math.exp(-cosine(d, a) / temperature))))
        terms.append(-math.log(1 - 1 / (1 + math.exp(-cosine(reverse, a) / temperature))))
    return sum(terms) / len(terms)


def slow_softmax_loss(anchor: np.ndarray, candidates: list[np.ndarray], positive: int, temperature: float) -> float:
    exponentials = [math.exp(cosine(anchor, candidate) / temperature) for candidate in candidates]
    return -math.log(exponentials[positive] / sum(exponentials))


def slow_contrastive_state_change(
    forward: np.ndarray, backward: np.ndarray, audio: np.ndarray, temperature: float
) -> float:
    terms = []
    for i in range(len(audio)):
        terms.append(slow_softmax_loss(audio[i], [*forward, *backward], i, temperature))
        terms.append(slow_softmax_loss(forward[i], [*audio], i, temperature))
    return sum(terms) / len(terms)


def slow_nt_xent(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    views, terms = [*first, *second], []
    for i in range(len(views)):
        others = [j for j in range(len(views)) if j != i]
        positive = others.index((i + len(first)) % len(views))
        terms.append(slow_softmax_loss(views[i], [views[j] for j in others], positive, temperature))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.3])
@pytest.mark.parametrize("num", [1, 2, 7])
def test_losses_of_options_and_of_other_methods_equal_slow_loops(num: int, temperature: float) -> None:
    given = embeddings(num)
    arrays = [x.numpy() for x in given]
    assert contrastive_state_change(*given, temperature=temperature).item() == pytest.approx(
        slow_contrastive_state_change(*arrays, temperature), rel=1e-10
    )
    assert nt_xent_loss(first=given[0], second=given[1], temperature=temperature).item() == pytest.approx(
        slow_nt_xent(arrays[0], arrays[1], temperature), rel=1e-10, abs=1e-12
    )


def test_weighted_samples_count_so_often_and_those_of_weight_0_are_left_out() -> None:
    """Against slow loops over the samples that are not left out, as anchors and as candidates."""
    given, tau = embeddings(6), 0.3
    weights = torch.tensor([0.0, 2.0, 0.5, 0.0, 2.5, 1.0], dtype=torch.float64)
    kept = weights > 0
    first, second, third = (x[kept].numpy() for x in given)
    num = len(first)
    own = {
        correspondence: [
            [
                slow_softmax_loss(x[i], [*y], i, tau)
                for x, y in ((first, third), (second, third), (third, first), (third, second))
            ]
            for i in range(num)
        ],
        state_change: [
            [slow_state_change(first[i : i + 1], second[i : i + 1], third[i : i + 1], tau)] for i in range(num)
        ],
        contrastive_state_change: [
            [slow_softmax_loss(third[i], [*first, *second], i, tau), slow_softmax_loss(first[i], [*third], i, tau)]
            for i in range(num)
        ],
        nt_xent: [
            [
                slow_softmax_loss(views[at], [x for j, x in enumerate(views) if j != at], other - (other > at), tau)
                for views in ([*first, *second], [*second, *third])
                for at, other in ((i, i + num), (i + num, i))
            ]
            for i in range(num)
        ],
    }
    for loss, terms in own.items():
        means = [sum(mine) / len(mine) for mine in terms]
        expected = sum(weight * mean for weight, mean in zip(weights[kept].tolist(), means, strict=True)) / len(weights)
        leaves = [x.clone().requires_grad_() for x in given]
        found = loss(*leaves, temperature=tau, weights=weights)
        assert found.item() == pytest.approx(expected, rel=1e-10)
        found.backward()
        assert all((x.grad[~kept] == 0).all() and x.grad[kept].any() for x in leaves if x.grad is not None)
        ones = loss(*given, temperature=tau, weights=torch.ones_like(weights))
        assert ones.item() == pytest.approx(loss(*given, temperature=tau).item(), rel=1e-12)
        assert loss(*given, temperature=tau, weights=torch.zeros_like(weights)).item() == 0
        for wrong in (weights[1:], weights[:, None]):
            with pytest.raises(ValueError, match="need a weight of each of the 6 samples, got"):
                loss(*given, temperature=tau, weights=wrong)


@pytest.mark.parametrize("size", [1, 5])
def test_a_queue_adds_past_samples_to_the_candidates(size: int) -> None:
    given, past = embeddings(4), torch.stack(embeddings(size, seed=9))
    before, after, audio = (x.numpy() for x in given)
    old_before, old_after, old_audio = past.numpy()
    terms = []
    for i in range(4):
        for anchor, candidates in (
            (before[i], [*audio, *old_audio]),
            (after[i], [*audio, *old_audio]),
            (audio[i], [*before, *old_before]),
            (audio[i], [*after, *old_after]),
        ):
            terms.append(slow_softmax_loss(anchor, candidates, i, 0.07))
    assert correspondence(*given, queue=past).item() == pytest.approx(np.mean(terms), rel=1e-10)


@pytest.mark.parametrize("num_negatives", [1, 6])
def test_noise_contrastive_loss_equals_a_slow_loop_and_its_gradient_is_right(num_negatives: int) -> None:
    generator = torch.Generator().manual_seed(2)
    positive = torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_()
    negative = (2 * torch.randn(3, num_negatives, dtype=torch.float64, generator=generator)).requires_grad_()
    partition, terms = 1.7, []
    for s, others in zip(positive.tolist(), negative.tolist(), strict=True):
        noise = num_negatives * partition
        terms.append(-math.log(math.exp(s) / (math.exp(s) + noise)))
        terms[-1] -= sum(math.log(noise / (math.exp(other) + noise)) for other in others)

    def loss(positive: Tensor, negative: Tensor) -> Tensor:
        return noise_contrastive_loss(
            positive_logits=positive, negative_logits=negative, log_partition=math.log(partition)
        )

    assert loss(positive, negative).item() == pytest.approx(np.mean(terms), rel=1e-10)
    assert torch.autograd.gradcheck(loss, (positive, negative))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(positive.bfloat16(), negative.bfloat16()).dtype == torch.float32
    assert loss(positive + torch.nan, negative).isnan()
    assert loss(positive - 1e4, negative + 1e4).isfinite()


@pytest.mark.parametrize("shapes", [((3,), (4, 2)), ((3,), (3,)), ((3,), (3, 0)), ((0,), (0, 2)), ((3, 1), (3, 2))])
def test_noise_contrastive_loss_refuses_other_shapes(shapes: Any) -> None:
    positive, negative = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"\(B, K\)|at least one"):
        noise_contrastive_loss(positive_logits=positive, negative_logits=negative, log_partition=0.0)


@LOSSES
def test_a_learned_temperature_is_the_same_as_a_number_and_gets_its_gradient(loss: Any) -> None:
    given = embeddings(4, 3)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert loss(*given, temperature=temperature).item() == pytest.approx(loss(*given, temperature=0.3).item())
    assert torch.autograd.gradcheck(lambda t: loss(*given, temperature=t), (temperature,))


@LOSSES
def test_memory_layout_does_not_matter(loss: Any) -> None:
    given = embeddings(4)
    spread = [torch.stack([x, -x], dim=2).flatten(1)[:, ::2] for x in given]
    transposed = [x.T.contiguous().T for x in given]
    assert not spread[0].is_contiguous()
    assert not transposed[0].is_contiguous()
    for other in (spread, transposed):
        assert loss(*other).item() == pytest.approx(loss(*given).item(), rel=1e-14)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.3])
@pytest.mark.parametrize("num", [1, 2, 7])
def test_losses_equal_slow_loops(num: int, temperature: float) -> None:
    given = embeddings(num)
    arrays = [x.numpy() for x in given]
    assert correspondence(*given, temperature=temperature).item() == pytest.approx(
        slow_correspondence(*arrays, temperature), rel=1e-10, abs=1e-12
    )
    assert state_change(*given, temperature=temperature).item() == pytest.approx(
        slow_state_change(*arrays, temperature), rel=1e-10
    )


def test_default_temperatures_are_the_papers() -> None:
    given = embeddings(5)
    assert torch.equal(correspondence(*given), correspondence(*given, temperature=0.07))
    assert torch.equal(state_change(*given), state_change(*given, temperature=0.2))


def test_correspondence_loss_and_gradients_are_the_originals(reference: Path) -> None:
    arrays = np.load(reference / "objectives.npz")
    given = {name: torch.from_numpy(arrays[f"pure_clr__n4__{name}"]).requires_grad_() for name in "lra"}
    loss = correspondence(*given.values())
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays["pure_clr__n4__loss"], rtol=1e-9)
    for name, x in given.items():
        # The reference differentiates after the normalization, on unit vectors. Here that is part of the loss and takes
        # the part along the vector away.
        unit, expected = x.detach().numpy(), arrays[f"pure_clr__n4__grad_{name}"]
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-12)
        expected = expected - (expected * unit).sum(1, keepdims=True) * unit
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-9, atol=1e-14)


def test_state_change_loss_and_gradients_are_the_originals(reference: Path) -> None:
    arrays = np.load(reference / "objectives.npz")
    before, after, audio = (torch.from_numpy(arrays[f"pure_aot__n4__{name}"]).requires_grad_() for name in "lra")
    head = projection_head(128)
    head.load_state_dict(
        {key: reference_tensor(f"mlp.aot_diff.{key}", tuple(value.shape)) for key, value in head.state_dict().items()}
    )
    head.double()
    loss = state_change(head(after - before), head(before - after), audio)
    loss.backward()
    # The original rounds this loss, not its gradients, to float32.
    np.testing.assert_allclose(loss.item(), arrays["pure_aot__n4__loss"], rtol=np.finfo(np.float32).eps)
    for name, x in zip("lra", (before, after, audio), strict=True):
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), arrays[f"pure_aot__n4__grad_{name}"], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("num", [1, 2, 8, 100])
def test_correspondence_is_log_m_at_chance(num: int) -> None:
    same = torch.ones(num, 4, dtype=torch.float64)
    assert correspondence(same, same, same).item() == pytest.approx(math.log(num), rel=1e-12, abs=1e-12)


def test_correspondence_of_orthogonal_pairs_has_its_closed_form() -> None:
    num, temperature = 5, 0.5
    own = torch.eye(num, dtype=torch.float64)
    expected = math.log(1 + (num - 1) * math.exp(-1 / temperature))
    assert correspondence(own, own, own, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


def test_state_change_is_log_2_at_chance_and_its_closed_form_when_told_apart() -> None:
    audio = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    across = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert state_change(across, across, audio).item() == pytest.approx(math.log(2), rel=1e-12)
    assert state_change(audio, -audio, audio).item() == pytest.approx(math.log1p(math.exp(-5)), rel=1e-12)
    assert state_change(-audio, audio, audio).item() == pytest.approx(math.log1p(math.exp(5)), rel=1e-12)


@LOSSES
def test_order_of_samples_and_scale_of_embeddings_do_not_matter(loss: Any) -> None:
    given = embeddings(6)
    expected = loss(*given).item()
    order = torch.randperm(6)
    assert loss(*(x[order] for x in given)).item() == pytest.approx(expected, rel=1e-12)
    scales = torch.rand(3, 6, 1, dtype=torch.float64) * 100 + 1e-3
    assert loss(*(x * scale for x, scale in zip(given, scales, strict=True))).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_correspondence_treats_before_and_after_alike() -> None:
    before, after, audio = embeddings(6)
    assert correspondence(before, after, audio).item() == pytest.approx(correspondence(after, before, audio).item())


def test_reversing_the_order_of_time_exchanges_the_logits() -> None:
    forward, backward, audio = embeddings(6)
    logits = state_change_logits(change_forward=forward, change_backward=backward, audio=audio)
    reversed_logits = state_change_logits(change_forward=backward, change_backward=forward, audio=audio)
    assert torch.equal(logits[0], reversed_logits[1])
    assert torch.equal(logits[1], reversed_logits[0])
    assert state_change(forward, backward, audio).item() != pytest.approx(state_change(backward, forward, audio).item())


@LOSSES
def test_gradients_are_right(loss: Any) -> None:
    given = [x.requires_grad_() for x in embeddings(4, 3)]
    assert torch.autograd.gradcheck(loss, given)


@LOSSES
def test_a_zero_embedding_has_no_direction_and_gets_no_gradient(loss: Any) -> None:
    for position in range(3):
        given = [x.float() for x in embeddings(4)]
        given[position][1] = 0
        for x in given:
            x.requires_grad_()
        value = loss(*given)
        value.backward()
        assert value.isfinite()
        for x in given:
            assert x.grad is not None
            assert x.grad.isfinite().all()
            assert x.grad.abs().max() < 100
        own = given[position].grad
        assert own is not None
        assert (own[1] == 0).all()
        assert (own[0] != 0).any()
    zeros = torch.zeros(4, 6)
    at_chance = {correspondence: 4, state_change: 2, contrastive_state_change: math.sqrt(4 * 8), nt_xent: 7}
    assert loss(zeros, zeros, zeros).item() == pytest.approx(math.log(at_chance[loss]))


def test_a_single_sample_has_nothing_to_be_contrasted_with() -> None:
    given = [x.requires_grad_() for x in embeddings(1)]
    loss = correspondence(*given)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for x in given:
        assert x.grad is not None
        assert torch.allclose(x.grad, torch.zeros_like(x.grad), atol=1e-12)


@LOSSES
def test_nan_shows_in_the_loss(loss: Any) -> None:
    given = embeddings(4)
    given[2][3, 0] = torch.nan
    assert loss(*given).isnan()


@LOSSES
def test_half_precision_under_autocast_is_computed_in_float32(loss: Any) -> None:
    given = [x.bfloat16() for x in embeddings(8)]
    expected = loss(*(x.float() for x in given))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*given)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


def test_large_logits_do_not_overflow() -> None:
    audio = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert state_change(-audio, audio, audio, temperature=1e-3).item() == pytest.approx(1000)
    assert correspondence(-audio, -audio, audio, temperature=1e-3).item() == pytest.approx(1000)


@pytest.mark.parametrize(("loss", "num_given"), [(correspondence, 3), (contrastive_state_change, 3), (nt_xent_loss, 2)])
def test_local_anchors_meet_all_candidates_and_their_mean_is_the_global_loss(loss: Any, num_given: int) -> None:
    def value(*given: Tensor, **options: Any) -> Tensor:
        named = dict(zip(("first", "second"), given, strict=True)) if loss is nt_xent_loss else {}
        return loss(**named, **options) if named else loss(*given, **options)

    given = embeddings(6)[:num_given]
    expected = value(*given)
    gathered = torch.stack([x / x.norm(dim=1, keepdim=True) for x in given], dim=1)
    parts = []
    for rank, rows in enumerate(torch.arange(6).split(2)):
        local = [x[rows] for x in given]
        parts.append(value(*local, gather=lambda _: gathered, rank=rank))
    assert torch.stack(parts).mean().item() == pytest.approx(expected.item(), rel=1e-12)


@LOSSES
def test_wrong_shapes_and_temperatures_are_refused(loss: Any) -> None:
    given = embeddings(4)
    with pytest.raises(ValueError, match=r"one shape \(B, D\).*\(3, 6\)"):
        loss(given[0], given[1][:3], given[2])
    with pytest.raises(ValueError, match="B > 0"):
        loss(*(x[:0] for x in given))
    with pytest.raises(ValueError, match=r"\(B, D\)"):
        loss(*(x[0] for x in given))
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be positive"):
            loss(*given, temperature=temperature)
