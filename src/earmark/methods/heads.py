"""Projection heads: from features to the embeddings that the objectives compare.

In the path of a sample they stand between the encoders and the objectives; they are dropped after pretraining.
"""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

__all__ = ["heads_of_weights", "projection_head"]


def projection_head(in_dim: int, hidden_dim: int = 512, out_dim: int = 128) -> nn.Sequential:
    """Return a two-layer perceptron, Linear-ReLU-Linear, with Xavier-uniform weights.

    Args:
        in_dim: Size of the features.
        hidden_dim: Size between the layers.
        out_dim: Size of the embedding, D.

    Returns:
        A module (B, in_dim) -> (B, out_dim) with the parameters ``0.weight, 0.bias, 2.weight, 2.bias``.

    Source: the paper, arXiv 2209.13583, and the original code (which keeps PyTorch's default for biases).

    Example:
        >>> import torch
        >>> projection_head(512)(torch.zeros(4, 512)).shape
        torch.Size([4, 128])
    """
    head = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    return head


def heads_of_weights(weights: Mapping[str, Tensor], names: Collection[str]) -> dict[str, nn.Sequential]:
    """Return projection heads that a method's weights hold, in evaluation mode.

    Args:
        weights: A method's state dict, in which head NAME has ``mlp.NAME.{0,2}.{weight,bias}``.
        names: Which heads.

    Raises:
        ValueError: Naming the head, if it is not there, is no such perceptron, or its weights are not finite.

    Example:
        >>> head = projection_head(8, hidden_dim=4, out_dim=2)
        >>> weights = {f"mlp.video_clr.{name}": value for name, value in head.state_dict().items()}
        >>> sorted(heads_of_weights(weights, ["video_clr"]))
        ['video_clr']
    """
    heads = {}
    for name in names:
        prefix = f"mlp.{name}."
        found = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if set(found) != {"0.weight", "0.bias", "2.weight", "2.bias"}:
            raise ValueError(f"the projection head {name} is not there" if not found else f"{name}: no projection head")
        if found["0.weight"].ndim != 2 or found["2.weight"].ndim != 2:
            raise ValueError(f"{name}: no projection head")
        if not all(value.is_floating_point() and value.isfinite().all() for value in found.values()):
            raise ValueError(f"the weights of the projection head {name} are not finite numbers")
        head = projection_head(found["0.weight"].shape[1], len(found["0.weight"]), len(found["2.weight"]))
        try:
            head.load_state_dict(found)
        except RuntimeError as error:  # shapes that do not fit together
            raise ValueError(f"{name}: no projection head") from error
        heads[name] = head.eval()
    return heads
