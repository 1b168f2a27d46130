"""`earmark evaluate` with the heads of `evaluate.probe`: what each is trained with, what contradicts, fine-tuning."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from earmark.cli.config import ConfigError, EvaluateConfig, PretrainConfig, checked, checked_sweep, compose
from earmark.cli.evaluate import result_folder
from earmark.cli.evaluation_page import how_chosen
from earmark.cli.head_options import anticipation_head_options, fine_tuning_options, probe_options
from earmark.cli.judged import Judged
from earmark.cli.main import main
from earmark.evaluation import FineTuningOptions, HeadOptions, score_submission
from earmark.evaluation.probing import ProbeAnswers
from earmark.kitchen import KitchenSize, make_kitchen
from tests.helpers.command_lines import SMALL_ENCODERS


def evaluating(*overrides: str) -> EvaluateConfig:
    return checked(EvaluateConfig, compose("default_lincls", overrides))


@pytest.mark.parametrize(
    ("probe", "lr", "weight_decay", "batch_size", "schedule"),
    [
        ("linear", 0.005, 1e-4, 128, [18, 24]),  # as published
        ("knn", 0.005, 1e-4, 128, [18, 24]),
        ("attentive", 0.001, 0.01, 128, []),  # V-JEPA's
        ("fine_tuned", 0.01, 1e-4, 32, []),  # the paper's on Ego4D
    ],
)
def test_each_head_has_a_rate_of_its_own_unless_one_is_given(
    probe: str, lr: float, weight_decay: float, batch_size: int, schedule: list[int]
) -> None:
    optim = evaluating(f"evaluate.probe={probe}").optim
    assert (optim.args.lr, optim.args.weight_decay) == (lr, weight_decay)
    assert (optim.batch_size, optim.schedule, optim.epochs) == (batch_size, schedule, 30)
    given = ["optim.args.lr=0.005", "optim.args.weight_decay=0.0001", "optim.batch_size=7", "optim.schedule=[]"]
    optim = evaluating(f"evaluate.probe={probe}", *given).optim
    assert (optim.args.lr, optim.args.weight_decay, optim.batch_size, optim.schedule) == (0.005, 1e-4, 7, [])


def test_long_term_anticipation_has_its_own_rate_whatever_the_probe_would_have() -> None:
    config = evaluating("evaluate.task=lta", "data=ego4d")
    library, ours = HeadOptions(), anticipation_head_options(config)
    assert ours == library
    given = ["evaluate.lrs=[0.001,0.01]", "evaluate.weight_decays=[0.1]", "optim.epochs=7", "optim.batch_size=5"]
    ours = anticipation_head_options(
        evaluating("evaluate.task=lta", "data=ego4d", "evaluate.aggregator=mean", "evaluate.held_out=0.5", *given)
    )
    assert (ours.lrs, ours.weight_decays, ours.epochs, ours.batch_size) == ((0.001, 0.01), (0.1,), 7, 5)
    assert (ours.aggregator, ours.held_out) == ("mean", 0.5)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["evaluate.aggregator=mean"], "evaluate.aggregator: must be transformer; it is of evaluate.task=lta, here"),
        (["evaluate.num_seen=3"], "evaluate.num_seen: must be null; it is of evaluate.task=lta, here"),
        (["evaluate.decoding=most_probable"], "evaluate.decoding: must be sampled; it is of evaluate.task=lta"),
        (["evaluate.task=lta", "evaluate.num_layers=0"], "evaluate.num_layers: must be at least 1"),
        (
            ["evaluate.task=lta", "evaluate.aggregator=mean", "evaluate.num_layers=2"],
            "evaluate.num_layers: must be 6 with evaluate.aggregator=mean",
        ),
        (["evaluate.task=lta", "evaluate.probe=attentive"], "evaluate.probe: must be linear with evaluate.task=lta"),
        (["evaluate.task=lta", "evaluate.standardize=false"], "evaluate.standardize: must be true with"),
        (["evaluate.task=lta", "optim.schedule=[5]"], "optim.schedule: must be [] with evaluate.task=lta"),
        (["evaluate.task=lta", "optim.args.momentum=0.5"], "optim.args.momentum: must be 0.9 with"),
        (["evaluate.task=lta", "train_algo.normalize_feats=true"], "train_algo.normalize_feats: must be false with"),
        (["evaluate.task=lta", "data=kitchen"], "evaluate.task: lta is annotated in Ego4D alone"),
    ],
)
def test_settings_that_anticipation_would_not_use_or_no_other_task_would_are_refused(
    overrides: list[str], expected: str
) -> None:
    data = [] if any(override.startswith("data=") for override in overrides) else ["data=ego4d"]
    with pytest.raises(ConfigError) as caught:
        evaluating(*data, *overrides)
    assert expected in str(caught.value)


def test_the_defaults_of_fine_tuning_are_those_of_the_library() -> None:
    ours, library = fine_tuning_options(evaluating("evaluate.probe=fine_tuned")), FineTuningOptions()
    for name in (
        "epochs",
        "lr",
        "backbone_lr_factor",
        "weight_decay",
        "optimizer",
        "momentum",
        "schedule",
        "batch_size",
    ):
        assert getattr(ours, name) == getattr(library, name)
    steps = fine_tuning_options(evaluating("evaluate.probe=fine_tuned", "optim.schedule=[3]", "optim.gamma=0.5"))
    assert (steps.schedule, steps.milestones, steps.gamma) == ("steps", (3,), 0.5)


def test_every_job_of_a_sweep_has_the_defaults_of_its_head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys, first = checked_sweep(EvaluateConfig, "default_lincls", ["evaluate.probe=attentive,linear"])
    assert (keys, first["optim"]["args"]["lr"]) == (("evaluate.probe",), 0.001)
    seen = {}

    def run(config: EvaluateConfig, values: dict[str, Any]) -> float:
        seen[config.evaluate.probe] = (config.optim.args.lr, values["optim"]["args"]["lr"], values["optim"]["schedule"])
        return 0.0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("earmark.cli.evaluate.run_evaluation", run)
    assert main(["evaluate", "-m", "evaluate.probe=attentive,fine_tuned,linear"]) == 0
    assert seen == {
        "attentive": (0.001, 0.001, []),
        "fine_tuned": (0.01, 0.01, []),
        "linear": (0.005, 0.005, [18, 24]),
    }


def test_null_is_of_the_choice_that_leaves_it_open_alone() -> None:
    with pytest.raises(ConfigError, match=r"optim\.args\.lr: expected a number, got None"):
        checked(PretrainConfig, compose("default_ssrl", ["optim.args.lr=null"]))
    with pytest.raises(ConfigError, match=r"optim\.epochs: expected an integer, got None"):
        evaluating("optim.epochs=null")
    with pytest.raises(ConfigError, match=r"evaluate\.probe: 'atentive' is not one of .* did you mean attentive"):
        evaluating("evaluate.probe=atentive")
    pretraining = checked(PretrainConfig, compose("default_ssrl", ["optim=sgd_lincls"]))
    assert (pretraining.optim.args.lr, pretraining.optim.schedule) == (0.005, [18, 24])


def test_what_is_filled_in_and_what_is_given_are_the_same_evaluation() -> None:
    encoder = torch.nn.Linear(2, 2)

    def folder(*overrides: str) -> str:
        values = compose("default_lincls", ["logging.name=a", *overrides])
        config = checked(EvaluateConfig, values)
        encoders: dict[Any, Any] = {"video": encoder}
        judged = Judged(encoders, {"video": config.backbone.video}, config.data, None, None, False, "", {})
        store: Any = SimpleNamespace(fingerprint="f")
        return result_folder(judged, store, config, values).name

    assert folder() == folder("optim.args.lr=0.005", "optim.schedule=[18,24]")
    attentive = "evaluate.probe=attentive"
    assert folder(attentive) == folder(attentive, "optim.args.lr=0.001") != folder(attentive, "optim.args.lr=0.005")


@pytest.mark.parametrize(
    ("overrides", "first", "second"),
    [
        (["evaluate.probe=fine_tuned", "evaluate.audio=true"], "evaluate.audio", "evaluate.probe=fine_tuned"),
        (
            ["evaluate.probe=fine_tuned", "evaluate.protocol=published"],
            "evaluate.protocol",
            "evaluate.probe=fine_tuned",
        ),
        (
            ["evaluate.probe=fine_tuned", "evaluate.random_clips=true"],
            "evaluate.random_clips",
            "evaluate.probe=fine_tu",
        ),
        (
            ["evaluate.probe=fine_tuned", "evaluate.standardize=false"],
            "evaluate.standardize",
            "evaluate.probe=fine_tun",
        ),
        (
            ["evaluate.probe=attentive", "evaluate.standardize=false"],
            "evaluate.standardize",
            "evaluate.probe=attentive",
        ),
        (
            ["evaluate.probe=fine_tuned", "train_algo.normalize_feats=true"],
            "train_algo.normalize_feats",
            "evaluate.probe=fine_tuned",
        ),
        (["evaluate.probe=attentive", "optim.schedule=[18,24]"], "optim.schedule", "evaluate.probe=attentive"),
        (["evaluate.probe=attentive", "optim.args.momentum=0.8"], "optim.args.momentum", "evaluate.probe=attentive"),
        (
            ["evaluate.probe=fine_tuned", "evaluate.task=anticipation"],
            "evaluate.probe: fine_tuned",
            "evaluate.task=act",
        ),
    ],
)
def test_what_a_head_has_no_use_for_is_refused_with_both_keys(overrides: list[str], first: str, second: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluating(*overrides)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(first)
    assert second in line


@pytest.mark.parametrize(("dim", "num_heads"), [(512, 8), (12, 6), (7, 7), (11, 1)])
def test_attention_heads_divide_the_features_and_fewer_are_told(
    dim: int, num_heads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders: Any = {"video": SimpleNamespace(output_dim=dim)}
    assert probe_options(evaluating("evaluate.probe=attentive"), encoders).num_heads == num_heads
    told = f"{num_heads} in place of 8 attention heads, the most that divide features of size {dim}"
    assert (told in " ".join(capsys.readouterr().err.split())) == (num_heads < 8)


def test_the_page_says_how_an_encoder_was_fine_tuned() -> None:
    options = {"fine_tuning": {"lr": 0.01, "lrs": (), "weight_decay": 1e-4, "weight_decays": (), "held_out": 0.2}}
    answers = [SimpleNamespace(seed=0, encoder=ProbeAnswers({}, {}))]
    judgement: Any = SimpleNamespace(answers=answers, result=SimpleNamespace(options=options))
    text = "fine-tuned encoder, as configured: lr 0.01, weight decay 0.0001; nothing was chosen by trying"
    assert how_chosen(judgement) == text


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_fine_tuned_beside_one_from_scratch_and_its_checkpoint_and_features_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"num_kitchens": 3, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(tmp_path / "kitchen", size=KitchenSize(video_seconds=15, **sizes), progress=False)
    data = [f"data.args.base_path={tmp_path / 'kitchen'}", "prepare.short_side=64", "prepare.workers=1"]
    data += ["environment.workers=0", "logging.name=a"]
    training = [*SMALL_ENCODERS, "optim.batch_size=2", "optim.epochs=1", "optim.use_lr_scheduler=false"]
    assert main(["pretrain", "data=epic_10s_audiopeak", *data, *training]) == 0
    (checkpoint,) = tmp_path.glob("earmark_data/outputs/a/checkpoints/checkpoint_*.pt")
    before = checkpoint.read_bytes()

    judging = ["evaluate", "data=epic_action_segments", *data, "data_augm.crop_size=32", "optim.epochs=1"]
    judging += ["evaluate.num_clips=2"]

    tuning = ["evaluate.probe=fine_tuned", "evaluate.seeds=2", "evaluate.submission=tuned.json"]
    assert main([*judging, *tuning]) == 0
    (written,) = tmp_path.glob("earmark_data/outputs/a_eval/*/results.json")
    tuned: dict[str, Any] = json.loads(written.read_text())
    printed = capsys.readouterr()
    assert "fine-tuned encoder" in " ".join(printed.out.split())
    bars = re.findall(r"fine-tuning: (encoder|random encoder), seed (\d), lr 0\.01, weight decay 0\.0001", printed.err)
    assert list(dict.fromkeys(bars)) == [
        ("encoder", "0"),
        ("encoder", "1"),
        ("random encoder", "0"),
        ("random encoder", "1"),
    ]
    assert not list(tmp_path.glob("earmark_data/features/*.npy"))  # there are no features of an encoder that changes
    assert checkpoint.read_bytes() == before
    options = tuned["options"]
    assert (options["fine_tuning"]["lr"], options["fine_tuning"]["batch_size"]) == (0.01, 32)
    assert (options["fine_tuning"]["epochs"], options["fine_tuning"]["schedule"]) == (1, "cosine")
    assert (options["train_clips_per_action"], options["test_clips_per_action"]) == (1, 2)
    assert [column["column"] for column in tuned["columns"]] == ["verb", "noun", "action"]
    for column in tuned["columns"]:
        assert column["top1"]["baseline"] is not None
        assert len(column["top1"]["per_seed"]) == len(column["top1"]["baseline_per_seed"]) == 2
    scored = score_submission("tuned.json", tmp_path / "kitchen").metrics
    for column in tuned["columns"]:  # the file holds the answers of the first seed
        assert scored[f"all_{column['column']}_accuracy_at_1"] == column["top1"]["per_seed"][0]
        for part, name in (("unseen participants", "unseen"), ("tail classes", "tail")):
            for of_part in (of for of in column["parts"] if of["name"] == part):
                assert scored[f"{name}_{column['column']}_accuracy_at_1"] == of_part["top1"]["per_seed"][0]
    page = (written.parent / "report.html").read_text()
    assert "fine-tuned encoder, as configured: lr 0.01, weight decay 0.0001" in page

    assert main([*judging, "evaluate.submission=probe.json"]) == 0
    assert list(tmp_path.glob("earmark_data/features/*.npy"))
    answers = [json.loads((tmp_path / f"{name}.json").read_text())["results"] for name in ("tuned", "probe")]
    assert answers[0].keys() == answers[1].keys()
    assert all(answers[0][name] != answers[1][name] for name in answers[0])
