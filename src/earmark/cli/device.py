"""What a run is computed with where the configuration leaves that to the device, and the line that says so.

Beside the path of a sample: `earmark.cli.pretrain` asks here once it knows what each process computes on.
"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from earmark.cli.config_schema import PretrainConfig
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.training.launch import Launch

__all__ = ["chosen_for_device", "describe_device", "set_algorithms"]


def chosen_for_device(
    config: PretrainConfig, values: dict[str, Any], *, accelerator: Literal["cpu", "cuda"], has_bfloat16: bool
) -> PretrainConfig:
    """Put what fits the device in the place of ``auto``.

    On a GPU that is bfloat16 with compiled encoders. One without bfloat16 computes in float32: float16 can overflow, so
    that is for the user to choose.

    Args:
        config: The checked configuration.
        values: The same as plain data; changed, so that a checkpoint holds what a run was computed with, and a resume
            on another device says so.
        accelerator: What each process computes on.
        has_bfloat16: Whether that computes in bfloat16.

    Returns:
        The configuration without ``auto``.

    Example:
        >>> from earmark.cli.config import checked, compose
        >>> values = compose("default_ssrl", [])
        >>> config = checked(PretrainConfig, values)
        >>> config = chosen_for_device(config, values, accelerator="cuda", has_bfloat16=True)
        >>> config.environment.precision, config.model.compile, values["environment"]["precision"]
        ('bf16-mixed', True, 'bf16-mixed')
    """
    precision, compiled = config.environment.precision, config.model.compile
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "cuda" and has_bfloat16 else "32-true"
    if compiled == "auto":
        compiled = accelerator == "cuda"
    values["environment"]["precision"], values["model"]["compile"] = precision, compiled
    return replace(
        config,
        environment=replace(config.environment, precision=precision),
        model=replace(config.model, compile=compiled),
    )


def set_algorithms(*, deterministic: bool, accelerator: Literal["cpu", "cuda"]) -> None:
    """Have PyTorch use only algorithms that give the same bits each time, or whichever is fastest.

    Args:
        deterministic: Which of the two.
        accelerator: What this process computes on. On a GPU cuDNN tries its algorithms at the first step, as the shapes
            of all steps are the same.
    """
    import torch

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for, before it is first used
    torch.backends.cudnn.benchmark = accelerator == "cuda" and not deterministic
    # Pooling over time has no such backward on GPUs: PyTorch says so instead of refusing to train.
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def describe_device(config: PretrainConfig, launch: "Launch", *, has_bfloat16: bool) -> str:
    """Say in a line what a run is computed with.

    Args:
        config: The configuration without ``auto``.
        launch: The processes of the run, this one's device being the current one.
        has_bfloat16: Whether the device computes in bfloat16.
    """
    import torch

    environment, model = config.environment, config.model
    on_gpu = launch.accelerator == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else f"the CPU ({counted(torch.get_num_threads(), 'thread')})"
    precision: str = environment.precision
    if on_gpu and not has_bfloat16 and precision == "32-true":
        precision += " (no bfloat16 here; environment.precision=16-mixed is faster)"
    parts = [
        f"computing on {device}" + (f", {launch.world_size} processes" if launch.world_size > 1 else ""),
        f"precision {precision}",
        "encoders compiled" if model.compile else "encoders not compiled",
        *(["activations computed again in the backward pass"] if model.recompute else []),
        *([f"cuDNN benchmark {'on' if torch.backends.cudnn.benchmark else 'off'}"] if on_gpu else []),
        *(["channels last"] if model.channels_last else []),
        *(["deterministic"] if environment.deterministic else []),
        f"{counted(environment.workers, 'worker')} for loading",
    ]
    return ", ".join(parts)
