"""`earmark evaluate`: which weights it judges, where its results go, and what it says of them."""

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from earmark.cli.build import build_encoder
from earmark.cli.config import EvaluateConfig, PretrainConfig, checked, compose
from earmark.cli.config_schema import Data, VideoEncoder
from earmark.cli.evaluate import result_folder
from earmark.cli.judged import Judged, judged_encoders, seen_videos
from earmark.cli.main import main
from earmark.clips.store import PreparedStore
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.training.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.command_lines import SMALL_ENCODERS, configured
from tests.helpers.made_store import add_video, finish_store


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kitchen of six short videos with small pictures."""
    out = tmp_path_factory.mktemp("evaluate") / "kitchen"
    sizes = {"num_kitchens": 3, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(out, size=KitchenSize(video_seconds=15, **sizes), progress=False)
    return out


@pytest.mark.usefixtures("one_thread")
def test_an_evaluation_judges_what_the_probe_of_the_run_judged_and_says_what_was_seen(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"]
    training = [*data, *SMALL_ENCODERS, "optim.batch_size=2", "optim.use_lr_scheduler=false", "optim.args.lr=0.1"]
    run = ["logging.name=a", "optim.epochs=2", "optim.ema_decay=0.5", "logging.evaluate_every=1"]
    assert main(["pretrain", *training, *run]) == 0
    outputs = tmp_path / "earmark_data/outputs"
    lines = [json.loads(line) for line in (outputs / "a/metrics.jsonl").read_text().splitlines()]
    probes = {line["epoch"]: line for line in lines if line["kind"] == "probe"}
    best = outputs / "a/checkpoints/best.pt"
    state = load_checkpoint(best)
    assert not set(state["videos"]["pretraining"]) & set(state["videos"]["probe"])

    judging = [*data, "data_augm.crop_size=32", "optim.args.lr=0.1", "evaluate.num_clips=1", "logging.name=a"]
    judging += [f"evaluate.checkpoint={best}"]

    def evaluated(*overrides: str) -> tuple[dict[str, Any], str]:
        capsys.readouterr()
        before = set(outputs.glob("a_eval/*/results.json"))
        assert main(["evaluate", *judging, *overrides]) == 0
        printed = capsys.readouterr()
        assert not re.search(r"\[\d{4}-\d\d-\d\d ", printed.err + printed.out)  # Hydra's own way to log
        assert printed.err.count("features: encoder, training actions") == printed.err.count("features: encoder, test")
        (new,) = set(outputs.glob("a_eval/*/results.json")) - before
        page = (new.parent / "report.html").read_text()
        results: dict[str, Any] = json.loads(new.read_text())
        assert all(html.escape(caution) in page for caution in results["cautions"])
        return results, " ".join(printed.out.split())

    first, table = evaluated()
    verb = next(column for column in first["columns"] if column["column"] == "verb")
    assert verb["top1"]["encoder"]["value"] == probes[state["position"]["epoch"]]["verb_top1"]
    assert (first["weights"], first["split"]) == ("ema", "validation")
    assert "average of the weights (ema)" in table
    num_videos = first["num_test_videos"]
    chosen = f"The checkpoint was chosen by a probe on {num_videos} of {num_videos} test video"
    assert any(caution.startswith(chosen) for caution in first["cautions"])
    assert not any("retraining saw" in caution for caution in first["cautions"])

    last, table = evaluated("evaluate.weights=model")
    assert last["weights"] == "model"
    assert "weights of the last step (model)" in table
    assert len(list(outputs.glob("a_eval/best-ema-validation-*/results.json"))) == 1
    assert len(list(outputs.glob("a_eval/best-model-validation-*/results.json"))) == 1

    trained_on, table = evaluated("evaluate.split=train", "evaluate.random_clips=true", "optim.epochs=2")
    assert trained_on["options"]["train_clips_per_action"] == 2  # one for each epoch
    assert trained_on["options"]["test_clips_per_action"] == 1
    num_videos = trained_on["num_test_videos"]
    seen = set(state["videos"]["pretraining"])
    assert f"Pretraining saw {len(seen)} of {num_videos} test videos" in " ".join(trained_on["cautions"])
    assert f"The probe was trained on {num_videos} of {num_videos}" in table

    judge_sound_too(evaluated, judging, capsys)

    assert main(["runs", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert sorted((e["split"], str(e["weights"])) for e in listed["evaluations"]) == [
        ("train", "ema"),
        ("validation", "None"),
        ("validation", "ema"),
        ("validation", "ema"),
        ("validation", "model"),
    ]


def judge_sound_too(
    evaluated: Callable[..., tuple[dict[str, Any], str]], judging: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Judge the audio encoder of the run behind its video encoder, and random ones."""
    heard, table = evaluated("evaluate.audio=true", "evaluate.seeds=2")
    assert heard["options"]["modalities"] == ["video", "audio"]
    assert set(heard["config"]["backbone"]) == {"video", "audio"}
    assert len(heard["columns"][0]["top1"]["per_seed"]) == 2
    assert "over seeds" in table
    assert main(["evaluate", *judging, "evaluate.audio=true", "data.audio_seconds=1"]) == 2
    assert "was trained with data.audio_seconds=2.0" in " ".join(capsys.readouterr().err.split())
    assert main(["evaluate", *judging, "backbone.audio.args.weights=mine.pth"]) == 2
    assert "the audio encoder is not judged; add evaluate.audio=true" in " ".join(capsys.readouterr().err.split())
    random, _ = evaluated("evaluate.checkpoint=none", "evaluate.audio=true", "backbone.audio.args.width=8")
    assert random["config"]["backbone"]["audio"]["args"]["width"] == 8


