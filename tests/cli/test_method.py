"""Every `criterion=` through the command: it trains, its checkpoint goes on, and its encoder can be read."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import pytest

from earmark import methods
from earmark.cli.build import open_store
from earmark.cli.config import ConfigError, EvaluateConfig, PretrainConfig, checked, compose
from earmark.cli.config_schema import Criterion
from earmark.cli.main import main
from earmark.cli.method import build_clips, build_encoders, build_model, method_name
from earmark.clips.store import PreparedStore
from earmark.datasets import Kitchen
from earmark.encoders import R2Plus1D, load_encoder, new_encoder, save_encoder
from earmark.encoders.weights import load_encoder_weights
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.kitchen.training_part import write_training_share
from earmark.methods import (
    ClipPairOptions,
    ContrastiveOptions,
    MomentDetectionOptions,
    SoundUnitOptions,
    StateChangeOptions,
)
from earmark.training.checkpoint import latest_checkpoint, load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    "backbone/video=avid_r2plus1d_10",
    "backbone.video.args.width=4",
    "backbone.audio.args.width=4",
    "data_augm.crop_size=32",
    "data_augm.min_short_side=32",
    "data_augm.max_short_side=40",
]
RUN = ["prepare.short_side=64", "prepare.workers=1", "environment.workers=0", "environment.accelerator=cpu"]
METHODS = {
    "ssrl_audiopeak_aotv2": ["criterion.args.queue_size=8", "data.args.gaps=[0.1,0.5]"],
    "avc": [],
    "astc": [
        *("criterion.args.state_change_negatives=batch", "criterion.args.sound_unit_coeff=0.5"),
        *("criterion.args.sound_units=[2]", "data.moments_per_segment=3"),  # 10 samples make the units
        *("data.quiet_share=0.3", "criterion.args.moment_detection_coeff=0.5"),
    ],
    "replai_random": [],
    "earmark": ["criterion.args.sound_units=[2]", "data.moments_per_segment=3"],
    "avid": ["criterion.args.num_negatives=5"],
    "xdc": ["criterion.args.num_clusters=3"],
    "simclr_video": [],
    "supervised": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a kitchen of four short videos, where all runs share one store."""
    folder = tmp_path_factory.mktemp("methods")
    sizes = {"num_kitchens": 2, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(folder / "kitchen", size=KitchenSize(video_seconds=30, **sizes), progress=False)
    return folder


def pretrain(folder: Path, criterion: str, *overrides: str) -> int:
    where = [f"data.args.base_path={folder / 'kitchen'}", f"environment.data_dir={folder / 'data'}"]
    training = ["optim.batch_size=2", "optim.epochs=2", "optim.use_lr_scheduler=false", "logging.print_freq=1"]
    own = [f"criterion={criterion}", f"logging.name={criterion}", *METHODS[criterion]]
    return main(["pretrain", *where, *RUN, *SMALL, *training, *own, *overrides])


@pytest.mark.parametrize("criterion", list(METHODS))
def test_a_method_trains_goes_on_and_leaves_an_encoder_that_can_be_read(folder: Path, criterion: str) -> None:
    run = folder / "data/outputs" / criterion
    assert pretrain(folder, criterion, "optim.max_steps=1") == 0
    assert pretrain(folder, criterion) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2]
    assert all(line["loss"] > 0 for line in lines if line["kind"] in ("step", "epoch"))
    path = latest_checkpoint(run / "checkpoints")
    assert path is not None
    load_encoder_weights(R2Plus1D(10, width=4), path, kind="video")
    config = load_checkpoint(path)["config"]
    assert config["data"]["moments"] == ("random" if criterion == "replai_random" else "audible")
    assert ("backbone.audio.conv1.0.weight" in load_checkpoint(path)["model"]) == (
        criterion not in ("simclr_video", "supervised")
    )


