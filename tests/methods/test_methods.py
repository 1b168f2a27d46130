"""The compared methods: slow oracles of their losses and of what they remember, odd input, learning."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark import methods
from earmark.clips.sampling import sample_seed
from earmark.clips.splitmix64 import random_integers
from earmark.methods import (
    AVID,
    XDC,
    AudioVisualModel,
    ContrastiveOptions,
    EpochAware,
    Method,
    Supervised,
)
from tests.helpers.small_methods import METHODS, NUM_SAMPLES, encoders, keywords_of, make_inputs, make_keywords


def make_method(name: str) -> nn.Module:
    """Build a method in float64, ready for a step."""
    method = METHODS[name]().double()
    if isinstance(method, XDC):
        before, after, audio = make_inputs(NUM_SAMPLES)
        everything = torch.arange(NUM_SAMPLES)
        method.start_epoch(0, lambda: [(everything, method.embed(before, after, audio))])
    return method


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.array([[value - math.log(sum(math.exp(v) for v in row)) for value in row] for row in x])


def embedded(method: Any, head: str = "mlp") -> tuple[np.ndarray, ...]:
    """Embed each clip and sound alone: before, after, audio."""
    results = []
    heads = getattr(method, head)
    for kind, batch in zip(("video", "video", "audio"), make_inputs(), strict=True):
        if kind in method.backbone:
            rows = [heads[kind](method.backbone[kind](x[None])).detach().numpy()[0] for x in batch]
            results.append(np.stack(rows))
    return tuple(results)


# --- AVID ---


def test_avid_equals_a_slow_loop_for_two_steps_with_what_it_remembers() -> None:
    method: Any = make_method("avid")
    index, temperature = make_keywords()["index"], 0.07
    video_memory, audio_memory = method.video_memory.numpy().copy(), method.audio_memory.numpy().copy()
    np.testing.assert_allclose(np.linalg.norm(video_memory, axis=1), 1, rtol=1e-6)
    partition = None
    before, after, audio = (unit(x) for x in embedded(method))
    for step in range(2):
        logits: dict[str, list[list[float]]] = {"before": [], "after": [], "audio": []}
        for row, own in enumerate(index.tolist()):
            visit = (own + step * NUM_SAMPLES) ^ sample_seed(0, 0, 0)
            draws = random_integers(torch.tensor([visit]), num_draws=7)[0].tolist()
            others = [draw * (NUM_SAMPLES - 1) // 2**31 for draw in draws]
            others = [other + (other >= own) for other in others]
            assert own not in others
            for name, x, memory in (
                ("before", before, audio_memory),
                ("after", after, audio_memory),
                ("audio", audio, video_memory),
            ):
                logits[name].append([float(x[row] @ memory[target]) / temperature for target in (own, *others)])
        if partition is None:  # the first batch sets it
            partition = np.mean([math.exp(s) for rows in logits.values() for row in rows for s in row[1:]])
        losses = {}
        for name, rows in logits.items():
            noise, terms = 7 * partition, []
            for own_logit, *others in rows:
                terms.append(-math.log(math.exp(own_logit) / (math.exp(own_logit) + noise)))
                terms[-1] -= sum(math.log(noise / (math.exp(s) + noise)) for s in others)
            losses[name] = np.mean(terms)
        expected = ((losses["before"] + losses["after"]) / 2 + losses["audio"]) / 2

        outputs = method(*make_inputs(), **make_keywords())
        assert outputs["loss"].item() == pytest.approx(expected, rel=1e-10)
        assert outputs["positive_similarity"].item() == pytest.approx(
            temperature * np.mean([row[0] for rows in logits.values() for row in rows])
        )
        for row, own in enumerate(index.tolist()):
            video_memory[own] = unit(0.5 * video_memory[own] + 0.5 * unit(before[row] + after[row]))
            audio_memory[own] = unit(0.5 * audio_memory[own] + 0.5 * audio[row])
        np.testing.assert_allclose(method.video_memory.numpy(), video_memory, rtol=1e-10)
        np.testing.assert_allclose(method.audio_memory.numpy(), audio_memory, rtol=1e-10)


def test_avid_draws_others_evenly_and_anew_at_each_step() -> None:
    method: Any = AVID(*encoders(), num_samples=5, num_negatives=20_000, out_dim=4)
    drawn = method._draw(torch.tensor([2, 4]))
    for row, own in zip(drawn, (2, 4), strict=True):
        counts = row.bincount(minlength=5)
        assert counts[own] == 0
        assert (counts[counts > 0] / 20_000).tolist() == pytest.approx([0.25] * 4, abs=0.02)
    method.num_steps += 1
    assert (method._draw(torch.tensor([2, 4])) != drawn).any()


@pytest.mark.parametrize("kind", ["avid", "xdc", "queue"])
def test_what_a_method_draws_is_a_function_of_its_seed_alone(kind: str) -> None:
    def drawn(seed: int, global_seed: int) -> list[Tensor]:
        """What is drawn beside the weights: at first, and when an epoch begins."""
        first, second = encoders()
        torch.manual_seed(global_seed)
        if kind == "avid":
            avid = AVID(first, second, num_samples=NUM_SAMPLES, num_negatives=7, out_dim=5, seed=seed)
            return [avid.video_memory, avid.audio_memory, avid._draw(torch.arange(3))]
        if kind == "queue":
            model = AudioVisualModel(first, second, out_dim=5, contrastive=ContrastiveOptions(queue_size=6), seed=seed)
            assert model.queue is not None
            return [*model.queue]
        xdc = XDC(first, second, num_samples=NUM_SAMPLES, num_clusters=3, seed=seed)
        features = torch.randn(2, NUM_SAMPLES, 6, generator=torch.Generator().manual_seed(8))
        embeddings = [(torch.arange(NUM_SAMPLES), {"video": features[0], "audio": features[1]})]
        xdc.start_epoch(1, lambda: embeddings)
        return [xdc.video_cluster, *(classifier.weight for classifier in xdc.classifiers.values())]  # type: ignore[list-item]

    one = drawn(1, 7)
    assert all(torch.equal(x, y) for x, y in zip(one, drawn(1, 8), strict=True))
    for seed in (0, 2, 2**63):
        assert not any(torch.equal(x, y) for x, y in zip(one, drawn(seed, 7), strict=True))


def test_avid_remembers_nothing_in_evaluation_and_resumes_from_its_state() -> None:
    method: Any = make_method("avid")
    state = {name: value.clone() for name, value in method.state_dict().items()}
    method.eval()
    method(*make_inputs(), **make_keywords())
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    method.train()
    for _ in range(2):
        method(*make_inputs(), **make_keywords())
    resumed: Any = METHODS["avid"]().double()
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(
        method(*make_inputs(), **make_keywords())["loss"], resumed(*make_inputs(), **make_keywords())["loss"]
    )


@pytest.mark.parametrize("options", [{"num_samples": 1}, {"num_negatives": 0}, {"momentum": 1.0}])
def test_avid_refuses_what_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 2 samples, 1 negative"):
        AVID(*encoders(), **{"num_samples": 5} | options)


# --- XDC ---


def test_xdc_equals_a_slow_loop_over_the_clusters_of_the_other_modality() -> None:
    method: Any = make_method("xdc")
    for classifier in method.classifiers.values():
        nn.init.normal_(classifier.weight)
    keywords = make_keywords()
    before, after, audio = (log_softmax(x) for x in embedded(method, "classifiers"))
    terms = []
    for row, own in enumerate(keywords["index"].tolist()):
        of_sound, of_clips = int(method.audio_cluster[own]), int(method.video_cluster[own])
        terms.append(-((before[row][of_sound] + after[row][of_sound]) / 2 + audio[row][of_clips]) / 2)
    assert method(*make_inputs(), **keywords)["loss"].item() == pytest.approx(np.mean(terms), rel=1e-10)


def groups_of_three(method: XDC) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Embeddings whose clips fall in groups by index mod 3 and whose sounds in groups by index div 4."""
    index = torch.arange(NUM_SAMPLES)
    noise = torch.randn(2, NUM_SAMPLES, 6) * 0.01
    embeddings = {
        "video": torch.eye(6)[index % 3] + noise[0],
        "audio": torch.eye(6)[index // 4] + noise[1],
    }
    return [(rows, {name: x[rows] for name, x in embeddings.items()}) for rows in index.flip(0).split(4)]


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_xdc_finds_the_groups_of_each_modality_and_draws_new_classifiers(engine: Any) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")
    method = XDC(*encoders(), num_samples=NUM_SAMPLES, num_clusters=3, engine=engine)
    weights = []
    for epoch in (0, 0, 1):
        method.start_epoch(epoch, lambda: groups_of_three(method))
        weights.append(method.classifiers["video"].weight.clone())
        for clusters, truth in (
            (method.video_cluster, torch.arange(NUM_SAMPLES) % 3),
            (method.audio_cluster, torch.arange(NUM_SAMPLES) // 4),
        ):
            same = clusters[:, None] == clusters
            assert torch.equal(same, truth[:, None] == truth)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_xdc_says_what_is_missing() -> None:
    method: Any = METHODS["xdc"]()
    assert method.double()(*make_inputs(), **make_keywords())["loss"].isnan()  # no clusters yet
    with pytest.raises(ValueError, match="7 of 11 samples have no embedding"):
        method.start_epoch(0, lambda: groups_of_three(method)[:1])
    with pytest.raises(ValueError, match="are not finite"):
        method.start_epoch(
            0, lambda: [(i, {k: x + torch.nan for k, x in e.items()}) for i, e in groups_of_three(method)]
        )
    for num_clusters in (1, NUM_SAMPLES + 1):
        with pytest.raises(ValueError, match="as many as the 11 samples"):
            XDC(*encoders(), num_samples=NUM_SAMPLES, num_clusters=num_clusters)


# --- SimCLR and supervision ---


def test_simclr_video_equals_a_slow_loop() -> None:
    method: Any = make_method("simclr_video")
    views = np.concatenate([unit(x) for x in embedded(method)])
    terms = []
    for i, view in enumerate(views):
        logits = {j: float(view @ other) / 0.1 for j, other in enumerate(views) if j != i}
        terms.append(-math.log(math.exp(logits[(i + 4) % 8]) / sum(math.exp(s) for s in logits.values())))
    outputs = method(*make_inputs(), **make_keywords())
    assert outputs["loss"].item() == pytest.approx(np.mean(terms), rel=1e-10)
    similarity = views[:4] @ views[4:].T
    assert outputs["positive_similarity"].item() == pytest.approx(np.mean(np.diag(similarity)))
    assert outputs["negative_similarity"].item() == pytest.approx(np.mean(similarity[~np.eye(4, dtype=bool)]))


def test_supervised_equals_a_slow_loop_over_labelled_samples() -> None:
    method: Any = make_method("supervised")
    keywords, expected = make_keywords(), 0.0
    outputs = method(*make_inputs(), **keywords)
    for column in ("verb", "noun"):
        classes = keywords["labels"][column]
        terms, right = [], []
        for batch in make_inputs()[:2]:
            for clip, label in zip(batch, classes.tolist(), strict=True):
                if label >= 0:
                    logits = method.classifiers[column](method.backbone["video"](clip[None])).detach().numpy()
                    terms.append(-log_softmax(logits)[0][label])
                    right.append(logits.argmax() == label)
        expected += float(np.mean(terms))
        assert outputs[f"{column}_accuracy"].item() == pytest.approx(np.mean(right))
    assert outputs["loss"].item() == pytest.approx(expected, rel=1e-10)


def test_supervised_without_any_label_has_no_loss_and_without_a_column_says_so() -> None:
    method: Any = make_method("supervised")
    none = {name: torch.full((4,), -1) for name in ("verb", "noun")}
    outputs = method(*make_inputs(), labels=none)
    outputs["loss"].backward()
    assert outputs["loss"] == 0
    assert all((p.grad == 0).all() for p in method.parameters())
    with pytest.raises(ValueError, match=r"no labels noun \(there are: verb\)"):
        method(*make_inputs(), labels={"verb": none["verb"]})
    with pytest.raises(ValueError, match="at least one label column"):
        Supervised(encoders()[0], num_classes={})


# --- all of them ---

ALL = pytest.mark.parametrize("name", list(METHODS))


@ALL
def test_every_method_is_one_and_says_truly_what_it_needs(name: str) -> None:
    method: Any = make_method(name)
    assert isinstance(method, Method)
    assert type(method) is methods.METHODS[name.partition(" with ")[0]]
    assert ("audio" in method.backbone) == method.uses_sound
    assert isinstance(method, EpochAware) == (name == "xdc")
    (before, after, audio), keywords = make_inputs(), keywords_of(name)

    def loss(audio: Tensor, labels: dict[str, Tensor]) -> float:
        torch.manual_seed(0)
        loss: float = make_method(name)(before, after, audio, index=keywords["index"], labels=labels)["loss"].item()
        return loss

    usual = loss(audio, keywords["labels"])
    assert (loss(-audio, keywords["labels"]) != usual) == method.uses_sound
    without_classes = {column: x for column, x in keywords["labels"].items() if column == "moment"}
    if method.needs_labels:
        with pytest.raises(ValueError, match="no labels"):
            loss(audio, without_classes)
    else:
        assert loss(audio, without_classes) == usual


def test_there_is_a_test_of_every_method() -> None:
    assert {name.partition(" with ")[0] for name in METHODS} == set(methods.METHODS)


@ALL
def test_every_weight_gets_a_gradient_and_diagnostics_get_none(name: str) -> None:
    method = make_method(name)
    outputs = method(*make_inputs(), **keywords_of(name))
    assert all(value.shape == () for value in outputs.values())
    assert {key for key, value in outputs.items() if value.requires_grad} == {
        key for key in outputs if key.endswith("loss")
    }
    outputs["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


@ALL
def test_gradients_of_whole_methods_are_right(name: str) -> None:
    method = make_method(name)
    method(*make_inputs(), **keywords_of(name))  # AVID's constant, which has no gradient, is that of the first step
    method.eval()  # what it remembers stays as it is
    before, after, audio = (x.requires_grad_() for x in make_inputs())
    given = (before, after, audio) if "audio" in method.backbone else (before, after)  # type: ignore[operator]

    def loss(*inputs: Tensor) -> Tensor:
        return method(*inputs, **({} if len(inputs) == 3 else {"audio": audio}), **keywords_of(name))["loss"]

    assert torch.autograd.gradcheck(loss, given)


@ALL
def test_a_batch_of_one_works(name: str) -> None:
    outputs = make_method(name)(*make_inputs(1), **keywords_of(name, 1))
    assert outputs["loss"].isfinite()
    outputs["loss"].backward()


@ALL
def test_nan_in_a_clip_shows_in_the_loss(name: str) -> None:
    before, after, audio = make_inputs()
    after[1] = torch.nan
    keywords = keywords_of(name)
    assert make_method(name)(before, after, audio, **keywords)["loss"].isnan()


@ALL
def test_zero_inputs_and_zero_embeddings_are_finite(name: str) -> None:
    method = make_method(name)
    for head in getattr(method, "mlp", nn.ModuleDict()).values():
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
    outputs = method(*(torch.zeros_like(x) for x in make_inputs()), **keywords_of(name))
    outputs["loss"].backward()
    assert outputs["loss"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@ALL
def test_memory_layout_of_the_inputs_does_not_matter(name: str) -> None:
    inputs = make_inputs()
    spread = [torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2] for x in inputs]
    assert not any(x.is_contiguous() for x in spread)
    one, other = (make_method(name)(*given, **keywords_of(name))["loss"].item() for given in (inputs, spread))
    assert one == pytest.approx(other, rel=1e-12)


@ALL
def test_clips_and_sounds_that_do_not_belong_together_are_refused(name: str) -> None:
    method = make_method(name)
    before, after, audio = make_inputs()
    with pytest.raises(ValueError, match="clips of one shape"):
        method(before, after[:, :, :1], audio, **keywords_of(name))
    if "audio" in method.backbone:  # type: ignore[operator]
        with pytest.raises(ValueError, match="as many sounds as clips"):
            method(before, after, audio[:3], **keywords_of(name))


@ALL
def test_bfloat16_autocast_agrees_with_float32(name: str) -> None:
    """Linear encoders: 8 bits of mantissa give each loss to 5 %, and the direction of its gradient to 15 degrees.

    At temperature 0.07 an error of 0.4 % in a similarity is one of 6 % in a logit.
    """
    losses, gradients = [], []
    for enabled in (False, True):
        method = make_method(name).float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            outputs = method(*(x.float() for x in make_inputs()), **keywords_of(name))
        assert outputs["loss"].dtype == torch.float32
        outputs["loss"].backward()
        losses.append(outputs["loss"].item())
        gradients.append(torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert torch.cosine_similarity(*gradients, dim=0) > math.cos(math.radians(15))


@ALL
def test_a_few_steps_on_one_batch_lower_the_loss(name: str) -> None:
    method = make_method(name)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(80):
        outputs = method(*make_inputs(), **keywords_of(name))
        losses.append(outputs["loss"].item())
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
