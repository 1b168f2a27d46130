"""The projection heads."""

import math

import torch
from torch import nn

from earmark.methods.heads import projection_head


def test_a_head_is_linear_relu_linear_with_the_published_keys() -> None:
    head = projection_head(16, 32, 8)
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    assert shapes == {"0.weight": (32, 16), "0.bias": (32,), "2.weight": (8, 32), "2.bias": (8,)}
    x = torch.randn(4, 16)
    first, last = head[0], head[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = (x @ first.weight.T + first.bias).clamp_min(0)
    torch.testing.assert_close(head(x), hidden @ last.weight.T + last.bias)


def test_weights_are_xavier_uniform() -> None:
    head = projection_head(512)
    for index, (fan_in, fan_out) in {0: (512, 512), 2: (512, 128)}.items():
        weight = head.get_parameter(f"{index}.weight").detach()
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert 0.999 * bound < weight.abs().max() <= bound
        assert abs(weight.mean()) < 0.01 * bound
        assert abs(weight.std() - bound / math.sqrt(3)) < 0.01 * bound
