"""Which settings contradict each other though each is valid.

Beside the path of a sample; part of `earmark.cli.config`. Whether clips, crops and sound fit the prepared videos is
checked by `earmark.cli.config_fit`.
"""

import json
import re
from collections.abc import Sequence

from earmark.cli.checks import WITHOUT_SOUND, unused_by_criterion
from earmark.cli.config_schema import (
    EGO4D_TASKS,
    MOMENT_TASKS,
    Environment,
    Evaluate,
    EvaluateConfig,
    Optim,
    Prepare,
    PretrainAugm,
    PretrainConfig,
)
from earmark.wording import counted

__all__ = ["contradictions"]

DETECTOR_OPTIONS = {  # those of earmark.moments, which is slow to import
    "earmark": ("min_score", "min_distance_seconds"),
    "replai": ("min_prominence", "min_distance"),
}
LAYOUTS = {  # of data sets that have several
    "epic_kitchens": ("videos", "segments", "action_segments"),
    "epic_kitchens_55": ("videos", "segments", "action_segments"),
    "ego4d": ("full_scale", "clips"),
}
FINE_TUNED_TASKS = ("action_recognition", "sound_recognition", "oscc_pnr")  # those with `evaluate.probe=fine_tuned`
PUBLISHED_TASKS = ("action_recognition", "lta", "oscc_pnr")  # those with `evaluate.protocol=published`
ANTICIPATION_KEYS = {"aggregator": "transformer", "num_layers": 6, "num_seen": None, "decoding": "sampled"}  # of lta
MAX_MOMENTS = 1000  # of evaluate, where it is not given
PROBE_MOMENTUM = 0.9  # of optim/sgd_lincls
PREPARE_CHOICES = {"earmark": "default", "replai": "replai"}  # of the group prepare, by the detector that it chooses


def contradictions(config: PretrainConfig | EvaluateConfig) -> list[str]:
    """Return which settings contradict each other, one line per problem, each with the full name of its key.

    Args:
        config: Checked value by value.
    """
    problems = []
    optim, environment = config.optim, config.environment
    if environment.accelerator == "cuda" and environment.ngpu == 0:
        problems.append("environment.ngpu: must be at least 1 with environment.accelerator=cuda")
    if environment.force_processes is not None and environment.accelerator == "cuda":
        problems.append(
            "environment.force_processes: starts processes on the CPU, which contradicts environment.accelerator=cuda"
        )
    problems += _wrong_nodes(environment) + _options_of_another_detector(config.prepare)
    layout = config.data.args.layout
    if layout is not None and layout not in LAYOUTS.get(config.data.name, (layout,)):
        those = ", ".join(LAYOUTS[config.data.name])
        problems.append(f"data.args.layout: {layout} is none of {config.data.name}, which has {those}")
    if isinstance(config, EvaluateConfig):
        problems += [
            f"backbone.{kind}.args.frozen: is for pretraining; encoders that are judged learn nothing, except with "
            "evaluate.probe=fine_tuned, which trains them whole"
            for kind, args in (("video", config.backbone.video.args), ("audio", config.backbone.audio.args))
            if args.frozen
        ]
        problems += _unused_by_probe(config)
    else:
        problems += _wrong_crop(config.data_augm) + _wrong_sound(config)
        if config.criterion.name == "supervised" and config.data.split == "all":
            problems.append("data.split: criterion=supervised needs one split, whose annotated actions it learns from")
        if config.data.moments == "narrated" and config.data.split == "all":
            problems.append("data.split: data.moments=narrated needs one split, whose narrations the moments are of")
        if config.criterion.name == "simclr_video" and config.data_augm.shared_crop:
            problems.append("data_augm.shared_crop: must be false with criterion=simclr_video, of two crops")
        problems += unused_by_criterion(config)
        if environment.force and not environment.resume:
            problems.append(
                "environment.force: resumes a run, which environment.resume=false forbids; give only one of them"
            )
        if config.model.fused_optimizer and optim.max_gradient_norm is not None and environment.precision == "16-mixed":
            problems.append(
                "optim.max_gradient_norm: needs model.fused_optimizer=false with environment.precision=16-mixed: the "
                "fused update undoes the scale of gradients too late for clipping"
            )
    return problems + _contradicting_schedule(optim)


