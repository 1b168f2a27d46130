"""`earmark pretrain`: one run of pretraining, from its checked configuration to the loop.

Beside the path of a sample: it puts the stations together and hands them to `earmark.training.pretrain`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli.build import describe_store, open_store, run_dir
from earmark.cli.checks import left_out_of_run, startup_problems
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import Environment, Logging, Optim, PretrainAugm, PretrainConfig
from earmark.cli.config_values import defaults_of
from earmark.cli.device import chosen_for_device, describe_device, set_algorithms
from earmark.cli.held_out import held_out_videos_seen, require_only_training_videos
from earmark.cli.launch import leave_for_requeue, processes_of, run_in_processes
from earmark.cli.method import build_clips, build_encoders, build_model
from earmark.cli.probe import scheduled_probe
from earmark.cli.terminal import say
from earmark.training.interrupts import leave_on_signals
from earmark.wording import counted

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import SGD
    from torch.optim.lr_scheduler import LRScheduler

    from earmark.clips.dataset import MomentClips
    from earmark.clips.sound_augmentation import SoundAugmentation
    from earmark.clips.store import PreparedStore
    from earmark.clips.transforms import VideoCrop
    from earmark.encoders import Encoder
    from earmark.training import PretrainResult, TrainingData
    from earmark.training.launch import Launch

__all__ = ["pretrain_in_process", "run_pretraining"]

SHORT_RUN_EPOCHS = 10
# What may differ when a run goes on: where things lie and how often it reports, not what is learned.
CHANGEABLE = (
    *(f"environment.{name}" for name in Environment.__slots__ if name not in ("precision", "sync_batch_norm")),
    # the seed is an argument, too
    "logging",
    "prepare.workers",
    "prepare.isolate",  # runs of before do not have it
    # What these change is part of the data's fingerprint. Runs of before do not name their detector, and spell out what
    # is now left to it.
    "prepare.detector",
    "prepare.min_prominence",
    "prepare.min_distance",
    "model.compile",  # as another device would be, which rounds as differently
    "model.recompute",
    "optim.batch_size",  # per node; that of all nodes together is an argument, and must be the same
    "data.args.base_path",
    "data.store",
    "data.args.layout",  # which files those videos are, and their splits, is part of the data's fingerprint
    "data.args.version",
    "optim.max_steps",
)


def run_pretraining(config: PretrainConfig, values: dict[str, Any]) -> float:
    """Pretrain, or go on with the run of this name, in the processes that are asked for and that this machine can run.

    Args:
        config: The checked configuration.
        values: The same as plain data, stored in every checkpoint.

    Returns:
        The loss of the last step, for sweepers that look for the best run.

    Raises:
        ConfigError: If parts of the configuration do not go together.
        earmark.training.launch.ProcessError: If one of several processes failed; it has said why.
        KeyboardInterrupt: If the user stopped the run; its state is saved.
        SystemExit: If a signal did, with an exit code that asks to be started again; its state is saved.
    """
    if config.data.args.base_path is not None:  # a relative path means nothing to who reads the checkpoint elsewhere
        values["data"]["args"]["base_path"] = str(Path(config.data.args.base_path).absolute())
    with leave_on_signals():
        launch = processes_of(config.environment)
        if launch.local_rank is None:  # said once, before any of them is started
            require_can_start(config, launch)
        result = run_in_processes(launch, pretrain_in_process, config, values)
    if result.stopped_by is not None:
        say(
            f"{result.stopped_by.name}: stopped after step {result.steps}; the same command goes on from "
            f"{result.checkpoint_path}"
        )
        leave_for_requeue(result.stopped_by)
    loss = result.last_losses["loss"]
    steps, epochs = counted(result.steps, "step"), counted(result.epochs, "whole epoch")
    say(f"{steps} in {epochs}, loss {loss:.4f}; checkpoint {result.checkpoint_path}")
    return loss


def pretrain_in_process(launch: "Launch", config: PretrainConfig, values: dict[str, Any]) -> "PretrainResult":
    """Do the work of one process: build everything from the configuration and train.

    The first process prepares the videos if need be, while the others wait.

    Args:
        launch: Which process this is.
        config: The checked configuration.
        values: The same as plain data.
    """
    from torch.cuda import is_bf16_supported

    from earmark.training.launch import join_processes

    require_can_start(config, launch)
    has_bfloat16 = launch.accelerator == "cuda" and is_bf16_supported(including_emulation=False)
    config = chosen_for_device(config, values, accelerator=launch.accelerator, has_bfloat16=has_bfloat16)
    environment, optim, logging = config.environment, config.optim, config.logging
    set_algorithms(deterministic=environment.deterministic, accelerator=launch.accelerator)
    fabric = join_processes(launch, precision=environment.precision, sync_batch_norm=environment.sync_batch_norm)
    seed_everything(environment.seed)
    encoders = build_encoders(config)  # before the videos are prepared: what is wrong with them shows at once

    from earmark.clips.sampling import num_full_batches, sample_seed
    from earmark.training import Checkpointing, Judging, Learner, Schedule, StepOptions, pretrain
    from earmark.training import Logging as RunLogging

    store = open_store_once(config)
    clips, num_classes = build_clips(config, store)
    num_videos = len(set(clips.video_of_item.tolist()))
    if (config.data.videos_per_batch or 0) > num_videos:
        raise ConfigError(
            f"data.videos_per_batch: {config.data.videos_per_batch}, but there are moments in "
            f"{counted(num_videos, 'video')} only; ask for fewer, or with null for batches of any"
        )
    model = build_model(config, encoders, num_samples=len(clips), num_classes=num_classes)
    if launch.rank:  # the model is the same everywhere; what it draws in training, such as dropout, is not
        seed_everything(sample_seed(environment.seed, 0, launch.rank))
    batch_size = optim.batch_size * launch.num_nodes  # of all nodes
    optimizer, scheduler = build_optimizer(
        model,
        optim,
        fused=config.model.fused_optimizer,
        steps_per_epoch=num_full_batches(len(clips), batch_size),
    )
    folder = run_dir(environment, logging)
    judging, videos = None, {"pretraining": clips.video_ids}
    if logging.evaluate_every is not None:
        probe, videos["probe"] = scheduled_probe(config, store, fabric.device)
        judging = Judging(evaluate=probe, every_epochs=logging.evaluate_every)

    def begin() -> None:
        write_config(folder, values, force=environment.force)
        say(describe_device(config, launch, has_bfloat16=has_bfloat16))
        say_what_is_trained_on(config, store, clips, folder)

    with force_by_its_option():
        return pretrain(
            Learner(model=model, optimizer=optimizer, scheduler=scheduler),
            training_data(
                config,
                store,
                clips,
                audio_encoder=encoders.get("audio"),
                videos=videos,
                num_workers=-(-environment.workers // launch.num_local),
            ),
            Schedule(
                epochs=optim.epochs,
                batch_size=batch_size,
                seed=environment.seed,
                max_steps=optim.max_steps,
                videos_per_batch=config.data.videos_per_batch,
            ),
            run_dir=folder,
            fabric=fabric,
            step=StepOptions(
                accumulate=optim.accumulate,
                max_gradient_norm=optim.max_gradient_norm,
                ema_decay=optim.ema_decay,
                sync_batch_norm=environment.sync_batch_norm,
            ),
            checkpointing=Checkpointing(
                config=values,
                changeable=CHANGEABLE,
                defaults=defaults_of(PretrainConfig),
                every_epochs=logging.save_freq,
                every_minutes=logging.save_freq_mints,
                every_steps=logging.save_freq_steps,
                retain=logging.retain,
                resume=environment.resume,
                force=environment.force,
            ),
            logging=RunLogging(
                every_steps=logging.print_freq,
                tensorboard=logging.log_tb,
                wandb=None if logging.wandb is None else wandb_arguments(logging, values),
            ),
            judging=judging,
            on_start=begin,
        )


def training_data(
    config: PretrainConfig,
    store: "PreparedStore",
    clips: "MomentClips",
    *,
    audio_encoder: "Encoder | None",
    videos: Mapping[str, Sequence[str]],
    num_workers: int,
) -> "TrainingData":
    """Return what a run reads, with the transforms that the configuration asks for and the audio encoder needs."""
    from earmark.clips.dataset import collate
    from earmark.clips.sound_augmentation import AugmentedLogMel
    from earmark.clips.transforms import LogMel
    from earmark.encoders import spectrogram_for
    from earmark.training import TrainingData

    rate = store.sample_rate
    of_sound = LogMel(sample_rate=rate) if audio_encoder is None else spectrogram_for(audio_encoder, sample_rate=rate)
    augmentation = sound_augmentation(config.data_augm)
    return TrainingData(
        clips=clips,
        collate_fn=collate,
        video_transform=video_crop(config.data_augm),
        audio_transform=of_sound,
        augmented_audio_transform=AugmentedLogMel(of_sound, augmentation) if augmentation.changes_anything else None,
        fingerprint=store.fingerprint,
        shared_crop=config.data_augm.shared_crop,
        num_workers=num_workers,
        videos=videos,
        describe=lambda index, seed: "{} at {:.2f} s".format(*clips.moment_of(index, seed)),
    )


def video_crop(augm: PretrainAugm) -> "VideoCrop":
    """Return the random crops that the group ``data_augm`` asks for."""
    from earmark.clips.transforms import VideoCrop

    if augm.min_short_side is None or augm.max_short_side is None:
        return VideoCrop(
            crop_size=augm.crop_size, min_area=augm.min_area, flip=augm.flip, color_jitter=augm.color_jitter
        )
    return VideoCrop(
        crop_size=augm.crop_size,
        min_short_side=augm.min_short_side,
        max_short_side=augm.max_short_side,
        flip=augm.flip,
        color_jitter=augm.color_jitter,
    )


def sound_augmentation(augm: PretrainAugm) -> "SoundAugmentation":
    """Return what the group ``data_augm`` asks to be done to the sound."""
    from earmark.clips.sound_augmentation import SoundAugmentation

    lowest, highest = augm.audio_mix_snr_db
    return SoundAugmentation(
        gain_db=augm.audio_gain_db,
        mix=augm.audio_mix,
        mix_snr_db=(lowest, highest),
        time_masks=augm.spec_time_masks,
        time_width=augm.spec_time_width,
        mel_masks=augm.spec_mel_masks,
        mel_width=augm.spec_mel_width,
    )


def say_what_is_trained_on(config: PretrainConfig, store: "PreparedStore", clips: "MomentClips", folder: Path) -> None:
    """Say what videos, moments and clips a run is on, and what is left out."""
    say(describe_store(store))
    say(describe_clips(config))
    found_by = f"detector {store.parameters['detector']}" if clips.moments == "audible" else clips.moments
    segments, moments = counted(clips.num_segments, "segment"), counted(clips.num_moments, "moment")
    say(f"pretraining on {segments} with {moments} ({found_by}); run folder {folder}")
    if clips.moments_per_segment > 1:
        say(f"an epoch: {counted(len(clips), 'clip')}, up to {clips.moments_per_segment} of each segment")
    if clips.quiet_share:
        apart = f"{clips.quiet_distance_seconds:g} s and more from every moment"
        say(f"quiet times: {clips.quiet_share:g} of the samples, {apart}")
    trained_on = "all splits" if config.data.split == "all" else f"split {config.data.split}"
    say(f"videos: {len(clips.video_ids)} of {trained_on}")
    for line in held_out_videos_seen(clips, store):
        say(line)
    for line in left_out_of_run(clips, store, split=config.data.split):
        say(line)


def require_can_start(config: PretrainConfig, launch: "Launch") -> None:
    """Raise if a run cannot train, as far as can be told before its videos are prepared.

    Raises:
        ConfigError: With the key of each reason.
    """
    problems = startup_problems(config, launch)
    folder = run_dir(config.environment, config.logging)
    if not config.environment.resume and any(folder.glob("checkpoints/[!.]*.pt")):
        problems.append(
            f"environment.resume: is false, and {folder} holds a run; environment.resume=true goes on with it, "
            "another logging.name begins one"
        )
    if problems:
        raise ConfigError("\n".join(problems))


@contextmanager
def force_by_its_option() -> Iterator[None]:
    """Say in the words of the command line how a run goes on with other settings."""
    from earmark.training import RunDiffersError

    try:
        yield
    except RunDiffersError as error:
        ways_out = "go back to that, choose another logging.name, or go on with --force (or environment.force=true)"
        raise RunDiffersError(error.path, error.differences, ways_out=ways_out) from error


def describe_clips(config: PretrainConfig) -> str:
    """Say in a line what is cut from prepared videos, and how far crops are enlarged for that."""
    data, augm, held = config.data, config.data_augm, config.prepare.short_side
    gaps = data.args.gaps or [data.args.delta_non_overlap]
    cropped = f"of at least {augm.min_area:g} of the picture" if augm.min_area is not None else ""
    if augm.min_short_side is not None and augm.max_short_side is not None:
        enlarged = f", enlarged up to {augm.max_short_side / held:.2f} times" if augm.max_short_side > held else ""
        cropped = f"from a short side of {augm.min_short_side} to {augm.max_short_side}{enlarged}"
    return (
        f"clips: {round(data.clip_seconds * data.clip_fps)} frames at {data.clip_fps:g} per second, "
        f"{' or '.join(f'{gap:g}' for gap in gaps)} s from the moment; crops of {augm.crop_size} "
        f"{cropped}; {data.audio_seconds:g} s of sound"
    )


def open_store_once(config: PretrainConfig) -> "PreparedStore":
    """Open the prepared videos; the first process prepares those that are missing, while the others wait."""
    from earmark.clips.store import PreparedStore
    from earmark.training import on_first_rank

    opened = []

    def prepare() -> Path:
        opened.append(open_store(config.data, config.environment, config.prepare))
        require_only_training_videos(config, opened[0])
        return opened[0].root

    root = on_first_rank(prepare)
    return opened[0] if opened else PreparedStore(root)


def seed_everything(seed: int) -> None:
    """Seed the global generators, whose states are in the checkpoints: killed before its first, a run begins alike."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)


