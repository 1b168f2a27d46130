"""What is checked and reported before a run trains.

Beside the path of a sample: `earmark.cli.config` asks which options contradict each other, `earmark.cli.pretrain` what
cannot work on this machine, before it prepares anything, and which data a run leaves out.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from earmark.cli.config_schema import CriterionArgs, PretrainConfig
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.dataset import MomentClips
    from earmark.clips.store import PreparedStore
    from earmark.training.launch import Launch

__all__ = ["left_out_of_run", "startup_problems", "unused_by_criterion"]

WITHOUT_SOUND = ("simclr_video", "supervised")  # objectives that have no audio encoder
WITHOUT_ACTIONS = ("folder",)  # data sets that never have annotated actions


def unused_by_criterion(config: PretrainConfig) -> list[str]:
    """Return which options of the objective would change nothing, or contradict each other."""
    problems: list[str] = []
    args = config.criterion.args
    if config.criterion.name in WITHOUT_SOUND and config.backbone.audio.args.frozen:
        problems.append(f"backbone.audio.args.frozen: criterion={config.criterion.name} does not use sound")
    if config.criterion.name != "ssrl_audiopeak_aotv2":
        if config.data.quiet_share:
            problems.append(
                f"data.quiet_share: criterion={config.criterion.name} does not tell quiet times from moments"
            )
        return problems
    if args.clr_coeff == 0 and args.aot_coeff == 0:
        without_sound = "; criterion=simclr_video learns without sound" if args.clip_pair_coeff else ""
        problems.append(
            f"criterion.args.clr_coeff: is 0, and aot_coeff too: nothing is left to learn from sound{without_sound}"
        )
    if args.clr_coeff == 0 and args.queue_size:
        problems.append("criterion.args.queue_size: holds negatives of the correspondence loss; clr_coeff is 0")
    if args.aot_coeff == 0 and args.normalise_states:
        problems.append("criterion.args.normalise_states: belongs to the state change loss; aot_coeff is 0")
    if args.aot_coeff == 0 and args.state_change_negatives == "batch":
        problems.append("criterion.args.state_change_negatives: belongs to the state change loss; aot_coeff is 0")
    gathers = (
        args.clr_coeff > 0
        or args.clip_pair_coeff > 0
        or (args.aot_coeff > 0 and args.state_change_negatives == "batch")
    )
    if args.gather == "reference" and not gathers:
        problems.append("criterion.args.gather: no loss with a weight above 0 compares samples with one another")
    return problems + _unused_by_added_losses(config)


def _unused_by_added_losses(config: PretrainConfig) -> list[str]:
    """Return the same of the losses that the paper does not have."""
    problems: list[str] = []
    args, plain = config.criterion.args, CriterionArgs(in_dim=None)
    if args.clip_pair_coeff == 0 and args.clip_pair_temperature != plain.clip_pair_temperature:
        problems.append("criterion.args.clip_pair_temperature: belongs to the loss of clip pairs; clip_pair_coeff is 0")
    if args.sound_unit_coeff == 0 and args.sound_units != plain.sound_units:
        problems.append("criterion.args.sound_units: belongs to the loss of sound units; sound_unit_coeff is 0")
    if args.sound_unit_coeff and not args.sound_units:
        problems.append("criterion.args.sound_units: needs at least one number; sound_unit_coeff is above 0")
    if args.moment_detection_coeff and not config.data.quiet_share:
        problems.append(
            "criterion.args.moment_detection_coeff: tells moments from quiet times, of which data.quiet_share is 0"
        )
    if config.data.quiet_share and args.queue_size:
        problems.append("criterion.args.queue_size: would hold quiet times; data.quiet_share is above 0")
    if config.data.quiet_share and config.data.moments != "audible":
        problems.append(f"data.quiet_share: needs data.moments=audible, here it is {config.data.moments}")
    return problems


def startup_problems(config: PretrainConfig, launch: "Launch") -> list[str]:
    """Return why a run cannot start, as far as is known before its videos are prepared.

    Args:
        config: The checked configuration.
        launch: The processes of the run.

    Returns:
        One line per problem, each with the full name of its key.
    """
    return [
        *_processes_that_do_not_fit(config, launch),
        *_temperatures_out_of_range(config),
        *_missing_packages(config),
        *_data_that_does_not_fit(config),
    ]


def _processes_that_do_not_fit(config: PretrainConfig, launch: "Launch") -> list[str]:
    problems = []
    optim, precision = config.optim, config.environment.precision
    batch_size = optim.batch_size * launch.num_nodes
    if batch_size % launch.world_size:
        problems.append(
            f"optim.batch_size: {optim.batch_size} cannot be shared out equally among the "
            f"{counted(launch.num_local, 'process', 'processes')} of a node"
        )
    elif (share := batch_size // launch.world_size) % optim.accumulate:
        problems.append(
            f"optim.accumulate: a batch of {share} of one process cannot be cut into {optim.accumulate} equal parts"
        )
    elif share == 1 and config.data_augm.audio_mix:
        problems.append(
            "data_augm.audio_mix: mixes samples of one process with one another, of which "
            f"optim.batch_size={optim.batch_size} leaves it one"
        )
    if config.data.videos_per_batch is not None and config.data.videos_per_batch > batch_size:
        problems.append(
            f"data.videos_per_batch: a batch of {batch_size} cannot be made of {config.data.videos_per_batch} videos"
        )
    if launch.accelerator == "cpu" and precision in ("bf16-mixed", "16-mixed"):
        why = "PyTorch's bfloat16 weight gradient of 3-D convolutions is wrong there"
        problems.append(
            f"environment.precision: {precision} is for GPUs, and this run is on the CPU"
            + (f" ({why})" if precision == "bf16-mixed" else "")
            + "; 32-true is not"
        )
    return problems


def _temperatures_out_of_range(config: PretrainConfig) -> list[str]:
    from earmark.methods.replai import MIN_TEMPERATURE

    args = config.criterion.args
    return [
        f"criterion.args.{name}: learned temperatures begin at {MIN_TEMPERATURE} or above, got {getattr(args, name)}"
        for name in ("temperature", "state_change_temperature")
        if args.learnable_temperature and getattr(args, name) < MIN_TEMPERATURE
    ]


def _missing_packages(config: PretrainConfig) -> list[str]:
    problems = []
    if config.logging.wandb is not None and find_spec("wandb") is None:
        problems.append("logging.wandb: wandb is not installed: pip install 'earmark[wandb]'")
    if config.criterion.name == "xdc" and config.criterion.args.kmeans == "faiss" and find_spec("faiss") is None:
        problems.append("criterion.args.kmeans: faiss is not installed: pip install 'earmark[faiss]'")
    return problems


def _data_that_does_not_fit(config: PretrainConfig) -> list[str]:
    problems = []
    name = config.data.name
    if name in WITHOUT_ACTIONS and config.criterion.name == "supervised":
        problems.append(f"criterion: supervised needs annotated actions; data {name} has none")
    if name in WITHOUT_ACTIONS and config.data.moments == "narrated":
        problems.append(f"data.moments: narrated needs annotated actions; data {name} has none")
    if name in WITHOUT_ACTIONS and config.logging.evaluate_every is not None:
        problems.append(f"logging.evaluate_every: {name} has no annotated actions to probe on")
    return problems


def left_out_of_run(clips: "MomentClips", store: "PreparedStore", *, split: str) -> list[str]:
    """Return which of the prepared data a run leaves out, one line per kind that occurs.

    Args:
        clips: What the run sees.
        store: What it was made from.
        split: The split asked for, or ``all``.
    """
    where = "" if split == "all" else f" of split {split}"
    refused = sum(video.status == "refused" and split in ("all", video.split) for video in store.catalog)
    counts = [
        (refused, "video", "refused when preparing (`earmark prepare` says why)"),
        (clips.num_videos_without_sound, "video", "without sound"),
        (clips.num_segments_without_moment, "segment", "without a usable moment"),
        (clips.num_unusable_moments, "moment", "too near an end of the video for both clips"),
    ]
    lines = [f"left out: {counted(number, noun)}{where} {why}" for number, noun, why in counts if number]
    if clips.num_videos_without_quiet_time:
        without = counted(clips.num_videos_without_quiet_time, "video")
        lines.append(f"no quiet time: in {without}, whose samples are all moments")
    if clips.num_labelled_moments is not None:
        lines.append(
            f"{clips.num_labelled_moments} of {counted(clips.num_moments, 'moment')} lie in an annotated action; "
            "the others have no label and teach nothing"
        )
    return lines