def _contradicting_schedule(optim: Optim) -> list[str]:
    """Return which settings of the learning rate's schedule contradict each other."""
    problems, options = [], optim.lr_scheduler_args
    cosine = optim.lr_scheduler == "cosine"
    if optim.use_lr_scheduler and optim.schedule:
        problems.append("optim.schedule: is for optim.use_lr_scheduler=false; give one or the other")
    if cosine and not optim.use_lr_scheduler:
        problems.append("optim.lr_scheduler: cosine needs optim.use_lr_scheduler=true")
    if cosine and options.total_steps is not None:
        problems.append(
            "optim.lr_scheduler_args.total_steps: must be null with optim.lr_scheduler=cosine, which is as long as "
            "optim.epochs"
        )
    elif optim.use_lr_scheduler and options.total_steps is not None and options.total_steps < optim.epochs:
        problems.append(
            f"optim.lr_scheduler_args.total_steps: {options.total_steps} is too few for "
            f"{counted(optim.epochs, 'epoch')}"
        )
    if options.warmup_epochs and not cosine:
        problems.append("optim.lr_scheduler_args.warmup_epochs: must be 0; it is of optim.lr_scheduler=cosine")
    elif options.warmup_epochs >= optim.epochs:
        problems.append(
            f"optim.lr_scheduler_args.warmup_epochs: {options.warmup_epochs:g} leaves nothing of "
            f"{counted(optim.epochs, 'epoch')} to the cosine"
        )
    return problems


def _wrong_nodes(environment: Environment) -> list[str]:
    problems = []
    if environment.rank >= environment.world_size:
        problems.append(f"environment.rank: must be below environment.world_size ({environment.world_size})")
    url = environment.dist_url
    if url is not None and not re.fullmatch(r"env://|tcp://[^/:]+:\d+", url):
        problems.append(f"environment.dist_url: must be tcp://HOST:PORT, env:// or null, got {url!r}")
    if environment.world_size > 1 and not environment.slurm and url is None:
        problems.append(
            "environment.dist_url: several nodes need tcp://HOST:PORT of the first, or env:// if torchrun or srun "
            "starts the processes"
        )
    return problems


def _options_of_another_detector(prepare: Prepare) -> list[str]:
    own = " and ".join(f"prepare.{name}" for name in DETECTOR_OPTIONS[prepare.detector])
    return [
        f"prepare.{name}: is an option of the detector {detector} (prepare={PREPARE_CHOICES[detector]}); here it is "
        f"{prepare.detector} (prepare={PREPARE_CHOICES[prepare.detector]}), which has {own}"
        for detector, names in DETECTOR_OPTIONS.items()
        for name in names
        if detector != prepare.detector and getattr(prepare, name) is not None
    ]


def _wrong_crop(augm: PretrainAugm) -> list[str]:
    problems: list[str] = []
    if augm.min_short_side is None or augm.max_short_side is None:  # a choice that crops by area
        return problems
    if augm.max_short_side < augm.min_short_side:
        problems.append(f"data_augm.max_short_side: must be at least min_short_side ({augm.min_short_side})")
    if augm.min_short_side < augm.crop_size:
        problems.append(f"data_augm.min_short_side: must be at least crop_size ({augm.crop_size})")
    return problems


def _wrong_sound(config: PretrainConfig) -> list[str]:
    augm, problems = config.data_augm, []
    ratios = augm.audio_mix_snr_db
    if len(ratios) != 2 or ratios[0] > ratios[1]:
        problems.append(f"data_augm.audio_mix_snr_db: must be [LOWEST, HIGHEST], got {ratios}")
    if config.criterion.name in WITHOUT_SOUND:
        problems += [
            f"data_augm.{name}: must be 0 with criterion={config.criterion.name}, which does not use sound"
            for name in ("audio_gain_db", "audio_mix", "spec_time_masks", "spec_mel_masks")
            if getattr(augm, name)
        ]
    return problems


def _unused_by_probe(config: EvaluateConfig) -> list[str]:
    """Return which settings of the groups shared with pretraining would change nothing here."""
    problems = []
    if config.optim.use_lr_scheduler:
        problems.append("optim.use_lr_scheduler: must be false; the probe's learning rate falls at optim.schedule")
    if config.optim.args.nesterov:
        problems.append("optim.args.nesterov: must be false; the probe has plain momentum")
    if config.optim.max_steps is not None:
        problems.append("optim.max_steps: must be null; the probe has optim.epochs")
    for name, plain in (("accumulate", 1), ("max_gradient_norm", None), ("ema_decay", None)):
        if getattr(config.optim, name) != plain:
            problems.append(f"optim.{name}: must be {plain}; it is for pretraining")
    for name, plain in (("moments_per_segment", 1), ("videos_per_batch", None), ("quiet_share", 0)):
        if getattr(config.data, name) != plain:
            problems.append(f"data.{name}: must be {_shown(plain)}; it is for pretraining")
    if config.environment.force:
        problems.append("environment.force: must be false; it is for pretraining")
    if config.environment.force_processes not in (None, 1):
        problems.append("environment.force_processes: must be null; evaluation runs in one process")
    if config.environment.precision not in ("auto", "32-true"):
        problems.append("environment.precision: must be 32-true; features and probe are computed in float32")
    problems += _contradicting_probe(config.evaluate, config.data.name) + _of_another_probe(config)
    problems += _contradicting_split(config) + _of_another_data_set(config) + _of_anticipation(config)
    problems += _of_state_changes(config.evaluate) + _unused_by_moments(config)
    if config.data.split not in ("train", "all"):
        problems.append("data.split: must be train, where the probe learns; evaluate.split is what it is judged on")
    return problems


