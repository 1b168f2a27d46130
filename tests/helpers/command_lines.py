"""Command lines that several tests give to the commands."""

from earmark.cli.config import (
    PretrainConfig,
    checked,
    compose,
)

PUBLISHED_PRETRAINING = """
    logging.name=epic_git1 data=epic_10s_audiopeak backbone/video=avid_r2plus1d_18 backbone/audio=avid_spec_cnn_9
    optim.batch_size=128 environment.slurm=False environment.world_size=1 environment.multiprocessing_distributed=True
    environment.distributed=True environment.ngpu=4 environment.workers=32 environment.data_dir=DIR logging.save_freq=10
    optim.epochs=100 optim.args.lr=0.005 criterion.args.clr_coeff=0.5 criterion.args.aot_coeff=0.5
    data.args.base_path=EPIC data.args.delta_non_overlap=0.1 optim.use_lr_scheduler=True
    optim.lr_scheduler_args.max_lr=0.005 optim.lr_scheduler_args.total_steps=100 backbone.video.args.pretrained=True
    backbone.audio.args.pretrained=True
"""


PUBLISHED_PROBE = """
    logging.name=epic_git1 data=epic_action_segments backbone/video=avid_r2plus1d_18 environment.slurm=False
    environment.world_size=1 environment.multiprocessing_distributed=True environment.distributed=True
    environment.ngpu=4 environment.workers=8 environment.data_dir=DIR logging.save_freq=10 optim=sgd_lincls
    optim.epochs=30 optim.schedule=[18,24] optim.batch_size=128 optim.args.lr=0.005 environment.resume=False
    logging.suffix=_eval train_algo.normalize_feats=False
"""


SMALL_ENCODERS = [
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=4",
    "backbone.audio.args.width=4",
    "data_augm.crop_size=32",
    "data_augm.min_short_side=32",
    "data_augm.max_short_side=40",
]


def configured(*overrides: str) -> PretrainConfig:
    return checked(PretrainConfig, compose("default_ssrl", overrides))
