"""What cannot train is refused by its key, before anything is generated or prepared."""

from pathlib import Path
from typing import Any

import pytest

from earmark.cli import checks as cli_checks
from earmark.cli.config import ConfigError
from earmark.cli.main import main
from tests.helpers.command_lines import SMALL_ENCODERS, configured

pytest.importorskip("torch")  # a run is checked by what trains it

RUN = [*SMALL_ENCODERS, "environment.accelerator=cpu", "environment.workers=0"]
FOLDER = ["data=folder", "data.args.base_path=videos"]
SPARSE = "prepare.around=moments"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["data.videos_per_batch=5", "optim.batch_size=4"], "data.videos_per_batch: a batch of 4 cannot be made of 5"),
        (["optim.accumulate=3", "optim.batch_size=4"], "optim.accumulate: a batch of 4 of one process cannot be cut"),
        (
            ["environment.force_processes=2", "optim.batch_size=4", "optim.accumulate=4"],
            "optim.accumulate: a batch of 2 of one process cannot be cut into 4",
        ),
        (
            ["environment.force_processes=3", "optim.batch_size=4"],
            "optim.batch_size: 4 cannot be shared out equally among the 3 processes of a node",
        ),
        (
            ["environment.force_processes=2", "optim.batch_size=2", "data_augm.audio_mix=0.5"],
            "data_augm.audio_mix: mixes samples of one process with one another, of which optim.batch_size=2 leaves",
        ),
        (["environment.precision=bf16-mixed"], "environment.precision: bf16-mixed is for GPUs, and this run is on"),
        (["environment.precision=16-mixed"], "environment.precision: 16-mixed is for GPUs, and this run is on"),
        (["criterion=supervised", *FOLDER, "data.split=train"], "criterion: supervised needs annotated actions"),
        (["logging.evaluate_every=1", *FOLDER], "logging.evaluate_every: folder has no annotated actions"),
        (["logging.evaluate_every=1", SPARSE], "logging.evaluate_every needs the whole videos"),
        (["data.moments=random", SPARSE], "data.moments=random needs the whole videos"),
        ([SPARSE, "prepare.around_seconds=0.9"], "prepare.around_seconds: 0.9 s keep less around a moment than is"),
        (
            [SPARSE, "data.audio_seconds=1", "data.args.gaps=[0.1,1.0]"],
            "data.clip_seconds=0.5 and data.args.gaps=1 reach 1.5 s",
        ),
        (
            ["criterion.args.learnable_temperature=true", "criterion.args.temperature=0.001"],
            "criterion.args.temperature: learned temperatures begin at 0.01 or above, got 0.001",
        ),
        (["criterion=astc", "criterion.args.queue_size=8"], "criterion.args.queue_size: holds negatives of the corr"),
        (["criterion=avc", "criterion.args.normalise_states=true"], "criterion.args.normalise_states: belongs to the"),
        (
            ["criterion=avc", "criterion.args.state_change_negatives=batch"],
            "criterion.args.state_change_negatives: belongs to the state change loss",
        ),
        (["criterion=astc", "criterion.args.gather=reference"], "criterion.args.gather: no loss with a weight above 0"),
        (["criterion=avc", "criterion.args.clr_coeff=0"], "criterion.args.clr_coeff: is 0, and aot_coeff too"),
        (
            ["criterion=avc", "criterion.args.clr_coeff=0", "criterion.args.clip_pair_coeff=1"],
            "nothing is left to learn from sound; criterion=simclr_video learns without sound",
        ),
        (
            ["criterion=avc", "criterion.args.clip_pair_temperature=0.2"],
            "criterion.args.clip_pair_temperature: belongs to the loss of clip pairs; clip_pair_coeff is 0",
        ),
        (
            ["criterion=avc", "criterion.args.sound_units=[8]"],
            "criterion.args.sound_units: belongs to the loss of sound units; sound_unit_coeff is 0",
        ),
        (
            ["criterion.args.sound_unit_coeff=0.5", "criterion.args.sound_units=[]"],
            "criterion.args.sound_units: needs at least one number; sound_unit_coeff is above 0",
        ),
        (
            ["criterion=astc", "criterion.args.moment_detection_coeff=0.5"],
            "criterion.args.moment_detection_coeff: tells moments from quiet times, of which data.quiet_share is 0",
        ),
        (
            ["data.quiet_share=0.2", "criterion.args.queue_size=8"],
            "criterion.args.queue_size: would hold quiet times; data.quiet_share is above 0",
        ),
        (
            ["data.quiet_share=0.2", "data.moments=random"],
            "data.quiet_share: needs data.moments=audible, here it is random",
        ),
        (
            ["criterion=simclr_video", "data.quiet_share=0.2"],
            "data.quiet_share: criterion=simclr_video does not tell quiet times from moments",
        ),
        (["environment.force=true", "environment.resume=false"], "environment.force: resumes a run, which"),
        (["optim.lr_scheduler_args.total_steps=1", "optim.epochs=2"], "total_steps: 1 is too few for 2 epochs"),
    ],
)
def test_what_cannot_train_is_refused_by_its_key_before_anything_is_made(
    overrides: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", *RUN, *overrides]) == 2
    assert reason in capsys.readouterr().err
    made = {path.name for path in Path("earmark_data").glob("*")}
    assert made <= {"outputs"}  # the run folder, which Hydra makes; neither a kitchen nor a store


@pytest.mark.parametrize("overrides", [["optim.accumulate=4"], ["optim.accumulate=2", "environment.force_processes=2"]])
def test_what_fits_is_not_refused(overrides: list[str]) -> None:
    from earmark.cli.launch import processes_of

    config = configured("optim.batch_size=4", "environment.accelerator=cpu", *overrides)
    assert cli_checks.startup_problems(config, processes_of(config.environment)) == []


def test_packages_that_are_missing_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from earmark.training.launch import Launch

    config = configured("criterion=xdc", "criterion.args.kmeans=faiss", "logging.wandb=project")
    found: dict[str, Any] = {"wandb": object(), "faiss": object()}
    monkeypatch.setattr(cli_checks, "find_spec", found.get)
    assert cli_checks.startup_problems(config, Launch("cpu")) == []
    found.clear()
    assert cli_checks.startup_problems(config, Launch("cpu")) == [
        "logging.wandb: wandb is not installed: pip install 'earmark[wandb]'",
        "criterion.args.kmeans: faiss is not installed: pip install 'earmark[faiss]'",
    ]


def test_a_run_that_is_there_and_may_not_go_on_is_refused_before_anything_is_prepared() -> None:
    from earmark.cli.pretrain import require_can_start
    from earmark.training.launch import Launch

    config = configured("environment.resume=false", "logging.name=there")
    require_can_start(config, Launch("cpu"))
    checkpoints = Path("earmark_data/outputs/there/checkpoints")
    checkpoints.mkdir(parents=True)
    (checkpoints / "checkpoint_0001.pt").touch()
    with pytest.raises(ConfigError, match=r"environment\.resume: is false, and .*there holds a run"):
        require_can_start(config, Launch("cpu"))