def _contradicting_probe(evaluate: Evaluate, data: str) -> list[str]:
    """Return which settings of the probe contradict each other."""
    problems = [] if evaluate.neighbours else ["evaluate.neighbours: needs at least one number"]
    if evaluate.probe == "knn":
        problems += [
            f"evaluate.{name}: must be []; the kNN probe trains nothing"
            for name in ("lrs", "weight_decays")
            if getattr(evaluate, name)
        ]
    elif evaluate.neighbours != [20]:
        problems.append(f"evaluate.neighbours: must be [20]; it is of evaluate.probe=knn, here it is {evaluate.probe}")
    if evaluate.probe in ("attentive", "fine_tuned") and evaluate.audio:
        problems.append(f"evaluate.audio: must be false with evaluate.probe={evaluate.probe}, of one encoder")
    if evaluate.probe == "fine_tuned":
        if evaluate.task not in FINE_TUNED_TASKS:
            problems.append(f"evaluate.probe: fine_tuned is of evaluate.task={_either(FINE_TUNED_TASKS)}")
        if evaluate.protocol == "published" and data != "ego4d":
            problems.append(
                "evaluate.protocol: must be full with evaluate.probe=fine_tuned; the published one has a linear probe"
            )
        if evaluate.random_clips:
            problems.append(
                "evaluate.random_clips: must be false with evaluate.probe=fine_tuned, whose training clips are random "
                "anyway"
            )
    problems += [
        f"evaluate.{name}: names a value twice"
        for name in ("lrs", "weight_decays", "neighbours")
        if len(set(getattr(evaluate, name))) < len(getattr(evaluate, name))
    ]
    return problems


def _of_another_probe(config: EvaluateConfig) -> list[str]:
    """Return which settings are of another probe than the one asked for, so that they would change nothing."""
    probe, problems = config.evaluate.probe, []
    if probe in ("attentive", "fine_tuned"):
        if not config.evaluate.standardize:
            problems.append(f"evaluate.standardize: must be true with evaluate.probe={probe}, which has no such step")
        if config.train_algo.normalize_feats:
            problems.append(
                f"train_algo.normalize_feats: must be false with evaluate.probe={probe}, which has no such step"
            )
    if probe == "attentive":
        if config.optim.schedule:
            problems.append(
                "optim.schedule: must be [] with evaluate.probe=attentive, whose learning rate falls along a cosine"
            )
        if config.optim.args.momentum != PROBE_MOMENTUM:
            problems.append(
                f"optim.args.momentum: must be {PROBE_MOMENTUM} with evaluate.probe=attentive, which AdamW trains"
            )
    return problems


def _contradicting_split(config: EvaluateConfig) -> list[str]:
    """Return which settings contradict what is judged."""
    evaluate, subset = config.evaluate, config.data.subset
    problems = []
    if subset is not None and evaluate.split != "validation":
        problems.append(f"data.subset: {subset} is of the validation split; give evaluate.split=validation")
    if subset is not None and evaluate.submission is not None:
        problems.append(f"evaluate.submission: a challenge takes all actions, and data.subset={subset} are a part")
    if evaluate.split == "test" and evaluate.submission is None and evaluate.task not in MOMENT_TASKS:
        problems.append("evaluate.submission: must name a file with evaluate.split=test, whose labels are held back")
    if evaluate.split == "train" and evaluate.submission is not None:
        problems.append("evaluate.submission: is of evaluate.split=test or validation")
    if evaluate.protocol == "published":
        if evaluate.split == "test":
            problems.append("evaluate.protocol: must be full with evaluate.split=test, where nothing is measured")
        if evaluate.task not in PUBLISHED_TASKS:
            problems.append(f"evaluate.protocol: published is of evaluate.task={_either(PUBLISHED_TASKS)}")
    return problems


