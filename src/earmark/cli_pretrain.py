"""`earmark pretrain`: one run of pretraining, from its checked configuration to the loop.

Beside the path of a sample: it puts the stations together and hands them to `earmark.pretrain.pretrain`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli_build import build_fabric, open_store, run_dir, say
from earmark.cli_method import build_clips, build_encoders, build_model
from earmark.config_schema import Environment, Optim, PretrainConfig

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import SGD
    from torch.optim.lr_scheduler import LRScheduler

__all__ = ["run_pretraining"]

SHORT_RUN_EPOCHS = 10
# What may differ when a run goes on: where things lie and how often it reports, not what is learned.
CHANGEABLE = (
    *(f"environment.{name}" for name in Environment.__slots__ if name != "precision"),  # the seed is an argument too
    "logging",
    "prepare.workers",
    "data.args.base_path",
    "data.store",
    "optim.max_steps",
)


def run_pretraining(config: PretrainConfig, values: dict[str, Any]) -> float:
    """Pretrain, or go on with the run of this name.

    Args:
        config: The checked configuration.
        values: The same as plain data, stored in every checkpoint.

    Returns:
        The loss of the last step, for sweepers that look for the best run.

    Raises:
        ConfigError: If parts of the configuration do not go together.
        KeyboardInterrupt: If the user stopped the run; its state is saved.
    """
    import torch

    if config.data.args.base_path is not None:  # a relative path means nothing to who reads the checkpoint elsewhere
        values["data"]["args"]["base_path"] = str(Path(config.data.args.base_path).absolute())
    fabric = build_fabric(config.environment)
    torch.manual_seed(config.environment.seed)
    encoders = build_encoders(config)  # before the videos are prepared: what is wrong with them shows at once
    store = open_store(config.data, config.environment, config.prepare)

    from earmark.clips import collate
    from earmark.pretrain import pretrain
    from earmark.transforms import LogMel, VideoCrop

    augm, optim, logging = config.data_augm, config.optim, config.logging
    clips, num_classes = build_clips(config, store)
    model = build_model(config, encoders, num_samples=len(clips), num_classes=num_classes)
    optimizer, scheduler = build_optimizer(model, optim, fused=config.model.fused_optimizer)
    folder = run_dir(config.environment, logging)
    write_config(folder, values)
    say(f"pretraining on {len(clips)} segments with {clips.num_moments} moments; run folder {folder}")
    result = pretrain(
        model=model,
        clips=clips,
        collate_fn=collate,
        video_transform=VideoCrop(
            crop_size=augm.crop_size,
            min_short_side=augm.min_short_side,
            max_short_side=augm.max_short_side,
            flip=augm.flip,
            color_jitter=augm.color_jitter,
        ),
        audio_transform=LogMel(sample_rate=store.sample_rate),
        optimizer=optimizer,
        scheduler=scheduler,
        run_dir=folder,
        epochs=optim.epochs,
        batch_size=optim.batch_size,
        seed=config.environment.seed,
        num_workers=config.environment.workers,
        fabric=fabric,
        max_steps=optim.max_steps,
        shared_crop=augm.shared_crop,
        save_every_epochs=logging.save_freq,
        save_every_minutes=logging.save_freq_mints,
        save_every_steps=logging.save_freq_steps,
        log_every=logging.print_freq,
        resume=config.environment.resume,
        config=values,
        changeable=CHANGEABLE,
        fingerprint=store.fingerprint,
        tensorboard=logging.log_tb,
    )
    if result.interrupted:
        say(f"stopped after step {result.steps}; the same command goes on from {result.checkpoint_path}")
        raise KeyboardInterrupt
    loss = result.last_losses["loss"]
    say(f"{result.steps} steps in {result.epochs} whole epochs, loss {loss:.4f}; checkpoint {result.checkpoint_path}")
    return loss


def write_config(folder: Path, values: dict[str, Any]) -> None:
    """Write config.yaml to the folder of a run that begins; that of a run that goes on stays as it is."""
    from omegaconf import OmegaConf

    if not any(folder.glob("checkpoints/*.pt")):
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(values), folder / "config.yaml")


def build_optimizer(model: "nn.Module", config: Optim, *, fused: bool) -> "tuple[SGD, LRScheduler | None]":
    """Build the optimizer and its schedule, which is stepped once an epoch."""
    from earmark.optim import multi_step, one_cycle, sgd

    args = config.args
    optimizer = sgd(
        model.parameters(),
        lr=args.lr,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        nesterov=args.nesterov,
        fused=fused,
    )
    if config.use_lr_scheduler:
        cycle = config.lr_scheduler_args
        if cycle.first_step == 1 and config.epochs < SHORT_RUN_EPOCHS:
            say(
                "note: the published one-cycle schedule, stepped once an epoch from its second step on, is coarse "
                f"over {config.epochs} epochs; optim.lr_scheduler_args.first_step=0 or optim.use_lr_scheduler=false "
                "suit short runs better"
            )
        return optimizer, one_cycle(
            optimizer,
            max_lr=cycle.max_lr if cycle.max_lr is not None else args.lr,
            total_steps=cycle.total_steps if cycle.total_steps is not None else config.epochs,
            first_step=cycle.first_step,
        )
    if config.schedule:
        return optimizer, multi_step(optimizer, milestones=config.schedule, gamma=config.gamma)
    return optimizer, None
