"""That something is learned: an encoder pretrained on the demo's videos beats the same encoder with random weights."""

from dataclasses import replace
from pathlib import Path

import pytest

from earmark.cli.config import EvaluateConfig, PretrainConfig, checked, compose
from earmark.cli.demo import SIZES
from earmark.cli.evaluate import evaluate
from earmark.cli.pretrain import run_pretraining
from earmark.kitchen import PRESETS, make_kitchen

# The demo with half the width, smaller crops and half the epochs: a quarter of its work.
COMMON = (
    "data=kitchen",
    "environment.workers=0",
    "environment.accelerator=cpu",
    "logging.name=learned",
    "prepare.short_side=72",
    "data_augm.crop_size=48",
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=8",
)
PRETRAIN = (
    "backbone.audio.args.width=8",
    "data_augm.min_short_side=48",
    "data_augm.max_short_side=60",
    "optim.batch_size=16",
    "optim.args.lr=0.1",
    "optim.lr_scheduler_args.first_step=0",
    "optim.epochs=30",
    "logging.save_freq=30",
)
EVALUATE = ("evaluate.num_clips=3", "optim.args.lr=0.1")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # so that the same machine gives the same weights
def test_an_encoder_pretrained_on_the_demo_beats_a_random_one(tmp_path: Path) -> None:
    """Measured: +9.1 points on verbs (95 % interval +3.0 to +15.1), +10.4 on nouns (+4.6 to +16.0).

    Other machines round sums differently, and 570 steps make other weights of that: hence half of it here.
    """
    many = SIZES["standard"]
    size = replace(PRESETS["demo"].size, num_kitchens=many.num_kitchens, videos_per_kitchen=many.videos_per_kitchen)
    kitchen = make_kitchen(
        tmp_path / "kitchen",
        preset="demo",
        size=size,
        test_split=False,
        num_workers=2,
        progress=False,
    )
    where = (f"data.args.base_path={kitchen.path}", f"environment.data_dir={tmp_path}", *COMMON)
    values = compose("default_ssrl", [*where, *PRETRAIN])
    run_pretraining(checked(PretrainConfig, values), values)
    values = compose("default_lincls", [*where, *EVALUATE])
    result = evaluate(checked(EvaluateConfig, values), values).result

    assert result is not None
    assert [column.column for column in result.columns] == ["verb", "noun", "action"]
    gains = {}
    for column in result.columns:
        if column.column not in ("verb", "noun"):
            continue
        assert column.top1.gain is not None
        assert column.top1.encoder.value > column.top1.majority.value
        gains[column.column] = column.top1.gain.value
    assert gains.keys() == {"verb", "noun"}
    assert min(gains.values()) > 2
    assert sum(gains.values()) > 9
