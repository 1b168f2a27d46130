"""A benchmark that is through in seconds; run as a program, it goes on with the one in the folder that is named.

The killed process is one of its own, so that what it leaves is what a killed command leaves.
"""

import sys
from pathlib import Path

from earmark.cli.bench import run_bench
from earmark.cli.bench_presets import BenchPreset
from earmark.kitchen import Difficulty, KitchenSize

TINY = BenchPreset(
    words="for tests",
    kitchen=KitchenSize(3, 3, 12, width=64, height=64, fps=8, sample_rate=16000),
    difficulty=Difficulty(),
    kitchen_seed=0,
    shared=(
        "prepare.fps=8",
        "prepare.short_side=32",
        "data.clip_fps=8",
        "data_augm.crop_size=24",
        "backbone/video=avid_r2plus1d_10",
        "backbone.video.args.width=2",
        "backbone.audio.args.width=2",
        "environment.accelerator=cpu",
    ),
    pretrain=("data_augm.min_short_side=24", "data_augm.max_short_side=32"),
    evaluate=("evaluate.num_clips=1", "optim.args.lr=0.1", "optim.epochs=2", "optim.schedule=[1]"),
    of_tasks={},
    num_steps=3,  # one more than a variant's warm-up has epochs
    batch_size=4,
    rates_tried=(0.01, 0.1),
    rates={"replai": 0.1, "supervised": 0.1},
    rates_found="in a test",
    tuning_seed=100,
    seeds=(0, 1),
    tasks=("action_recognition",),
)

if __name__ == "__main__":
    METHODS = ["random", "supervised", "replai"]
    LIST = "--list" in sys.argv
    sys.exit(run_bench(TINY, Path(sys.argv[1]), methods=METHODS, num_jobs=1, as_json=True, only_list=LIST))
