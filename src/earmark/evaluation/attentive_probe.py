r"""The attentive probe: a learned query gathers from all tokens of an action's feature maps what its class is read off.

Path of a sample: tokens of all its clips --attention of one query--> a vector --MLP, linear--> scores.

The protocol of V-JEPA (arXiv 2404.08471, section 4.1 and appendix), for features that no pool has made one vector of: a
query attends to the normalized tokens in several heads, is added to what it gathers, goes through a layer norm and an
MLP of four times the width with a skip connection, and a linear layer gives the classes. AdamW, the learning rate along
a cosine to 0, no decay of biases and norms. Each label column has a probe of its own, so one does not disturb another.

With one query, keys and values need not be made for every token. Of a head with query :math:`q`, key and value weights
:math:`K` and :math:`V`, and tokens :math:`x_t`,

.. math::
    q \cdot K x_t = (K^\top q) \cdot x_t, \qquad \sum_t a_t V x_t = V \sum_t a_t x_t,

so a token costs D for each head in place of D squared, and all pairs of a grid, which share the tokens, are trained at
once. A key's bias changes no weight, as it is the same for all tokens, and is left out.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, check_labels, drawn_clips
from earmark.evaluation.probe_grid import HeldOutQuality, HeldOutTally, Pair

__all__ = ["AttentiveHeads", "attentive_probe", "attentive_quality", "check_tokens", "fit_attentive", "place_codes"]


class AttentiveHeads(nn.Module):
    """Attentive classifiers of one label column, alike at first, to be trained side by side.

    Args:
        dim: Size of a token, D.
        num_classes: Classes of the column.
        num_members: How many classifiers.
        num_heads: Attention heads of each; must divide D.
        seed: Of the initial weights, with the column's name.
        column: Label column.
        token_places: Add a code of its place to each token.

    Raises:
        ValueError: If the heads do not divide D.

    Example:
        >>> heads = AttentiveHeads(8, 3, num_members=2, num_heads=4, seed=0, column="verb")
        >>> heads(torch.randn(5, 7, 8)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_members: int,
        num_heads: int,
        seed: int,
        column: str,
        token_places: bool = False,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} attention heads do not divide features of size {dim} (num_heads)")
        self.num_heads = num_heads
        self.token_places = token_places
        rng = np.random.default_rng([seed, zlib.crc32(f"attentive {column}".encode())])

        def normal(*shape: int, scale: float = 0.02) -> Tensor:
            return torch.from_numpy(rng.normal(0.0, scale, size=shape)).float()

        half = 0.02 / math.sqrt(2)  # of what is added to a skip connection
        initial = {
            "query": normal(1, dim),
            "norm1_weight": torch.ones(dim),
            "norm1_bias": torch.zeros(dim),
            "query_weight": normal(dim, dim),
            "query_bias": torch.zeros(dim),
            "key_weight": normal(dim, dim),
            "value_weight": normal(dim, dim),
            "value_bias": torch.zeros(dim),
            "out_weight": normal(dim, dim, scale=half),
            "out_bias": torch.zeros(dim),
            "norm2_weight": torch.ones(dim),
            "norm2_bias": torch.zeros(dim),
            "mlp1_weight": normal(4 * dim, dim),
            "mlp1_bias": torch.zeros(4 * dim),
            "mlp2_weight": normal(dim, 4 * dim, scale=half),
            "mlp2_bias": torch.zeros(dim),
            "class_weight": normal(num_classes, dim),
            "class_bias": torch.zeros(num_classes),
        }
        # A parameter for each member, so that each has a rate and a decay of its own in PyTorch's optimizer.
        self.members = nn.ModuleList(
            nn.ParameterDict({name: value.clone() for name, value in initial.items()}) for _ in range(num_members)
        )

    def parameter_groups(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """Return the groups of an optimizer: of each member, what decays and what does not.

        Args:
            pairs: Learning rate and weight decay of each member.
        """
        groups = []
        for member, (lr, weight_decay) in zip(self.members, pairs, strict=True):
            for decays in (True, False):
                parameters = [value for value in member.parameters() if (value.ndim > 1) == decays]
                groups.append({"params": parameters, "lr": lr, "weight_decay": weight_decay if decays else 0.0})
        return groups

    def _of_all(self, name: str) -> Tensor:
        return torch.stack([member[name] for member in self.members])  # type: ignore[index]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        """Map (members, B, in) to (members, B, out)."""
        return torch.baddbmm(self._of_all(f"{name}_bias")[:, None], x, self._of_all(f"{name}_weight").mT)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of each member.

        Args:
            tokens: Of all clips of each action (B, tokens, D).

        Returns:
            (B, members, classes).
        """
        B, _, dim = tokens.shape
        G, H = len(self.members), self.num_heads
        normalized = functional.layer_norm(tokens, (dim,))  # each member's own weight and bias follow below
        if self.token_places:
            normalized = normalized + place_codes(tokens.shape[1], dim).to(normalized)
        weight, bias = self._of_all("norm1_weight"), self._of_all("norm1_bias")
        query = self._of_all("query")  # (G, 1, D)
        by_head = self._linear(query, "query").view(G, H, 1, dim // H)
        keys = (by_head @ self._of_all("key_weight").view(G, H, dim // H, dim))[:, :, 0]  # (G, H, D): K^T q
        keys = keys * weight[:, None] / math.sqrt(dim // H)
        attention = (normalized @ keys.flatten(0, 1).T).softmax(dim=1)  # (B, tokens, G H)
        gathered = (attention.mT @ normalized).view(B, G, H, dim) * weight[:, None] + bias[:, None]
        values = self._of_all("value_weight").view(G * H, dim // H, dim)
        gathered = gathered.permute(1, 2, 0, 3).reshape(G * H, B, dim) @ values.mT  # (G H, B, D / H)
        gathered = gathered.view(G, H, B, dim // H).transpose(1, 2).reshape(G, B, dim)
        gathered = gathered + self._of_all("value_bias")[:, None]
        x = query + self._linear(gathered, "out")
        inner = functional.layer_norm(x, (dim,)) * self._of_all("norm2_weight")[:, None]
        inner = inner + self._of_all("norm2_bias")[:, None]
        x = x + self._linear(functional.gelu(self._linear(inner, "mlp1")), "mlp2")
        return self._linear(x, "class").transpose(0, 1)


def place_codes(num_tokens: int, dim: int) -> Tensor:
    """Return a code of each place, sines and cosines of wavelengths from three to four times all tokens.

    As the fixed codes of transformers (Vaswani et al., arXiv 1706.03762, section 3.5), with wavelengths that suit the
    number of tokens.

    Args:
        num_tokens: Places.
        dim: Size of a token, D.

    Returns:
        Float64 (tokens, D).

    Example:
        >>> codes = place_codes(32, 16)
        >>> codes.shape, bool((codes @ codes.T).argmax(dim=1).eq(torch.arange(32)).all())
        (torch.Size([32, 16]), True)
    """
    num_waves = (dim + 1) // 2
    wavelengths = torch.logspace(math.log10(3), math.log10(4 * max(num_tokens, 2)), num_waves, dtype=torch.float64)
    angles = 2 * math.pi * torch.arange(num_tokens, dtype=torch.float64)[:, None] / wavelengths
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :dim]


def attentive_probe(
    train_tokens: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_tokens: npt.NDArray[Any],
    *,
    num_classes: Mapping[str, int],
    pairs: Mapping[str, Pair],
    options: ProbeOptions,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, npt.NDArray[np.float32]]:
    """Train an attentive probe for each label column and return its scores on the test actions.

    Arrays may be memory-mapped and of 16 bits: no more of them is read at a time than a batch.

    Args:
        train_tokens: Feature maps (N_train, clips, tokens, D), or features (N_train, clips, D), of which clips are the
            tokens. The query attends to the tokens of all clips of an action together.
        train_labels: Class ids of each label column, shape (N_train,); -1 for none.
        test_tokens: As those for training; the number of clips may differ.
        num_classes: Classes of each label column.
        pairs: Learning rate and weight decay of each label column.
        options: Epochs, batches, attention heads.
        seed: Of order and initial weights.
        device: Where to train.

    Returns:
        For each label column float32 (N_test, classes): log of the probability, so also logits.

    Raises:
        ValueError: If shapes or labels do not fit together, tokens are not finite, or training diverges.

    Example:
        >>> tokens = np.float32([[[[-1.0, 1.0]]], [[[1.0, -1.0]]]])
        >>> options = ProbeOptions(kind="attentive", num_heads=1)
        >>> scores = attentive_probe(tokens, {"verb": np.array([0, 1])}, tokens, num_classes={"verb": 2},
        ...     pairs={"verb": (0.01, 0.01)}, options=options)
        >>> scores["verb"].argmax(axis=1)
        array([0, 1])
    """
    check_tokens(train_tokens, test_tokens)
    check_labels(train_labels, num_classes, num_actions=len(train_tokens))
    heads = fit_attentive(
        train_tokens,
        train_labels,
        np.arange(len(train_tokens)),
        num_classes=num_classes,
        pairs={column: [pairs[column]] for column in num_classes},
        options=options,
        seed=seed,
        device=device,
    )
    parts: dict[str, list[Tensor]] = {column: [] for column in num_classes}
    for _, scores in _scores(heads, test_tokens, np.arange(len(test_tokens)), options, device):
        for column, of_batch in scores.items():
            parts[column].append(of_batch[:, 0].float().cpu())
    answers = {column: torch.cat(of_column).numpy() for column, of_column in parts.items()}
    for column, scores_of_column in answers.items():
        if not np.isfinite(scores_of_column).all():
            raise ValueError(
                f"{column}: training diverged with a learning rate of {pairs[column][0]:g}: give a smaller one (lrs)"
            )
    return answers


def attentive_quality(
    train_tokens: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    held_out: npt.NDArray[np.bool_],
    *,
    num_classes: Mapping[str, int],
    pairs: Sequence[Pair],
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> dict[str, HeldOutQuality]:
    """Train a grid of attentive probes on a part of the training actions, and judge it on the others.

    Args:
        train_tokens: See `attentive_probe`.
        train_labels: Class ids of each column (N,), -1 for none.
        held_out: Which actions are judged, (N,); the probes know nothing of them.
        num_classes: Classes of each column.
        pairs: Learning rates and weight decays.
        options: Epochs, batches, attention heads.
        seed: Of order and initial weights.
        device: Where to train.

    Returns:
        For each column how well each pair does.

    Example:
        >>> tokens, labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]][:, None], {"verb": np.array([0, 1, 0, 1])}
        >>> attentive_quality(
        ...     tokens, labels, np.array([False, False, True, True]), num_classes={"verb": 2},
        ...     pairs=[(0.01, 0.0), (0.02, 0.0)], options=ProbeOptions(num_heads=1), seed=0, device="cpu",
        ... )["verb"].accuracies
        array([100., 100.])
    """
    heads = fit_attentive(
        train_tokens,
        train_labels,
        np.flatnonzero(~held_out),
        num_classes=num_classes,
        pairs=dict.fromkeys(num_classes, pairs),
        options=options,
        seed=seed,
        device=device,
    )
    tallies = {column: HeldOutTally(len(pairs)) for column in num_classes}
    for rows, scores in _scores(heads, train_tokens, np.flatnonzero(held_out), options, device):
        for column, of_batch in scores.items():
            tallies[column].add(of_batch, _labels_of(train_labels[column], rows, device))
    return {column: tally.quality() for column, tally in tallies.items()}


def fit_attentive(
    tokens: npt.NDArray[Any],
    labels: Mapping[str, npt.NDArray[np.int64]],
    rows: npt.NDArray[np.int64],
    *,
    num_classes: Mapping[str, int],
    pairs: Mapping[str, Sequence[Pair]],
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> dict[str, AttentiveHeads]:
    """Train the attentive probes of all columns and pairs at once; each is what it would be alone.

    Args:
        tokens: See `attentive_probe`; of float64 the probes are float64, too.
        labels: Class ids of each column, of all actions.
        rows: The actions to train on.
        num_classes: Classes of each column.
        pairs: Learning rates and weight decays of each column.
        options: Epochs, batches, attention heads.
        seed: Of order and initial weights.
        device: Where to train.

    Returns:
        The probes of each column, one for each of its pairs.

    Example:
        >>> fitted = fit_attentive(
        ...     np.eye(2)[:, None], {"verb": np.array([0, 1])}, np.arange(2), num_classes={"verb": 2},
        ...     pairs={"verb": [(0.01, 0.0), (0.1, 0.0)]}, options=ProbeOptions(num_heads=1), seed=0, device="cpu",
        ... )
        >>> len(fitted["verb"].members)
        2
    """
    dtype = torch.float64 if tokens.dtype == np.float64 else torch.float32
    heads = {
        column: AttentiveHeads(
            tokens.shape[-1],
            classes,
            num_members=len(pairs[column]),
            num_heads=options.num_heads,
            seed=seed,
            column=column,
            token_places=options.token_places,
        ).to(device, dtype)
        for column, classes in num_classes.items()
    }
    optimizer = torch.optim.AdamW(
        [group for column, of_column in heads.items() for group in of_column.parameter_groups(pairs[column])]
    )
    num_steps = options.epochs * math.ceil(len(rows) / options.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / num_steps, 1.0)))
    )
    for epoch in range(options.epochs):
        order, _ = drawn_clips(len(rows), 1, fresh=False, seed=seed, epoch=epoch)
        for start in range(0, len(rows), options.batch_size):
            # in the order of the file: the loss is the same, and a disk reads on in place of back and forth
            batch_rows = np.sort(rows[order[start : start + options.batch_size]])
            batch = _read(tokens, batch_rows, device)
            losses = [
                _summed_cross_entropy(of_column(batch), _labels_of(labels[column], batch_rows, device))
                for column, of_column in heads.items()
            ]
            optimizer.zero_grad()
            torch.autograd.backward(losses)
            optimizer.step()
            schedule.step()
    return heads


@torch.inference_mode()
def _scores(
    heads: Mapping[str, AttentiveHeads],
    tokens: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    options: ProbeOptions,
    device: torch.device | str,
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Tensor]]]:
    """Yield some rows at a time with the logarithms of their probabilities (n, members, classes) by column."""
    for start in range(0, len(rows), options.batch_size):
        some = rows[start : start + options.batch_size]
        batch = _read(tokens, some, device)
        yield some, {column: of_column(batch).log_softmax(dim=-1) for column, of_column in heads.items()}


def _read(tokens: npt.NDArray[Any], rows: npt.NDArray[np.int64], device: torch.device | str) -> Tensor:
    """Return the tokens (B, clips x tokens, D) of some actions."""
    batch = np.asarray(tokens[rows], dtype=np.float64 if tokens.dtype == np.float64 else np.float32)
    batch = batch.reshape(len(rows), -1, tokens.shape[-1])
    bad = ~np.isfinite(batch.sum(axis=(1, 2), dtype=np.float64))
    if bad.any():
        raise ValueError(f"features of action {rows[bad][0]} are not all finite")
    return torch.from_numpy(batch).to(device)


def _labels_of(labels: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.asarray(labels, np.int64)[rows]).to(device)


def _summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over members of the mean cross-entropy of the labelled rows, 0 if there are none."""
    targets = labels[:, None].expand(logits.shape[:2])
    total = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def check_tokens(train_tokens: npt.NDArray[Any], test_tokens: npt.NDArray[Any]) -> None:
    """Refuse what no attentive probe can attend to.

    Args:
        train_tokens: Training features.
        test_tokens: Test features.

    Raises:
        ValueError: If they are not (N, clips, tokens, D) or (N, clips, D) with one D, or one of them is empty.

    Example:
        >>> check_tokens(np.zeros((5, 3, 49, 8), np.float16), np.zeros((2, 1, 49, 8), np.float16))
    """
    shapes = train_tokens.shape, test_tokens.shape
    if (
        any(len(shape) not in (3, 4) or 0 in shape for shape in shapes)
        or len(shapes[0]) != len(shapes[1])
        or shapes[0][-1] != shapes[1][-1]
    ):
        raise ValueError(
            "need features (N, clips, tokens, D), or (N, clips, D), with one D, none of them empty; "
            f"got {shapes[0]} and {shapes[1]}"
        )
