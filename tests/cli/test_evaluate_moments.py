"""`earmark evaluate` of tasks that are about moments: numbers, own heads, page; what each method has to show."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from earmark.cli.main import main
from earmark.cli.own_heads import own_heads, trained_heads
from earmark.encoders import R2Plus1D, SpecCNN9
from earmark.evaluation import ProjectionHeads
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.methods import AudioVisualModel
from earmark.training.checkpoint import CheckpointError
from tests.helpers.command_lines import SMALL_ENCODERS

REPLAI = "ssrl_audiopeak_aotv2"  # as the configuration calls it

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, and videos that are prepared once."""
    folder = tmp_path_factory.mktemp("evaluate-moments")
    sizes = {"num_kitchens": 3, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(folder / "kitchen", size=KitchenSize(video_seconds=15, **sizes), progress=False)
    pretrained(folder, REPLAI)
    return folder


def pretrained(data_dir: Path, criterion: str) -> None:
    """Make a run of one step, of the name of its criterion."""
    options = [f"criterion={criterion}", f"logging.name={criterion}", "optim.epochs=1", "optim.batch_size=8"]
    assert main(["pretrain", *where(data_dir), *SMALL_ENCODERS, *options, "optim.max_steps=1"]) == 0


def where(data_dir: Path) -> list[str]:
    return [
        *("data=kitchen", f"data.args.base_path={data_dir}/kitchen", f"environment.data_dir={data_dir}"),
        *("prepare.short_side=64", "prepare.workers=1", "environment.workers=0"),
    ]


def evaluated(data_dir: Path, task: str, name: str, *overrides: str) -> tuple[dict[str, Any], str]:
    before = set(data_dir.glob("outputs/*/*/results.json"))
    options = ["data_augm.crop_size=32", f"evaluate.task={task}", f"logging.name={name}", "evaluate.held_out=0.4"]
    assert main(["evaluate", *where(data_dir), *options, *overrides]) == 0
    (new,) = set(data_dir.glob("outputs/*/*/results.json")) - before
    results: dict[str, Any] = json.loads(new.read_text())
    return results, (new.parent / "report.html").read_text()


def test_retrieval_both_ways_by_the_map_and_by_the_heads(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = evaluated(data_dir, "retrieval", REPLAI, "evaluate.max_moments=4")
    names = [column["column"] for column in results["columns"]]
    assert names == [f"{way}{by}" for by in ("", ", own heads") for way in ("sound to clip", "clip to sound")]
    for column in results["columns"]:
        assert column["gallery_size"] == 4
        assert column["recall_at_1"]["chance"] == pytest.approx(25)
        assert 0 <= column["recall_at_1"]["encoder"]["value"] <= column["recall_at_5"]["encoder"]["value"] <= 100
        assert 1 <= column["median_rank"]["encoder"]["value"] <= 4
    assert results["columns"][0]["recall_at_1"]["baseline"] is not None
    assert results["columns"][2]["recall_at_1"]["baseline"] is None
    printed = " ".join(capsys.readouterr().out.split())
    assert "Retrieval between sound and clip" in printed
    assert "None" not in printed
    assert "sound to clip, median rank" in page
    assert "canonical correlation probe, chosen on 40 % of the training videos" in page
    assert "held-out moments" in page


def test_order_of_both_clips_with_what_was_learned_on_the_page(data_dir: Path) -> None:
    gap = "data.args.delta_non_overlap=0.2"
    results, page = evaluated(data_dir, "order", REPLAI, "evaluate.max_moments=20", gap)
    names = [column["column"] for column in results["columns"]]
    neighbours = ["neighbours by change", "neighbours by appearance", "verb, not its opposite"]
    assert names == ["order", "order, own objective", *neighbours]
    for figure in ("neighbours.jpg", "map.png", "evidence.jpg"):
        assert len(list(data_dir.glob(f"outputs/*/*/{figure}"))) == 1
    assert results["options"]["gap_seconds"] == 0.2
    assert results["columns"][0]["accuracy"]["chance"] == 50
    for heading in (
        "Does open find open, not close?",
        "Nearest moments",
        "Map of the moments",
        "Where the evidence lies",
    ):
        assert heading in page
    assert "antisymmetric linear probe" in page


@pytest.mark.slow
def test_a_method_without_sound_is_judged_with_a_random_audio_encoder(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrained(data_dir, "simclr_video")
    results, _ = evaluated(data_dir, "retrieval", "simclr_video", "backbone.audio.args.width=4")
    assert [column["column"] for column in results["columns"]] == ["sound to clip", "clip to sound"]
    assert "holds no audio encoder, as its method does not use sound" in " ".join(capsys.readouterr().err.split())
    order, _ = evaluated(data_dir, "order", "simclr_video", "evaluate.baseline=false")
    assert [column["column"] for column in order["columns"]][1] == "neighbours by change"


def test_heads_that_do_not_fit_are_named() -> None:
    model = AudioVisualModel(R2Plus1D(10, width=4), SpecCNN9(width=4))
    encoders = {"video": model.backbone["video"], "audio": model.backbone["audio"]}
    args = {"clr_coeff": 0.5, "aot_coeff": 0.5, "normalise_states": True}
    stored = {"criterion": {"name": REPLAI, "args": args}}
    weights = model.state_dict()

    def heads(changed: dict[str, Any]) -> ProjectionHeads | None:
        state = {"ema": {f"module.{name}": value for name, value in {**weights, **changed}.items()}}
        return own_heads(Path("a.pt"), state, stored, weights="ema", encoders=encoders)

    whole = heads({})
    assert whole is not None
    assert (whole.has_correspondence, whole.has_state_change, whole.normalize_states) == (True, True, True)
    assert torch.equal(whole.clip[0].weight, model.mlp["video_clr"][0].weight)
    for changed, words in (
        ({"mlp.video_aot.0.bias": None}, "video_aot: no projection head"),
        ({f"mlp.audio_clr.{layer}.{of}": None for layer in (0, 2) for of in ("weight", "bias")}, "audio_clr is not"),
        ({"mlp.aot_diff.2.bias": torch.full((128,), torch.nan)}, "aot_diff are not finite"),
        ({"mlp.video_clr.2.weight": torch.zeros(128, 7)}, "video_clr: no projection head"),
        ({"mlp.video_aot.0.weight": torch.zeros(512, 7)}, "video_aot takes 7 features, its video encoder gives 32"),
    ):
        with pytest.raises(CheckpointError, match=f"a.pt: .*{words}"):
            heads(changed)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ({"name": REPLAI, "args": {"clr_coeff": 0.0, "aot_coeff": 1.0}}, {"state", "change", "change_sound"}),
        ({"name": REPLAI, "args": {"clr_coeff": 1, "aot_coeff": 0}}, {"clip", "sound"}),
        ({"name": "avid", "args": {}}, {"clip", "sound"}),
        ({"name": "supervised", "args": {"clr_coeff": 1}}, set()),
        ("damaged", set()),
        ({"name": REPLAI, "args": {"clr_coeff": "1"}}, set()),
    ],
)
def test_only_heads_that_were_trained_are_asked(criterion: Any, expected: set[str]) -> None:
    assert set(trained_heads({"criterion": criterion})) == expected


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluate.submission=a.zip", "evaluate.submission: must be null; there is no challenge of"),
        ("evaluate.probe=attentive", "evaluate.probe: must be linear with"),
        ("evaluate.lrs=[0.1,1]", "evaluate.lrs: must be [] with"),
        ("evaluate.audio=true", "evaluate.audio: must be false with"),
        ("evaluate.random_clips=true", "evaluate.random_clips: must be false with"),
        ("data=epic_action_segments_tailclasses", "data.subset: must be null with"),
    ],
)
def test_what_would_change_nothing_is_refused(
    override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["evaluate.task=order", "evaluate.checkpoint=none", f"environment.data_dir={tmp_path}", override]
    assert main(["evaluate", *options]) == 2
    assert f"{words} evaluate.task=order" in " ".join(capsys.readouterr().err.split())


def test_the_number_of_moments_is_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["evaluate.checkpoint=none", f"environment.data_dir={tmp_path}", "evaluate.max_moments=7"]
    assert main(["evaluate", *options]) == 2
    assert "evaluate.max_moments: must be 1000; it is of evaluate.task=retrieval or order" in capsys.readouterr().err