def test_batches_of_more_videos_than_there_are_moments_in_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(folder, "avc", "optim.batch_size=8", "data.videos_per_batch=8", "logging.name=refused_videos") != 0
    assert re.search(
        r"data\.videos_per_batch: 8, but there are moments in [1-4] videos only; ask for fewer", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("criterion", "override", "reason"),
    [
        ("xdc", "criterion.args.num_clusters=5000", "criterion.args: need from 2 clusters to as many as the"),
        ("xdc", "criterion.args.kmeans=sklearn", "criterion.args.kmeans: 'sklearn' is not one of torch, faiss"),
        ("avid", "criterion.args.momentum=1.0", "criterion.args.momentum: must be at least 0 and below 1"),
        ("avid", "criterion.args.aot_coeff=1.0", "criterion.args.aot_coeff: no such key"),
        ("supervised", "data.split=all", "data.split: criterion=supervised needs one split"),
        ("simclr_video", "data_augm.shared_crop=true", "data_augm.shared_crop: must be false with criterion="),
        ("avc", "criterion=avcc", "criterion: 'avcc' is not one of"),
    ],
)
def test_what_a_method_cannot_do_is_said_by_the_key(
    folder: Path, criterion: str, override: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(folder, criterion, f"logging.name=refused_{criterion}", override) != 0
    assert reason in capsys.readouterr().err


def test_a_frozen_encoder_of_sound_is_shown_its_own_spectrogram_and_leaves_as_it_came(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    torch.manual_seed(0)
    came = new_encoder("aisfx", width=4)
    save_encoder(came, folder / "ear.safetensors")
    audio = ["backbone/audio=aisfx", f"backbone.audio.args.weights={folder / 'ear.safetensors'}"]
    own = ["logging.name=frozen", "optim.max_steps=2", "optim.ema_decay=0.5"]
    assert pretrain(folder, "avc", *audio, "backbone.audio.args.frozen=true", *own) == 0
    told = capsys.readouterr().err
    assert "audio encoder: frozen; it is trained no further" in told
    assert "of its 96 bands the highest 25 are empty at 16000 Hz" in told
    path = latest_checkpoint(folder / "data/outputs/frozen/checkpoints")
    assert path is not None
    left = load_encoder(path, kind="audio")
    assert (left.name, left.options) == ("aisfx", {"width": 4})
    assert all(torch.equal(value, came.state_dict()[name]) for name, value in left.state_dict().items())
    where = [f"data.args.base_path={folder / 'kitchen'}", f"environment.data_dir={folder / 'data'}"]
    judging = ["evaluate.audio=true", "evaluate.baseline=false", "optim.epochs=2", "data_augm.crop_size=32"]
    assert main(["evaluate", *where, *RUN, "logging.name=frozen", *judging]) == 0


def test_an_encoder_that_is_not_trained_or_not_there_cannot_be_frozen() -> None:
    for overrides in (["criterion=simclr_video"], ["criterion=supervised"]):
        with pytest.raises(ConfigError, match=r"backbone\.audio\.args\.frozen: criterion=\w+ does not use sound"):
            configured(*overrides, "backbone.audio.args.frozen=true")
    with pytest.raises(ConfigError, match=r"backbone\.video\.args\.frozen: is for pretraining"):
        checked(EvaluateConfig, compose("default_lincls", ["backbone.video.args.frozen=true"]))
    frozen = build_encoders(configured("backbone.video.args.frozen=true"))
    assert (frozen["video"].frozen, frozen["audio"].frozen) == (True, False)


def test_supervision_without_annotations_is_refused(folder: Path) -> None:
    config = configured("criterion=supervised", "data=folder", "data.split=train", f"data.args.base_path={folder}")
    with pytest.raises(ConfigError, match="supervised needs annotated actions; data folder has none"):
        build_clips(config, cast(PreparedStore, None))  # not looked at: it is refused before


def test_narrated_moments_are_the_contacts_that_the_annotations_have(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"data.args.base_path={folder / 'kitchen'}", f"environment.data_dir={folder / 'data'}"]
    config = configured("data.moments=narrated", *where, *RUN)
    store = open_store(config.data, config.environment, config.prepare)
    clips, _ = build_clips(config, store)
    events = Kitchen(folder / "kitchen").events().to_pylist()
    contacts = {(event["video_id"], event["point_of_no_return_seconds"]) for event in events if event["on_screen"]}
    drawn = {clips.moment_of(index, seed) for index in range(len(clips)) for seed in range(20)}
    assert len(drawn) > len(clips)
    assert {(name, round(time, 3)) for name, time in drawn} <= {(name, round(time, 3)) for name, time in contacts}

    write_training_share(folder / "kitchen", tmp_path / "part", share=1.0)
    path = tmp_path / "part/annotations/EPIC_100_train.csv"
    header, first, *rows = path.read_text().splitlines()
    fields = first.split(",")
    fields[header.split(",").index("narration_timestamp")] = ""
    path.write_text("\n".join([header, ",".join(fields), *rows]) + "\n")
    elsewhere = configured("data.moments=narrated", f"data.args.base_path={tmp_path / 'part'}", *RUN)
    capsys.readouterr()
    others, _ = build_clips(elsewhere, store)
    assert others.num_moments + others.num_unusable_moments == clips.num_moments + clips.num_unusable_moments - 1
    assert f"left out: 1 action whose narration has no time in the video: {fields[0]}" in capsys.readouterr().err


def test_narrated_moments_without_narrations_are_refused(folder: Path) -> None:
    config = configured("data.moments=narrated", "data=folder", "data.split=train", f"data.args.base_path={folder}")
    with pytest.raises(ConfigError, match=r"data\.moments: narrated needs annotated actions; data folder has none"):
        build_clips(config, cast(PreparedStore, None))
    with pytest.raises(ConfigError, match=r"data\.split: data\.moments=narrated needs one split"):
        configured("data.moments=narrated", "data.split=all")


def configured(*overrides: str) -> PretrainConfig:
    return checked(PretrainConfig, compose("default_ssrl", [*SMALL, *overrides]))


def built(*overrides: str) -> Any:
    config = configured(*overrides)
    return build_model(config, build_encoders(config), num_samples=9, num_classes={"verb": 3})


def test_every_option_reaches_its_method() -> None:
    replai = built(
        "criterion.args.gather=reference",
        "criterion.args.learnable_temperature=true",
        "criterion.args.normalise_states=true",
        "criterion.args.state_change_negatives=batch",
        "criterion.args.queue_size=5",
        "criterion.args.state_change_temperature=0.4",
    )
    assert replai.gather.__name__ == "gather_without_gradient"
    assert replai.log_temperature_scales is not None
    assert replai.contrastive == ContrastiveOptions(queue_size=5)
    assert replai.state_change == StateChangeOptions(temperature=0.4, normalize_states=True, negatives="batch")
    assert replai.queue.shape[1] == 5
    plain = built()
    assert plain.gather.__name__ == "gather_with_gradient"
    assert plain.log_temperature_scales is None
    assert (plain.contrastive, plain.state_change, plain.queue) == (ContrastiveOptions(), StateChangeOptions(), None)
    assert plain.clip_pair == ClipPairOptions(weight=0.0)  # as in the paper
    pairs = built("criterion.args.clip_pair_coeff=0.5", "criterion.args.clip_pair_temperature=0.2")
    assert pairs.clip_pair == ClipPairOptions(weight=0.5, temperature=0.2)
    assert (pairs.contrastive, pairs.state_change) == (plain.contrastive, plain.state_change)
    assert (plain.sound_units, plain.moment_detection) == (None, MomentDetectionOptions(weight=0.0))
    units = built("criterion.args.sound_unit_coeff=0.4", "criterion.args.sound_units=[5,9]", "environment.seed=3")
    assert units.sound_unit == SoundUnitOptions(weight=0.4, num_units=(5, 9))
    assert (units.sound_units.num_units, units.sound_units.seed) == ((5, 9), 3)
    told = built("criterion.args.moment_detection_coeff=0.4", "data.quiet_share=0.5")
    assert told.moment_detection == MomentDetectionOptions(weight=0.4, quiet_share=0.5)
    recipe = built("criterion=earmark")
    assert recipe.sound_unit == SoundUnitOptions(weight=0.5, num_units=(64, 128))
    assert recipe.moment_detection == MomentDetectionOptions(weight=0.5, quiet_share=0.25)
    assert built("criterion=earmark", "data.quiet_share=0.5").moment_detection.quiet_share == 0.5
    for name, weights in (("avc", (1, 0)), ("astc", (0, 1)), ("replai_random", (0.5, 0.5)), ("earmark", (0.5, 0.5))):
        model = built(f"criterion={name}")
        assert (model.contrastive.weight, model.state_change.weight) == weights
    assert built("criterion=avc", "criterion.args.temperature=0.3").contrastive.temperature == 0.3
    avid = built("criterion=avid", "criterion.args.num_negatives=7", "criterion.args.momentum=0.25")
    assert (avid.num_negatives, avid.momentum, avid.temperature, len(avid.video_memory)) == (7, 0.25, 0.07, 9)
    xdc = built("criterion=xdc", "criterion.args.num_clusters=4", "criterion.args.kmeans=faiss")
    assert (xdc.num_clusters, xdc.engine, len(xdc.video_cluster)) == (4, "faiss", 9)
    assert built("criterion=simclr_video", "criterion.args.temperature=0.3").temperature == 0.3
    assert built("criterion=supervised").classifiers["verb"].out_features == 3
    with pytest.raises(ConfigError, match=r"criterion\.args: need from 2 clusters to as many as the 9"):
        built("criterion=xdc")


def test_a_run_says_how_many_samples_are_of_quiet_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(folder, "astc", "logging.name=quiet", "optim.max_steps=1") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "quiet times: 0.3 of the samples, 1.2 s and more from every moment" in said


def test_a_run_that_ends_before_there_are_sound_units_is_refused() -> None:
    """Of 9 samples an epoch; 128 units need 640."""
    built("criterion.args.sound_unit_coeff=0.5", "optim.epochs=72")
    with pytest.raises(ConfigError, match=r"sound_units: 128 are made of the first 640 samples, and the run has 639:"):
        built("criterion.args.sound_unit_coeff=0.5", "optim.epochs=71")


def test_every_criterion_is_a_method_and_every_method_a_criterion() -> None:
    names = get_args(get_type_hints(Criterion)["name"])
    assert {method_name(configured(f"criterion={name}")) for name in names} == set(methods.METHODS)


@pytest.mark.parametrize("criterion", list(METHODS))
def test_the_configuration_asks_of_a_method_what_the_method_says_of_itself(criterion: str) -> None:
    """The configuration is checked where torch need not be installed, so it cannot ask the methods themselves."""
    method = methods.METHODS[method_name(configured(f"criterion={criterion}"))]
    for override, key, refused in (
        ("data.audio_seconds=0.001", "data.audio_seconds", method.uses_sound),
        ("data.split=all", "data.split", method.needs_labels),
        ("data_augm.shared_crop=true", "data_augm.shared_crop", method.views == "same_clip"),
        ("data_augm.audio_mix=0.5", "data_augm.audio_mix", not method.uses_sound),
    ):
        with pytest.raises(ConfigError, match=key) if refused else nullcontext():
            configured(f"criterion={criterion}", override)


def test_the_seed_of_the_run_reaches_what_a_method_draws() -> None:
    for name, what in (("avid", "video_memory"), ("ssrl_audiopeak_aotv2", "queue")):
        options = [f"criterion={name}"] + (["criterion.args.queue_size=5"] if what == "queue" else [])
        one, same, other = (getattr(built(*options, f"environment.seed={seed}"), what) for seed in (1, 1, 2))
        assert (one == same).all()
        assert (one != other).any()
    assert built("criterion=xdc", "criterion.args.num_clusters=4", "environment.seed=3").seed == 3


def test_the_ways_of_running_a_model_are_one_line_each() -> None:
    def layer(*overrides: str) -> Any:
        return built(*overrides).backbone["video"].conv2x.tmp_conv1

    usual = layer()
    assert not usual.weight.is_contiguous()
    assert layer("model.channels_last=false").weight.is_contiguous()
    compiled = built("model.compile=true").backbone["video"]
    assert compiled._compiled_call_impl is not None
    assert built().backbone["video"]._compiled_call_impl is None


def test_masks_fit_the_spectrogram_that_the_encoder_gets() -> None:
    small = ["backbone/video=avid_r2plus1d_10", "backbone.video.args.width=2", "backbone/audio=aisfx"]
    small += ["backbone.audio.args.width=2", "backbone.audio.args.pretrained=false"]
    checked_config = checked(PretrainConfig, compose("default_ssrl", [*small, "data_augm.spec_mel_masks=9"]))
    build_encoders(checked_config)  # 90 of 96 bands
    config = checked(PretrainConfig, compose("default_ssrl", [*small, "data_augm.spec_time_masks=5"]))
    message = (
        r"^data_augm\.spec_time_masks: 5 masks of up to data_augm\.spec_time_width=20 frames could hide all 87 of a "
        r"spectrogram of the audio encoder aisfx$"
    )
    with pytest.raises(ConfigError, match=message):
        build_encoders(config)
