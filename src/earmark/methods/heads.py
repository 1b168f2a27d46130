"""Projection heads: from features to the embeddings that the objectives compare.

In the path of a sample they stand between the encoders and the objectives; they are dropped after pretraining.
"""

from torch import nn


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
