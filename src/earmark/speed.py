"""How a model is laid out and run, which changes its speed and not what it computes.

Beside the path of a sample: the commands call this before training; `benchmarks/train_step.py` measures it.
"""

import torch
from torch import nn


def use_channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions out with channels last, in place; inputs then follow them.

    Convolutions take their layout from their weights, and pass it on, so nothing else need be told. Some of those over
    time alone are computed in the usual layout on the CPU all the same.

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
        >>> from earmark.model import AudioVisualModel
        >>> model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
        >>> compile_encoders(model)
        >>> any("_orig_mod" in key for key in model.state_dict())
        False
    """
    encoders = model.get_submodule("backbone").children()
    for encoder in encoders:
        # For each shape anew: both encoders share one forward, whose shapes would otherwise be taken as variable, which
        # is slower.
        encoder.compile(dynamic=False)