def test_weights_that_are_named_are_loaded_and_missing_ones_are_told_before_preparing(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``pretrained=true``, too."""
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "environment.workers=0"]
    for kind in ("video", "audio"):
        assert main(["pretrain", *data, *SMALL_ENCODERS, f"backbone.{kind}.args.weights=no.pt"]) == 2
        assert f"backbone.{kind}.args.weights: no weights for" in capsys.readouterr().err
    missing = ["evaluate.checkpoint=none", "backbone.video.args.weights=no.pt", "data_augm.crop_size=32"]
    assert main(["evaluate", *data, *missing]) == 2
    assert "backbone.video.args.weights: no weights for avid_r2plus1d_18 at no.pt" in capsys.readouterr().err
    assert not (tmp_path / "earmark_data/prepared").exists()
    assert main(["evaluate", *data, "backbone.video.args.weights=mine.pth", "data_augm.crop_size=32"]) == 2
    assert "mine.pth would not be used" in capsys.readouterr().err
    assert main(["evaluate", *data, "evaluate.checkpoint=none", "evaluate.weights=ema", "data_augm.crop_size=32"]) == 2
    assert "evaluate.weights: chooses among the weights of a checkpoint" in capsys.readouterr().err
    assert main(["pretrain", *data, *SMALL_ENCODERS, "criterion=simclr_video", "backbone.audio.args.weights=a.pt"]) == 2
    assert "backbone.audio.args.weights: a.pt would not be used" in capsys.readouterr().err

    small = configured(*SMALL_ENCODERS)
    trained = build_encoder(small.backbone.video, small.environment)
    torch.save({f"video_model.{key}": value for key, value in trained.state_dict().items()}, "mine.pth")
    named = configured(*SMALL_ENCODERS, "backbone.video.args.weights=mine.pth", "backbone.video.args.pretrained=false")
    loaded = build_encoder(named.backbone.video, named.environment)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in trained.state_dict().items())


@pytest.mark.parametrize("named", [True, False])
def test_a_checkpoint_is_read_once(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors, that is: how many steps are behind one is looked up without them."""
    values = compose("default_ssrl", SMALL_ENCODERS)
    config = checked(PretrainConfig, values)
    trained = build_encoder(config.backbone.video, config.environment)
    model = {f"backbone.video.{name}": value for name, value in trained.state_dict().items()}
    path = tmp_path / "earmark_data/outputs/a/checkpoints/checkpoint_0002.pt"
    save_checkpoint(path, {"config": values, "model": model, "position": {"epoch": 2, "step": 7}})

    reads = []
    load = torch.load

    def counting(*args: Any, **options: Any) -> Any:
        reads.append(options.get("mmap", False))
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", counting)
    overrides = ["logging.name=a", "data_augm.crop_size=32", *([f"evaluate.checkpoint={path}"] if named else [])]
    values = compose("default_lincls", overrides)
    judged = judged_encoders(checked(EvaluateConfig, values), values)
    assert reads.count(False) == 1
    assert judged.path is not None
    assert judged.path.samefile(path)
    assert all(
        torch.equal(judged.encoders["video"].state_dict()[name], value) for name, value in trained.state_dict().items()
    )


def judged_in(tmp_path: Path, data: dict[str, Any], stored: dict[str, Any]) -> "tuple[Judged, PreparedStore]":
    """Return an encoder with what its checkpoint holds, and a store of two training and two validation videos."""
    root = tmp_path / "store"
    rows = [add_video(root, f"v{number}", split=("train", "validation")[number // 2]) for number in range(4)]
    finish_store(root, rows, {})
    store = PreparedStore(root)
    here = compose("default_lincls", [f"{key}={value}" for key, value in data.items()])["data"]
    there = stored | {"position": {"epoch": 3, "best_epoch": 3, "best_score": 1.0} | stored.get("position", {})}
    config = checked(VideoEncoder, compose("default_lincls", [])["backbone"]["video"], section="backbone.video")
    encoder: Any = None
    checkpoint = tmp_path / "best.pt"
    return Judged(
        {"video": encoder},
        {"video": config},
        checked(Data, here, section="data"),
        checkpoint,
        "model",
        False,
        "best.pt",
        there,
    ), store


@pytest.mark.usefixtures("one_thread")
def test_every_probe_and_its_grid_are_reached_by_the_command(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"]
    random = ["evaluate.checkpoint=none", "backbone/video=avid_r2plus1d_10", "backbone.video.args.width=8"]
    judging = ["evaluate", *data, *random, "data_augm.crop_size=32", "evaluate.num_clips=1", "optim.epochs=2"]
    grid = ["evaluate.lrs=[0.001,0.1]", "evaluate.held_out=0.5"]
    titles = {
        "linear": "linear probe on frozen features",
        "attentive": "attentive probe on frozen feature maps",
        "knn": "nearest neighbours of frozen features",
        "fine_tuned": "fine-tuned encoder",
    }
    for probe, title in titles.items():
        before = set(tmp_path.glob("earmark_data/outputs/*/*/results.json"))
        choice = ["evaluate.neighbours=[1,3]", grid[1]] if probe == "knn" else grid
        assert main([*judging, f"evaluate.probe={probe}", *choice]) == 0
        assert title in " ".join(capsys.readouterr().out.split())
        (new,) = set(tmp_path.glob("earmark_data/outputs/*/*/results.json")) - before
        results = json.loads(new.read_text())
        (chosen,) = results["columns"][0]["chosen"]
        assert chosen["neighbours"] in (1, 3) if probe == "knn" else chosen["lr"] in (0.001, 0.1)
        assert 0 <= chosen["held_out_accuracy"] <= 100
        assert chosen["held_out_actions"] > 0


def test_a_folder_of_results_keeps_its_name_where_nothing_was_changed() -> None:
    """Keys that came later change it only where they ask for something else."""
    encoder = torch.nn.Linear(2, 2)
    for parameter in encoder.parameters():
        torch.nn.init.zeros_(parameter)

    def name(*overrides: str) -> str:
        values = compose("default_lincls", ["logging.name=a", *overrides])
        config = checked(EvaluateConfig, values)
        encoders: dict[Any, Any] = {"video": encoder}
        judged = Judged(encoders, {"video": config.backbone.video}, config.data, None, None, False, "", {})
        store: Any = SimpleNamespace(fingerprint="f")
        return result_folder(judged, store, config, values).name

    assert name() == "random-validation-a2cbbc6c"  # as version 1 of evaluate named it
    assert len({name(), name("evaluate.seeds=2"), name("evaluate.num_clips=2"), name("environment.seed=1")}) == 4


KITCHEN = {"data": "kitchen", "data.args.seed": 3}
EPIC = {"data": "epic_action_segments"}
FOLDER = {"data": "folder", "data.args.base_path": "/videos"}


@pytest.mark.parametrize(
    ("there", "here", "pretraining", "probe"),
    [
        (KITCHEN, KITCHEN, ["v0"], ["v2", "v3"]),
        (KITCHEN, {"data": "kitchen", "data.args.seed": 4}, [], []),  # ids are alike, kitchens are not
        (KITCHEN, EPIC, [], []),
        (EPIC, EPIC, ["v0"], ["v2", "v3"]),
        (FOLDER, FOLDER, ["v0"], ["v2", "v3"]),
        (FOLDER, FOLDER | {"data.args.base_path": "/elsewhere"}, None, None),
        (FOLDER, EPIC, None, None),
    ],
)
def test_videos_are_the_same_where_their_data_set_is(
    tmp_path: Path, there: dict[str, Any], here: dict[str, Any], pretraining: Any, probe: Any
) -> None:
    data = compose("default_lincls", [f"{key}={value}" for key, value in there.items()])["data"]
    stored = {"config": {"data": data}, "fingerprint": "x", "videos": {"pretraining": ["v0"], "probe": ["v2", "v3"]}}
    judged, store = judged_in(tmp_path, here, stored)
    seen = seen_videos(judged, store, configured().environment)
    expected = {"pretraining saw": pretraining, "the checkpoint was chosen by a probe on": probe}
    assert {by: None if ids is None else sorted(ids) for by, ids in seen.items()} == expected
    other, _ = judged_in(tmp_path, here, stored | {"position": {"best_epoch": 2}})
    assert list(seen_videos(other, store, configured().environment)) == ["pretraining saw"]


@pytest.mark.parametrize(
    ("pretraining", "stored", "seen"),
    [
        (["clip_of_v0"], ["v0", "v1"], ["clip_of_v0", "v0"]),  # trained on a clip, judged on whole videos
        (["v0"], ["clip_of_v0", "clip_of_v1"], ["clip_of_v0", "v0"]),  # and the other way round
    ],
)
def test_footage_of_ego4d_is_the_same_in_a_clip_and_in_the_whole_video(
    tmp_path: Path, pretraining: list[str], stored: list[str], seen: list[str]
) -> None:
    root = tmp_path / "other"
    finish_store(root, [add_video(root, name, split="validation") for name in stored], {})
    data = compose("default_lincls", ["data=ego4d"])["data"]
    state = {"config": {"data": data}, "fingerprint": "x", "videos": {"pretraining": pretraining, "probe": []}}
    judged, _ = judged_in(tmp_path, {"data": "ego4d"}, state)
    environment = configured().environment
    found = seen_videos(judged, PreparedStore(root), environment, parent=lambda name: name.removeprefix("clip_of_"))
    assert sorted(found["pretraining saw"] or ()) == seen


def test_checkpoints_without_ids_say_by_their_settings_what_they_saw(tmp_path: Path) -> None:
    data = compose("default_lincls", ["data=kitchen"])["data"]
    judged, store = judged_in(tmp_path, KITCHEN, {"config": {"data": data | {"split": "all"}}})
    judged.stored["fingerprint"] = store.fingerprint  # type: ignore[index]
    seen = seen_videos(judged, store, configured().environment)
    assert {by: sorted(ids or ()) for by, ids in seen.items()} == {
        "pretraining saw": ["v0", "v1", "v2", "v3"],
        "the checkpoint was chosen by a probe on": ["v2", "v3"],
    }
    judged.stored["fingerprint"] = "another"  # type: ignore[index]
    judged.stored["config"]["data"] = KITCHEN  # not even a configuration
    assert set(seen_videos(judged, store, configured().environment).values()) == {None}


@pytest.mark.gpu
def test_on_a_gpu_an_evaluation_sees_the_features_that_the_cpu_does(kitchen: Path, tmp_path: Path) -> None:
    """Pretraining and evaluation by their commands; the same files of features on both devices, to what TF32 leaves."""
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=2"]
    training = [*data, *SMALL_ENCODERS, "optim.batch_size=2", "optim.use_lr_scheduler=false", "optim.epochs=2"]
    assert main(["pretrain", *training, "environment.accelerator=cuda", "logging.name=a"]) == 0
    (state,) = (load_checkpoint(path) for path in tmp_path.glob("earmark_data/outputs/a/checkpoints/checkpoint_*.pt"))
    assert state["position"]["epoch"] == 2

    def features_on(accelerator: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        judging = [*data, "data_augm.crop_size=32", "evaluate.num_clips=1", "logging.name=a"]
        assert main(["evaluate", *judging, f"environment.accelerator={accelerator}"]) == 0
        (results,) = tmp_path.glob("earmark_data/outputs/a_eval/*/results.json")
        written = json.loads(results.read_text())
        shutil.rmtree(results.parent)
        cache = tmp_path / "earmark_data/features"
        found = {path.name: np.load(path) for path in cache.glob("*.npy")}
        shutil.rmtree(cache)  # it is shared by devices
        return found, written

    on_gpu, gpu_results = features_on("cuda")
    on_cpu, cpu_results = features_on("cpu")
    assert on_gpu.keys() == on_cpu.keys()
    assert len(on_gpu) == 4  # of two encoders, training and test actions
    for name, expected in on_cpu.items():
        np.testing.assert_allclose(on_gpu[name], expected, rtol=2e-2, atol=2e-2 * np.abs(expected).max())
    counts = [[column["num_test_actions"] for column in r["columns"]] for r in (gpu_results, cpu_results)]
    assert counts[0] == counts[1]
