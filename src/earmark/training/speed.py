"""Memory layout and compilation of a model, which change its speed and not what it computes.

Beside the path of a sample: the commands call this before training; `benchmarks/train_step.py` measures it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

_log = logging.getLogger(__name__)

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


def compile_encoders(
    model: nn.Module,
    *,
    report: Callable[[str], None] | None = None,
    options: Mapping[str, str | int | bool] | None = None,
) -> None:
    """Compile the encoders of a model, in place, for training: nearly all of a step's work is theirs.

    Names of weights stay as they are. The compiler runs at the first step, and again where shapes change; on the CPU it
    needs a C++ compiler, on a GPU a C one. Where it fails, the encoder goes on without it, and a warning says why. In
    evaluation mode, where shapes change often, encoders are not compiled.

    Args:
        model: A model whose ``backbone`` holds the encoders by name.
        report: Called with a line when an encoder's first compilation begins, and one with its time when it ends.
        options: Further options of `torch.compile`.

    Example:
        >>> from earmark.encoders import R2Plus1D, SpecCNN9
        >>> from earmark.methods.replai import AudioVisualModel
        >>> model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
        >>> compile_encoders(model)
        >>> any("_orig_mod" in key for key in model.state_dict())
        False
    """
    for name, encoder in model.get_submodule("backbone").named_children():
        # Compiled again for each shape: both encoders share one forward, whose shapes would otherwise be taken as
        # variable, which is slower. With fixed shapes forward and backward are compiled in the first call.
        encoder.compile(dynamic=False, options={**_layout_options(encoder), **(options or {})} or None)
        encoder._compiled_call_impl = _CompiledCall(name, encoder, report or (lambda line: None))


class _CompiledCall:
    """What a compiled encoder calls: compiled in training, as long as the compiler does not fail."""

    def __init__(self, name: str, encoder: nn.Module, report: Callable[[str], None]) -> None:
        self._name, self._encoder, self._report = name, encoder, report
        self._compiled: Callable[..., Any] | None = encoder._compiled_call_impl
        self._eager: Callable[..., Any] = encoder._call_impl
        self._begun = False

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if self._compiled is None or not self._encoder.training:
            return self._eager(*inputs, **options)
        begins, self._begun, started = not self._begun, True, time.perf_counter()
        if begins:
            self._report(f"compiling the {self._name} encoder, once; this takes up to some minutes")
        try:
            result = self._compiled(*inputs, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # What is wrong with the inputs is raised again here; the rest is the compiler's.
            result = self._eager(*inputs, **options)
            self._compiled = None
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            _log.warning("the %s encoder could not be compiled and goes on without: %s", self._name, reason)
            return result
        if begins:
            self._report(f"compiled the {self._name} encoder in {time.perf_counter() - started:.0f} s")
        return result


def _layout_options(module: nn.Module) -> dict[str, str | int | bool | Callable[..., Any]]:
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
    return {}