def wandb_arguments(logging: Logging, values: dict[str, Any]) -> dict[str, Any]:
    """Return how a run appears at Weights & Biases."""
    return {"project": logging.wandb, "name": logging.name + values["logging"]["suffix"], "config": values}


def write_config(folder: Path, values: dict[str, Any], *, force: bool = False) -> None:
    """Write config.yaml to the folder of a run that begins; that of a run that goes on stays, unless forced."""
    from omegaconf import OmegaConf

    if force or not any(folder.glob("checkpoints/*.pt")):
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(values), folder / "config.yaml")


def build_optimizer(
    model: "nn.Module", config: Optim, *, fused: bool, steps_per_epoch: int
) -> "tuple[SGD, LRScheduler | None]":
    """Build the optimizer and its schedule, which is as long as the epochs, whatever ends the run before."""
    from earmark.training import WarmupCosineLR, multi_step, one_cycle, sgd

    args, cycle = config.args, config.lr_scheduler_args
    max_lr = cycle.max_lr if config.use_lr_scheduler and cycle.max_lr is not None else args.lr
    optimizer = sgd(
        model.parameters(),
        lr=max_lr if config.lr_scheduler == "cosine" else args.lr,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        nesterov=args.nesterov,
        fused=fused,
    )
    if config.use_lr_scheduler and config.lr_scheduler == "cosine":
        return optimizer, WarmupCosineLR(
            optimizer,
            total_steps=config.epochs * steps_per_epoch,
            warmup_steps=cycle.warmup_epochs * steps_per_epoch,
        )
    if config.use_lr_scheduler:
        if cycle.first_step == 1 and config.epochs < SHORT_RUN_EPOCHS:
            say(
                "note: the published one-cycle schedule, stepped once per epoch from its second step on, is coarse "
                f"over {counted(config.epochs, 'epoch')}; optim.lr_scheduler_args.first_step=0 or "
                "optim.use_lr_scheduler=false suit short runs better"
            )
        return optimizer, one_cycle(
            optimizer,
            max_lr=max_lr,
            total_steps=cycle.total_steps if cycle.total_steps is not None else config.epochs,
            first_step=cycle.first_step,
        )
    if config.schedule:
        return optimizer, multi_step(optimizer, milestones=config.schedule, gamma=config.gamma)
    return optimizer, None
