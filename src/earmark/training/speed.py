"""Memory layout and compilation of a model, which change its speed and not what it computes.

Beside the path of a sample: the commands call this before training; `benchmarks/train_step.py` measures it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

LAYOUT_CHANNELS = 64  # below that torch's compiler does not consider channels last (torch/_inductor/graph.py)


def use_channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions out with channels last, in place; inputs then follow them.

    Convolutions take their layout from their weights, and pass it on, so nothing else needs to change. On the CPU some
    convolutions over time alone are computed in the usual layout all the same.

    Args:
        module: Any module; weights of 2-D and of 3-D convolutions are changed.

    Example:
        >>> layer = nn.Conv3d(4, 8, 3)
        >>> use_channels_last(layer)
        >>> layer(torch.zeros(2, 4, 5, 6, 6)).is_contiguous(memory_format=torch.channels_last_3d)
        True
    """
    for parameter in module.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)


def compile_encoders(model: nn.Module) -> None:
    """Compile the encoders of a model, in place: nearly all of a step's work is theirs.

    Names of weights stay as they are. The compiler runs at the first step, and again where shapes change. On the CPU it
    needs a C++ compiler.

    Args:
        model: A model whose ``backbone`` holds the encoders by name.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> from earmark.methods.replai import AudioVisualModel
        >>> model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
        >>> compile_encoders(model)
        >>> any("_orig_mod" in key for key in model.state_dict())
        False
    """
    encoders = model.get_submodule("backbone").children()
    for encoder in encoders:
        # Compiled again for each shape: both encoders share one forward, whose shapes would otherwise be taken as
        # variable, which is slower.
        encoder.compile(dynamic=False, options=_layout_options(encoder))


def _layout_options(module: nn.Module) -> dict[str, str | int | bool | Callable[..., Any]] | None:
    """Have the compiler keep channels last where it would not.

    Where no convolution has more than 64 channels it goes back to the usual layout and expects that of every result,
    while cuDNN, which goes by the weights, still gives channels last: then a step ends in ``assert_size_stride``.
    """
    weights = [parameter for parameter in module.parameters() if parameter.ndim in (4, 5)]
    laid_out = any(
        weight.is_contiguous(memory_format=torch.channels_last if weight.ndim == 4 else torch.channels_last_3d)
        and not weight.is_contiguous()
        for weight in weights
    )
    if laid_out and all(max(weight.shape[:2]) <= LAYOUT_CHANNELS for weight in weights):
        return {"force_layout_optimization": True}
    return None
