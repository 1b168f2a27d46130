"""`earmark demo`: all of it in minutes, on generated videos.

Beside the path of a sample: it walks the whole path with the commands' own functions, on a scale that two processor
cores finish in a few minutes, and prints the commands that do the same.
"""

import argparse
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from earmark.atomic import require_writable
from earmark.cli.config import EvaluateConfig, PretrainConfig, checked, compose, path_value
from earmark.cli.terminal import DONE, num_cpus, say
from earmark.wording import counted

__all__ = ["SIZES", "DemoSize", "add_arguments", "run", "run_demo"]

RUN_NAME = "demo"


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much the demo does.

    Attributes:
        num_kitchens: Kitchens (participants).
        videos_per_kitchen: Videos of half a minute each.
        epochs: Epochs of pretraining.
    """

    num_kitchens: int
    videos_per_kitchen: int
    epochs: int


SIZES = {
    "tiny": DemoSize(num_kitchens=3, videos_per_kitchen=4, epochs=40),  # shows that all of it runs, and little more
    "standard": DemoSize(num_kitchens=12, videos_per_kitchen=12, epochs=60),
}

# Small pictures and narrow encoders: what a laptop learns from in two minutes.
COMMON = (
    "prepare.short_side=72",
    "data_augm.crop_size=64",
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=16",
)
PRETRAIN = (
    "backbone.audio.args.width=16",
    "data_augm.min_short_side=64",
    "data_augm.max_short_side=80",
    "optim.batch_size=16",
    "optim.args.lr=0.1",
    "optim.lr_scheduler_args.first_step=0",
)
EVALUATE = (
    "evaluate.num_clips=3",
    "optim.args.lr=0.1",  # a few hundred actions make few steps: the published 0.005 is for 67,000
    "logging.suffix=''",  # the page goes below the folder of the run
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    out = Path("earmark_data/demo")
    parser.add_argument(
        "--out", type=Path, default=out, metavar="DIR", help="folder for all that is made (default: %(default)s)"
    )
    parser.add_argument("--size", choices=tuple(SIZES), default="standard", help="how much (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo.

    Args:
        options: As parsed.

    Returns:
        The exit code.
    """
    require_writable(options.out)
    run_demo(options.out, size=options.size)
    return DONE


def run_demo(out: str | Path, *, size: str = "standard") -> Path:
    """Make a kitchen, prepare it, pretrain on it, judge the encoder beside a random one, write the page.

    A second call with the same folder goes on where an interrupted one was.

    Args:
        out: Folder for all that is made.
        size: A key of `SIZES`.

    Returns:
        The page.

    Raises:
        earmark.kitchen.KitchenError: If the folder holds a demo of another size, or something else.
    """
    from earmark.cli.evaluate import evaluate
    from earmark.cli.pretrain import run_pretraining
    from earmark.kitchen import PRESETS, make_kitchen

    out = Path(out)
    chosen = SIZES[size]
    kitchen = out / "kitchen"
    say(f"1 of 4: generating first-person videos in {kitchen}")
    made = make_kitchen(
        kitchen,
        preset="demo",
        size=replace(
            PRESETS["demo"].size,
            num_kitchens=chosen.num_kitchens,
            videos_per_kitchen=chosen.videos_per_kitchen,
        ),
        test_split=False,  # it would hold back a third of a small data set
        num_workers=num_cpus(),
    )
    say(f"  {counted(made.num_videos, 'video')}, {made.duration_seconds / 60:.0f} minutes, {made.num_events} actions")

    where = (
        "data=kitchen",
        f"data.args.base_path={path_value(kitchen)}",
        f"environment.data_dir={path_value(out)}",
        "environment.workers=0",
        f"logging.name={RUN_NAME}",
    )
    overrides = [*where, *COMMON, *PRETRAIN, f"optim.epochs={chosen.epochs}", f"logging.save_freq={chosen.epochs}"]
    say(f"2 of 4: preparing and pretraining, as this does:\n  earmark pretrain {shlex.join(overrides)}")
    values: dict[str, Any] = compose("default_ssrl", overrides)
    run_pretraining(checked(PretrainConfig, values), values)

    overrides = [*where, *COMMON, *EVALUATE]
    say(f"3 of 4: judging what was learned, as this does:\n  earmark evaluate {shlex.join(overrides)}")
    values = compose("default_lincls", overrides)
    page = evaluate(checked(EvaluateConfig, values), values).folder / "report.html"
    say(f"4 of 4: the page is {page}")
    return page
