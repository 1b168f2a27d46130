"""Fill a module with weights that are a function of their names, so that references need no weight files.

For a tensor called `key` with n values, u = RandomState(crc32(key)).uniform(-1, 1, n): weights with two or more axes
get sqrt(6 / fan_in) u, scales and running variances 1 + 0.1 u, biases and running means 0.05 u, counters 0.
"""

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn


def reference_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the float32 tensor called `key`; counters are int64."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    num_values = math.prod(shape)
    u = np.random.RandomState(zlib.crc32(key.encode())).uniform(-1, 1, num_values)
    if len(shape) >= 2:
        values = math.sqrt(6 * shape[0] / num_values) * u
    elif key.endswith(("weight", "running_var")):
        values = 1 + 0.1 * u
    else:
        values = 0.05 * u
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def load_reference_weights(module: nn.Module) -> None:
    """Fill `module`; encoder tensors inside a whole model go by their names inside the encoder."""
    state = {}
    for key, tensor in module.state_dict().items():
        name = key.removeprefix("backbone.video.").removeprefix("backbone.audio.")
        state[key] = reference_tensor(name, tuple(tensor.shape))
    module.load_state_dict(state)