def _of_another_data_set(config: EvaluateConfig) -> list[str]:
    """Return which tasks the data set has no annotations of."""
    evaluate, problems = config.evaluate, []
    if evaluate.task in EGO4D_TASKS and config.data.name != "ego4d":
        problems.append(f"evaluate.task: {evaluate.task} is annotated in Ego4D alone; give data=ego4d")
    if (evaluate.task, evaluate.protocol, evaluate.audio, config.data.name) == (
        *("action_recognition", "published", True, "ego4d"),
    ):
        problems.append("evaluate.audio: must be false with evaluate.protocol=published on Ego4D, which fine-tunes one")
    labelled = evaluate.task not in (*EGO4D_TASKS, *MOMENT_TASKS)
    if config.data.name == "ego4d" and evaluate.task == "anticipation":
        problems.append("evaluate.task: anticipation is that of EPIC-KITCHENS; Ego4D's is another one, lta")
    elif config.data.name == "ego4d" and evaluate.split == "test" and labelled:
        problems.append(
            "evaluate.split: must be validation or train; the labels of Ego4D's test actions are not public, and no "
            f"challenge takes answers of {evaluate.task}"
        )
    return problems


def _of_anticipation(config: EvaluateConfig) -> list[str]:
    """Return which settings long-term anticipation would not use, or would be used by it alone."""
    evaluate = config.evaluate
    given = [name for name, plain in ANTICIPATION_KEYS.items() if getattr(evaluate, name) != plain]
    if evaluate.task != "lta":
        return [
            f"evaluate.{name}: must be {_shown(ANTICIPATION_KEYS[name])}; it is of evaluate.task=lta, here it is "
            f"{evaluate.task}"
            for name in given
        ]
    problems = []
    if evaluate.aggregator != "transformer" and "num_layers" in given:
        problems.append(
            f"evaluate.num_layers: must be {ANTICIPATION_KEYS['num_layers']} with "
            f"evaluate.aggregator={evaluate.aggregator}, which has no layers"
        )
    unused = {
        "evaluate.probe": (evaluate.probe, "linear", "whose head is evaluate.aggregator"),
        "evaluate.standardize": (evaluate.standardize, True, "which always does"),
        "train_algo.normalize_feats": (config.train_algo.normalize_feats, False, "which has no such step"),
        "optim.schedule": (config.optim.schedule, [], "whose learning rate falls along a cosine"),
        "optim.args.momentum": (config.optim.args.momentum, PROBE_MOMENTUM, "which AdamW trains"),
    }
    problems += [
        f"{key}: must be {_shown(plain)} with evaluate.task=lta, {why}"
        for key, (value, plain, why) in unused.items()
        if value != plain
    ]
    return problems


def _shown(value: object) -> str:
    return json.dumps(value).strip('"')


def _of_state_changes(evaluate: Evaluate) -> list[str]:
    """Return which settings of state changes contradict others, or are given to another task."""
    problems = []
    if evaluate.task != "oscc_pnr":
        for name, plain in (("frames", "spread"), ("train_parts", 4)):
            if getattr(evaluate, name) != plain:
                problems.append(f"evaluate.{name}: must be {plain}; it is of evaluate.task=oscc_pnr")
        return problems
    if evaluate.random_clips:
        problems.append("evaluate.random_clips: must be false with evaluate.task=oscc_pnr; evaluate.train_parts draws")
    if evaluate.frames == "windows":
        if evaluate.probe not in ("linear", "attentive"):
            problems.append(
                f"evaluate.frames: must be spread with evaluate.probe={evaluate.probe}, which sees one clip"
            )
        if evaluate.protocol == "published":
            problems.append("evaluate.frames: must be spread with evaluate.protocol=published, which shows such frames")
    return problems


def _unused_by_moments(config: EvaluateConfig) -> list[str]:
    """Return which settings of probes and of annotated actions would change nothing in tasks that are about moments."""
    evaluate = config.evaluate
    if evaluate.task not in MOMENT_TASKS:
        if evaluate.max_moments == MAX_MOMENTS:
            return []
        return [f"evaluate.max_moments: must be {MAX_MOMENTS}; it is of evaluate.task={_either(MOMENT_TASKS)}"]
    of_task = f"evaluate.task={evaluate.task}"
    problems = [
        f"evaluate.{name}: must be {plain} with {of_task}, whose head has settings of its own"
        for name, plain, given in (
            ("probe", "linear", evaluate.probe != "linear"),
            ("lrs", "[]", bool(evaluate.lrs)),
            ("weight_decays", "[]", bool(evaluate.weight_decays)),
            ("standardize", "true", not evaluate.standardize),
        )
        if given
    ]
    if config.train_algo.normalize_feats:
        problems.append(f"train_algo.normalize_feats: must be false with {of_task}, which has no such step")
    if evaluate.audio:
        problems.append(f"evaluate.audio: must be false with {of_task}, which says itself what is looked at")
    if evaluate.random_clips:
        problems.append(f"evaluate.random_clips: must be false with {of_task}, whose clips lie around moments")
    if evaluate.submission is not None:
        problems.append(f"evaluate.submission: must be null; there is no challenge of {of_task}")
    if config.data.subset is not None:
        problems.append(f"data.subset: must be null with {of_task}; it is a part of the actions, not of the moments")
    return problems


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
