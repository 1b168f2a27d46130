"""The configuration: what composes, what is refused, and in which words."""

import copy
import dataclasses
import functools
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from earmark.cli.config import (
    ConfigError,
    EvaluateConfig,
    PretrainConfig,
    checked,
    checked_sweep,
    compose,
)
from earmark.cli.config_contradictions import DETECTOR_OPTIONS, PREPARE_CHOICES
from earmark.cli.config_schema import DataArgs
from earmark.moments import DETECTORS, detector_parameters
from tests.helpers.command_lines import PUBLISHED_PRETRAINING, PUBLISHED_PROBE

CONFIGS = Path(str(files("earmark.cli.configs")))
SCHEMA: dict[str, Any] = {"default_ssrl": PretrainConfig, "default_lincls": EvaluateConfig}

# The two commands of the original's README, with paths of ours.


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return compose("default_ssrl", [])


def pretraining(*overrides: str) -> PretrainConfig:
    return checked(PretrainConfig, compose("default_ssrl", overrides))


def problem(*overrides: str, config_name: str = "default_ssrl") -> str:
    """Return in which words a command line is refused."""
    with pytest.raises(ConfigError) as caught:
        checked_sweep(SCHEMA[config_name], config_name, overrides)
    return str(caught.value)


def test_the_published_pretraining_command_composes() -> None:
    config = pretraining(*shlex.split(PUBLISHED_PRETRAINING))
    assert (config.data.name, config.data.args.base_path, config.data.split) == ("epic_kitchens", "EPIC", "train")
    assert (config.optim.batch_size, config.optim.epochs, config.optim.args.lr) == (128, 100, 0.005)
    assert config.optim.lr_scheduler_args.total_steps == 100
    assert config.backbone.video.args.pretrained
    assert config.logging.name == "epic_git1"
    assert config.environment.ngpu == 4


def test_the_published_probe_command_composes() -> None:
    config = checked(EvaluateConfig, compose("default_lincls", shlex.split(PUBLISHED_PROBE)))
    assert (config.data.name, config.optim.name, config.optim.schedule) == ("epic_kitchens", "sgd_lincls", [18, 24])
    assert (config.logging.name, config.logging.suffix) == ("epic_git1", "_eval")
    assert not config.train_algo.normalize_feats


def test_the_original_choices_of_data_take_the_original_detector_and_the_others_the_default() -> None:
    detectors = {
        data: pretraining(f"data={data}").prepare.detector
        for data in ("kitchen", "folder", "epic_10s_audiopeak", "ego4D_10s_audiopeak")
    }
    assert detectors == {
        "kitchen": "earmark", "folder": "earmark", "epic_10s_audiopeak": "replai", "ego4D_10s_audiopeak": "replai"
    }  # fmt: skip
    assert pretraining(*shlex.split(PUBLISHED_PRETRAINING)).prepare.detector == "replai"
    probe = checked(EvaluateConfig, compose("default_lincls", shlex.split(PUBLISHED_PROBE)))
    assert probe.prepare == pretraining("data=epic_10s_audiopeak").prepare  # so that both use one store
    assert pretraining("data=epic_10s_audiopeak", "prepare=default").prepare.detector == "earmark"
    assert pretraining("prepare=replai").prepare.detector == "replai"
    both = pretraining("data=epic_10s_audiopeak", "criterion=replai_random")  # each choice changes another group
    assert (both.prepare.detector, both.data.moments) == ("replai", "random")
    defaults = detector_parameters("replai")
    assert (probe.prepare.min_prominence, probe.prepare.min_distance) == (
        defaults["min_prominence"],
        defaults["min_distance"],
    )


def test_options_of_another_detector_are_refused() -> None:
    for own in DETECTORS:
        assert pretraining(f"prepare={PREPARE_CHOICES[own]}").prepare.detector == own
        parameters = set(detector_parameters(own)) - {"detector_version"}  # which is no option
        assert {"detector", "segment_seconds", *DETECTOR_OPTIONS[own]} == parameters
    with pytest.raises(ConfigError) as refused:
        pretraining("prepare.min_prominence=2", "prepare.min_distance=3")
    assert str(refused.value).splitlines() == [
        f"prepare.{name}: is an option of the detector replai (prepare=replai); here it is earmark (prepare=default), "
        "which has prepare.min_score and prepare.min_distance_seconds"
        for name in ("min_prominence", "min_distance")
    ]
    with pytest.raises(ConfigError, match=r"prepare\.min_score: is an option of the detector earmark"):
        pretraining("data=epic_10s_audiopeak", "prepare.min_score=2")


def test_defaults_are_the_published_settings_on_the_generated_kitchen() -> None:
    config = pretraining()
    assert config.data.name == "kitchen"
    assert config.data.args.delta_non_overlap == 0.1
    assert (config.data.clip_seconds, config.data.clip_fps, config.data.audio_seconds) == (0.5, 16.0, 2.0)
    assert (config.data_augm.crop_size, config.data_augm.min_short_side, config.data_augm.max_short_side) == (
        112,
        128,
        180,
    )
    assert not config.data_augm.shared_crop
    assert dataclasses.asdict(config.optim.args) == {
        "lr": 0.005,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": False,
    }
    criterion = config.criterion.args
    assert (criterion.temperature, criterion.clr_coeff, criterion.aot_coeff, criterion.out_dim) == (0.07, 0.5, 0.5, 128)


# Groups whose choices are for one of the two commands.
OWN_CHOICE = {
    "default_ssrl": {"train_algo": {"ssrl"}, "data_augm": {"vRCF_aLogMel", "mRCF", "MSCFCJ"}},
    "default_lincls": {"train_algo": {"linear_cls_mtl"}, "data_augm": {"RCF"}, "optim": {"sgd_lincls"}},
}
CHOICES = [
    (config_name, group, path.stem)
    for config_name in SCHEMA
    for entry in yaml.safe_load((CONFIGS / f"{config_name}.yaml").read_text())["defaults"]
    if isinstance(entry, dict)
    for group in entry
    for path in sorted((CONFIGS / group).glob("*.yaml"))
    if path.stem in OWN_CHOICE[config_name].get(group, {path.stem})
]


@pytest.mark.parametrize(("config_name", "group", "choice"), CHOICES)
def test_every_choice_of_every_group_composes_and_passes(config_name: str, group: str, choice: str) -> None:
    checked(SCHEMA[config_name], compose(config_name, [f"{group}={choice}"]))


def test_every_configuration_file_is_a_choice_of_some_group() -> None:
    there = {(path.parent.relative_to(CONFIGS).as_posix(), path.stem) for path in CONFIGS.rglob("*/*.yaml")}
    assert there - {(".", name) for name in (*SCHEMA, "run_folder")} == {choice[1:] for choice in CHOICES}


def test_configuration_files_hold_plain_data_only() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        text = path.read_text()
        assert "_target_" not in text
        assert not re.search(r":\s+(None|/)", text), path
        if path.name != "run_folder.yaml":
            assert "${" not in text, path


def test_every_field_of_the_schema_is_set_by_some_file() -> None:
    for config_name, schema in SCHEMA.items():
        own = [f"{group}={choice}" for name, group, choice in CHOICES if (name, group) == (config_name, "criterion")]

        def unset(kind: Any, values: dict[str, Any]) -> list[str]:
            found = []
            for name, hint in get_type_hints(kind).items():
                if name not in values:
                    found.append(name)
                elif dataclasses.is_dataclass(hint):
                    found += unset(hint, values[name])
            return found

        # What no criterion sets; what is left is of one optim choice, or of some encoders only.
        found = [set(unset(schema, compose(config_name, [line]))) for line in own] or [
            set(unset(schema, compose(config_name, [])))
        ]
        optional = {"max_steps", "accumulate", "max_gradient_norm", "ema_decay", "lr_scheduler", "warmup_epochs"}
        optional |= {"num_mels", "model"}
        optional |= {"layout", "version", "subset", "min_area"}  # of some choices of data and data_augm
        assert set.intersection(*found) <= optional


def test_hydra_writes_nothing_outside_the_run_folder() -> None:
    hydra = yaml.safe_load((CONFIGS / "run_folder.yaml").read_text())["hydra"]
    assert hydra["job"]["chdir"] is False
    assert hydra["output_subdir"] is None
    for where in (hydra["run"]["dir"], hydra["sweep"]["dir"]):
        assert where.startswith("${environment.data_dir}/outputs/${logging.name}")
        assert "now:" not in where


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.args.lrr=1", "optim.args.lrr: no such key; did you mean optim.args.lr"),
        ("optm.epochs=3", "optm.epochs: no such key; did you mean optim.epochs"),
        ("+optim.args.lrr=1", "optim.args.lrr: no such key; did you mean optim.args.lr"),
        ("environment.datadir=x", "environment.datadir: no such key; did you mean environment.data_dir"),
        ("backbone/vido=avid_r2plus1d_18", "backbone/vido: no such key; did you mean backbone/video"),
        ("epochs=3", "epochs: no such key; did you mean optim.epochs"),
        ("data.args.nonsense=1", "data.args.nonsense: no such key"),
        ("~optim.args.lr", "optim.args.lr: is missing"),
        ("data=foldr", "data: 'foldr' is not one of"),
        ("data=foldr", "did you mean folder?"),
        ("backbone/video=avid_r2plus1d_19", "backbone/video: 'avid_r2plus1d_19' is not one of"),
        ("optim.epochs=${nothing}", "Interpolation key 'nothing' not found"),
        ("optim.epochs=[", "'optim.epochs=[' is not an override KEY=VALUE"),
        ("optim.epochs", "'optim.epochs' is not an override KEY=VALUE"),
        ("=3", "'=3' is not an override KEY=VALUE"),
        ("hydra/launcher=nope", "Could not find 'hydra/launcher/nope'"),
        ("optim.epochs=abc", "optim.epochs: expected an integer, got 'abc'"),
        ("optim.args.lr=-1", "optim.args.lr: must be above 0, got -1.0"),
    ],
)
def test_mistakes_on_the_command_line_are_refused_with_the_full_name(override: str, expected: str) -> None:
    assert expected in problem(override)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optim.epochs", "abc", "optim.epochs: expected an integer, got 'abc'"),
        ("optim.epochs", 1.5, "optim.epochs: expected an integer, got 1.5"),
        ("optim.epochs", True, "optim.epochs: expected an integer, got True"),
        ("optim.epochs", None, "optim.epochs: expected an integer, got None"),
        ("optim.args.lr", "fast", "optim.args.lr: expected a number, got 'fast'"),
        ("optim.args.lr", -1, "optim.args.lr: must be above 0, got -1.0"),
        ("optim.args.lr", float("nan"), "optim.args.lr: expected a finite number, got nan"),
        ("optim.args.momentum", 1, "optim.args.momentum: must be at least 0 and below 1, got 1.0"),
        ("optim.batch_size", 0, "optim.batch_size: must be at least 1, got 0"),
        ("optim.schedule", 3, "optim.schedule: expected a list, got 3"),
        ("optim.schedule", [18, "x"], "optim.schedule[1]: expected an integer, got 'x'"),
        ("optim.args", 3, "optim.args: expected a section with the keys lr, momentum, weight_decay, nesterov, got 3"),
        ("environment.resume", "maybe", "environment.resume: expected true or false, got 'maybe'"),
        ("environment.resume", 0, "environment.resume: expected true or false, got 0"),
        ("environment.precision", 32, "environment.precision: '32' is not one of auto, 32-true"),
        ("environment.slurm", "yes", "environment.slurm: expected true or false, got 'yes'"),
        ("environment.world_size", 2, "environment.dist_url: several nodes need tcp://HOST:PORT of the first"),
        ("environment.rank", 1, "environment.rank: must be below environment.world_size (1)"),
        ("logging.name", "../elsewhere", "logging.name: must be made of letters, digits and _.,=+- only"),
        ("logging.name", "..", "logging.name: must be made of"),
        ("logging.suffix", "/x", "logging.suffix: must be made of"),
        ("data.store", "None", "data.store: got the text 'None'; nothing is written null"),
        ("prepare.quality", 101, "prepare.quality: must be from 1 to 100, got 101"),
        ("prepare.segment_seconds", 0.5, "prepare.segment_seconds: must be at least 1, got 0.5"),
        ("prepare.short_side", 127, "prepare.short_side: must be even and at least 16, got 127"),
        ("environment.dist_url", "localhost:1", "environment.dist_url: must be tcp://HOST:PORT, env:// or null"),
        ("environment.force_processes", 0, "environment.force_processes: must be at least 1, got 0"),
        ("optim.ema_decay", 1, "optim.ema_decay: must be at least 0 and below 1, got 1.0"),
        ("data_augm.color_jitter", 1.5, "data_augm.color_jitter: must be from 0 to 1, got 1.5"),
        ("data_augm.audio_gain_db", 61, "data_augm.audio_gain_db: must be from 0 to 60, got 61.0"),
        ("data_augm.audio_mix", -0.1, "data_augm.audio_mix: must be from 0 to 1, got -0.1"),
        ("data_augm.audio_mix_snr_db", 5, "data_augm.audio_mix_snr_db: expected a list, got 5"),
        ("data_augm.audio_mix_snr_db", [5, 99], "data_augm.audio_mix_snr_db[1]: must be from -60 to 60, got 99.0"),
        ("data_augm.audio_mix_snr_db", [20, 5], "data_augm.audio_mix_snr_db: must be [LOWEST, HIGHEST], got [20.0, 5"),
        ("data_augm.audio_mix_snr_db", [5], "data_augm.audio_mix_snr_db: must be [LOWEST, HIGHEST], got [5.0]"),
        ("data_augm.spec_time_masks", -1, "data_augm.spec_time_masks: must be at least 0, got -1"),
        ("data_augm.spec_time_masks", 7, "spec_time_masks: 7 masks of up to data_augm.spec_time_width=20 frames could"),
        ("data_augm.spec_mel_masks", 8, "data_augm.spec_mel_width=10 mel bins could hide all 80 of a spectrogram"),
        ("data_augm.spec_mel_width", 0, "data_augm.spec_mel_width: must be at least 1, got 0"),
        ("optim.schedule", [18], "optim.schedule: is for optim.use_lr_scheduler=false"),
        ("data_augm.crop_size", 200, "data_augm.min_short_side: must be at least crop_size (200)"),
        ("optim.lr_scheduler_args.total_steps", 9, "optim.lr_scheduler_args.total_steps: 9 is too few for 100 epochs"),
        ("data.moments_per_segment", 0, "data.moments_per_segment: must be at least 1, got 0"),
        ("data.quiet_share", 1, "data.quiet_share: must be at least 0 and below 1, got 1"),
        ("criterion.args.sound_units", [8, 1], "criterion.args.sound_units[1]: must be at least 2, got 1"),
        ("data.videos_per_batch", 0, "data.videos_per_batch: must be at least 1, got 0"),
        ("optim.lr_scheduler", "linear", "optim.lr_scheduler: 'linear' is not one of one_cycle, cosine"),
        ("optim.lr_scheduler_args.warmup_epochs", 2.5, "optim.lr_scheduler_args.warmup_epochs: must be 0; it is of"),
        ("optim.lr_scheduler_args.warmup_epochs", -1, "optim.lr_scheduler_args.warmup_epochs: must be at least 0"),
    ],
)
def test_wrong_values_are_refused_with_the_full_name(
    defaults: dict[str, Any], key: str, value: object, expected: str
) -> None:
    values = copy.deepcopy(defaults)
    *sections, name = key.split(".")
    functools.reduce(dict.__getitem__, sections, values)[name] = value
    with pytest.raises(ConfigError, match=re.escape(expected)):
        checked(PretrainConfig, values)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.use_lr_scheduler=false", "optim.lr_scheduler: cosine needs optim.use_lr_scheduler=true"),
        ("optim.lr_scheduler_args.total_steps=100", "optim.lr_scheduler_args.total_steps: must be null with optim.lr_"),
        ("optim.lr_scheduler_args.warmup_epochs=100", "warmup_epochs: 100 leaves nothing of 100 epochs to the cosine"),
    ],
)
def test_what_contradicts_a_cosine_is_refused(override: str, expected: str) -> None:
    assert expected in problem("optim.lr_scheduler=cosine", override)
    assert pretraining("optim.lr_scheduler=cosine", "optim.lr_scheduler_args.warmup_epochs=2.5").optim.epochs == 100


def test_clipping_in_float16_needs_an_update_that_is_not_fused() -> None:
    overrides = ["optim.max_gradient_norm=1", "environment.precision=16-mixed"]
    with pytest.raises(ConfigError, match=r"optim\.max_gradient_norm: needs model\.fused_optimizer=false"):
        checked(PretrainConfig, compose("default_ssrl", overrides))
    for other in ("model.fused_optimizer=false", "environment.precision=bf16-mixed", "optim.max_gradient_norm=null"):
        checked(PretrainConfig, compose("default_ssrl", [*overrides, other]))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim=sgd", "optim.use_lr_scheduler: must be false"),
        ("optim.args.nesterov=true", "optim.args.nesterov: must be false"),
        ("+optim.max_steps=3", "optim.max_steps: "),
        ("environment.force_processes=2", "environment.force_processes: must be null"),
        ("environment.force=true", "environment.force: must be false"),
        ("environment.precision=bf16-mixed", "environment.precision: must be 32-true"),
        ("data.split=validation", "data.split: must be train"),
        ("data.videos_per_batch=2", "data.videos_per_batch: must be null; it is for pretraining"),
        ("data.moments_per_segment=2", "data.moments_per_segment: must be 1; it is for pretraining"),
        ("data.quiet_share=0.2", "data.quiet_share: must be 0; it is for pretraining"),
        ("data_augm=vRCF_aLogMel", "data_augm.name: 'vRCF_aLogMel' is not one of RCF"),
        ("data_augm.flip=false", "data_augm.flip: no such key"),
        ("data_augm.audio_mix=0.5", "data_augm.audio_mix: no such key"),
    ],
)
def test_what_the_probe_would_not_use_is_refused(override: str, expected: str) -> None:
    assert expected in problem(override, config_name="default_lincls")


def test_a_gpu_that_is_demanded_and_forbidden_is_refused() -> None:
    assert "environment.ngpu: must be at least 1" in problem("environment.accelerator=cuda", "environment.ngpu=0")


def test_a_key_of_another_choice_is_refused() -> None:
    assert "data.args.preset: no such key" in problem("data=folder", "data.args.preset=tiny")
    assert pretraining("data.args.preset=tiny").data.args.preset == "tiny"


def test_several_mistakes_are_told_at_once() -> None:
    lines = problem("optim.args.lr=-1", "optim.batch_size=0", "environment.resume=maybe").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["optim.args.lr", "optim.batch_size", "environment.resume"]


def test_an_unknown_configuration_is_refused_with_the_near_matches() -> None:
    with pytest.raises(ConfigError, match=r"--config-name: 'default_srl' is not one of .*; did you mean default_ssrl"):
        compose("default_srl", [])


def test_values_become_their_types() -> None:
    config = pretraining("optim.args.lr=1", "logging.name=2024", "data.args.base_path=7", "prepare.fps=32")
    assert isinstance(config.optim.args.lr, float)
    assert (config.logging.name, config.data.args.base_path, config.prepare.fps) == ("2024", "7", 32)


def test_every_value_of_a_sweep_is_checked() -> None:
    assert "optim.args.lr: must be above 0, got -3.0" in problem("optim.args.lr=0.1,0.2,-3")
    assert "data: 'foldr' is not one of" in problem("data=kitchen,foldr")
    assert "optim.epochs: must be at least 1, got 0" in problem("optim.epochs=range(0,3)")
    assert "optim.args.lr: must be above 0" in problem("optim.epochs=1,2", "optim.args.lr=choice(1,-1)")


def test_swept_keys_are_those_with_several_values() -> None:
    overrides = ["data.args.preset=tiny,small", "optim.epochs=2", "backbone/video=avid_r2plus1d_10,avid_r2plus1d_18"]
    assert checked_sweep(PretrainConfig, "default_ssrl", overrides)[0] == ("data.args.preset", "backbone/video")
    assert checked_sweep(PretrainConfig, "default_ssrl", ["optim.args.lr=interval(0.1,1)"])[0] == ("optim.args.lr",)
    assert checked_sweep(PretrainConfig, "default_ssrl", ["logging.suffix=${hydra:job.num}"])[0] == ()
    assert checked_sweep(PretrainConfig, "default_ssrl", ["backbone/video=glob(*_1*)"])[0] == ("backbone/video",)


def test_several_values_outside_a_sweep_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.epochs: several values need a sweep \(-m\)"):
        compose("default_ssrl", ["optim.epochs=1,2"])


def test_configurations_of_ones_own_extend_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [default_ssrl, _self_]\noptim: {epochs: 7}\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/bench.yaml").write_text("defaults: [folder, _self_]\nargs: {base_path: bench}\n")
    values = compose("mine", ["data=bench"], config_dir=tmp_path)
    config = checked(PretrainConfig, values)
    assert (config.optim.epochs, config.data.name, config.data.args.base_path) == (7, "folder", "bench")
    (tmp_path / "mine.yaml").write_text("defaults: [default_ssrl, _self_]\noptim: {epohcs: 7}\n")
    with pytest.raises(ConfigError, match=r"optim\.epohcs: no such key; did you mean optim\.epochs"):
        checked(PretrainConfig, compose("mine", [], config_dir=tmp_path))
    with pytest.raises(ConfigError, match="no such folder of configurations"):
        compose("mine", [], config_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: \xc3\x28\n", r"configs/data/mine\.yaml: not text in UTF-8"),
        (b"name: \x00\n", r'configs/data/mine\.yaml"|special characters are not allowed'),
        (b"? [a, b]\n: 1\n", r"mine\.yaml"),
        (b"[" * 3000 + b"]" * 3000, "configs: a value is nested too deeply, or within itself"),
        (b"name: &a {b: *a}\n", "configs: a value is nested too deeply, or within itself"),
        (b"args: {seed: " + b"9" * 5000 + b"}\n", "configs: .*digits"),
    ],
)
def test_configurations_that_cannot_be_read_are_refused_with_their_place(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "configs" / "data" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        compose("default_ssrl", ["data=mine"], config_dir=tmp_path / "configs")


@pytest.mark.parametrize("choice", ["3", "inf", "true", "{a: 1}", "1" * 400])
@pytest.mark.parametrize("group", ["hydra/launcher", "hydra/job_logging", "data"])
def test_a_choice_that_is_no_name_is_refused_with_its_group(group: str, choice: str) -> None:
    with pytest.raises(ConfigError, match=f"^{group}: .* is not "):
        compose("default_ssrl", [f"{group}={choice}"])


def test_a_number_beyond_what_a_float_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.args\.momentum: expected a number of at most 1\.79769e\+308"):
        checked(PretrainConfig, compose("default_ssrl", [f"optim.args.momentum=1{'0' * 400}"]))


@pytest.mark.parametrize("value", ["true", "1.0", "[1,2]", "2"])
def test_a_number_that_must_be_one_of_some_is_refused_otherwise(value: str) -> None:
    key = "optim.lr_scheduler_args.first_step"
    with pytest.raises(ConfigError, match=rf"{key}: .* is not one of 0, 1"):
        checked(PretrainConfig, compose("default_ssrl", [f"{key}={value}"]))


def test_a_section_can_be_checked_alone_under_its_full_name() -> None:
    assert checked(DataArgs, {"base_path": None}).seed == 0
    with pytest.raises(ConfigError, match=r"data\.args\.seed: must be at least 0, got -1"):
        checked(DataArgs, {"base_path": None, "seed": -1}, section="data.args")


def test_kitchen_presets_are_those_that_can_be_generated() -> None:
    from earmark.kitchen import PRESETS

    assert get_args(get_type_hints(DataArgs)["preset"]) == tuple(PRESETS)


def test_encoder_names_are_those_that_can_be_built() -> None:
    pytest.importorskip("torch", reason="encoders need torch, configurations do not")
    from earmark.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS

    assert {path.stem for path in (CONFIGS / "backbone/video").glob("*.yaml")} == set(VIDEO_ENCODERS)
    assert {path.stem for path in (CONFIGS / "backbone/audio").glob("*.yaml")} == set(AUDIO_ENCODERS)


@pytest.mark.parametrize(
    ("group", "name"),
    [  # of the original's groups
        *(("backbone/audio", name) for name in ("mobilev1", "mobilev2", "res1dnet31", "res1dnet51", "resnet22")),
        *(("backbone/audio", name) for name in ("resnet38", "resnet54", "speccnn9", "wavegram14")),
        ("backbone/audio", "wavegram_logmel14"),
        ("backbone/video", "r3d_50"),
    ],
)
def test_encoders_that_are_not_there_give_a_list_of_those_that_are(group: str, name: str) -> None:
    there = {
        "backbone/audio": "aisfx, avid_spec_cnn_9, cnn10, cnn14, cnn6, hf_audio",
        "backbone/video": "avid_.*, s3d, swin",
    }
    with pytest.raises(ConfigError, match=f"{group}: '{name}' is not one of {there[group]}"):
        compose("default_ssrl", [f"{group}={name}"])


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "mc3_18", "s3d", "mvit_v2_s", "swin3d_t", "hf_video"])
def test_every_video_encoder_has_a_checked_configuration(name: str) -> None:
    config = checked(PretrainConfig, compose("default_ssrl", [f"backbone/video={name}"]))
    assert (config.backbone.video.name, config.backbone.video.args.width) == (name, None)
    with pytest.raises(ConfigError, match=r"backbone\.video\.args\.width: no such key"):
        compose("default_ssrl", [f"backbone/video={name}", "backbone.video.args.width=8"])


@pytest.mark.parametrize("name", ["cnn6", "cnn10", "cnn14", "aisfx", "hf_audio"])
def test_every_audio_encoder_has_a_checked_configuration(name: str) -> None:
    config = checked(PretrainConfig, compose("default_ssrl", [f"backbone/audio={name}"]))
    assert config.backbone.audio.name == name


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["prepare.fps=8"],
            "data.clip_fps: 16 frames per second need more than prepare.fps=8: frames would be repeated",
        ),
        (["prepare.fps=24"], "data.clip_fps: 16 frames per second do not divide prepare.fps=24"),
        (["data.clip_fps=12"], "data.clip_fps: 12 frames per second do not divide prepare.fps=16"),
        (["data.clip_seconds=0.02"], "data.clip_seconds: 0.02 s have no frame at data.clip_fps=16"),
        (
            ["data_augm.crop_size=224", "data_augm.min_short_side=256", "data_augm.max_short_side=256"],
            "data_augm.min_short_side: 256 pixels are more than prepare.short_side=128",
        ),
        (["prepare.short_side=96"], "data_augm.min_short_side: 128 pixels are more than prepare.short_side=96"),
        (["prepare.audio_rate=8000"], "prepare.audio_rate: 8000 Hz cannot hold the spectrogram's bands up to 8000 Hz"),
        (["data.audio_seconds=0.03"], "data.audio_seconds: 0.03 s are shorter than one window of the spectrogram"),
        (["prepare.segment_seconds=1"], "prepare.segment_seconds: 1 s cannot hold the two clips of a sample"),
        (
            ["data.args.gaps=[0.1,5]"],
            "prepare.segment_seconds: 10 s cannot hold the two clips of a sample and their gaps, 11 s with "
            "data.clip_seconds=0.5 and data.args.gaps=5",
        ),
        (
            ["prepare.around=moments", "data.clip_seconds=1"],
            "prepare.around_seconds: 1 s keep less around a moment than is read: data.clip_seconds=1 and "
            "data.args.delta_non_overlap=0.1 reach 1.1 s",
        ),
        (["prepare.around=moments", "data.audio_seconds=3"], "than is read: data.audio_seconds=3 reach 1.5 s"),
        (["prepare.around=moments", "data.moments=random"], "data.moments=random needs the whole videos"),
        (["prepare.around=moments", "logging.evaluate_every=1"], "logging.evaluate_every needs the whole videos"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_with_both_keys_and_values(
    overrides: list[str], expected: str
) -> None:
    assert expected in problem(*overrides)


def test_what_fits_together_is_taken() -> None:
    pretraining("prepare.fps=8", "data.clip_fps=8")
    pretraining("prepare.fps=30", "data.clip_fps=15")
    pretraining("prepare.around=moments")
    pretraining("prepare.audio_rate=48000", "data.audio_seconds=0.5")
    pretraining("prepare.audio_rate=8000", "criterion=simclr_video")
    large = ["data_augm.crop_size=224", "prepare.short_side=256"]
    pretraining(*large, "data_augm.min_short_side=256", "data_augm.max_short_side=256")
    checked(EvaluateConfig, compose("default_lincls", large))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("prepare.fps=8", "data.clip_fps: 16 frames per second need more than prepare.fps=8"),
        ("data_augm.crop_size=224", "data_augm.crop_size: 224 pixels are more than prepare.short_side=128"),
        ("prepare.around=moments", "clips of actions need the whole videos"),
    ],
)
def test_the_evaluation_refuses_what_does_not_fit_together(override: str, expected: str) -> None:
    alone = ["evaluate.checkpoint=none", override]  # a run's checkpoint is compared with what the run had instead
    assert expected in problem(*alone, config_name="default_lincls")


def test_the_bounds_checked_at_the_start_are_those_of_the_spectrogram() -> None:
    pytest.importorskip("torch")
    from earmark.cli.config_fit import HOP_SECONDS, MAX_FREQUENCY, NUM_MELS, WINDOW_SECONDS
    from earmark.clips.transforms import LogMel

    assert (LogMel().hop_seconds, LogMel().num_mels) == (HOP_SECONDS, NUM_MELS)
    assert LogMel(sample_rate=2 * MAX_FREQUENCY).window_length == WINDOW_SECONDS * 2 * MAX_FREQUENCY
    with pytest.raises(ValueError, match="bands"):
        LogMel(sample_rate=2 * MAX_FREQUENCY - 1)


@pytest.mark.parametrize(
    ("overrides", "num_jobs"),
    [([], 1), (["optim.epochs=3", "data=folder", "data.args.base_path=x"], 1), (["optim.args.lr=0.1,0.2,0.3"], 3)],
)
def test_a_command_line_is_composed_once_for_each_value_of_a_sweep(
    overrides: list[str], num_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hydra

    composed = []
    compose_with_hydra = hydra.compose

    def counting(*arguments: Any, **options: Any) -> Any:
        composed.append(arguments)
        return compose_with_hydra(*arguments, **options)

    monkeypatch.setattr(hydra, "compose", counting)
    _, first = checked_sweep(PretrainConfig, "default_ssrl", overrides)
    assert len(composed) == num_jobs
    assert first["optim"]["args"]["lr"] == (0.1 if num_jobs > 1 else 0.005)
    if num_jobs == 1:
        composed.clear()
        assert compose("default_ssrl", overrides) == first
        assert len(composed) == 1


def test_a_key_that_only_a_job_can_check_is_still_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"^optim\.epohcs: no such key; did you mean optim\.epochs"):
        checked_sweep(PretrainConfig, "default_ssrl", ["optim.epohcs=interval(1,5)"])
    with pytest.raises(ConfigError, match=r"^optim\.epohcs: no such key; did you mean optim\.epochs"):
        checked_sweep(PretrainConfig, "default_ssrl", ["optim.epohcs=3", "optim.args.lr=0.1,0.2"])


@pytest.mark.parametrize(
    ("choice", "subset"),
    [
        ("epic_action_segments", None),
        ("epic_action_segments_headclasses", "head_classes"),
        ("epic_action_segments_tailclasses", "tail_classes"),
        ("epic_action_segments_unseenparticipants", "unseen_participants"),
    ],
)
def test_the_originals_data_choices_of_the_probe_select_their_actions(choice: str, subset: str | None) -> None:
    config = checked(EvaluateConfig, compose("default_lincls", [f"data={choice}"]))
    assert (config.data.name, config.data.subset, config.prepare.detector) == ("epic_kitchens", subset, "replai")


def test_a_subset_is_one_of_three_and_of_the_validation_split() -> None:
    refused = problem("data=epic_action_segments", "data.subset=rare", config_name="default_lincls")
    assert "data.subset: 'rare' is not one of head_classes, tail_classes, unseen_participants" in refused
    refused = problem("data=epic_action_segments_tailclasses", "evaluate.split=train", config_name="default_lincls")
    assert "data.subset: tail_classes is of the validation split; give evaluate.split=validation" in refused


def test_the_originals_augmentations_become_the_crops_that_they_name() -> None:
    pytest.importorskip("torch")
    from earmark.cli.pretrain import describe_clips, video_crop

    paper, several = (video_crop(pretraining(f"data_augm={name}").data_augm) for name in ("vRCF_aLogMel", "mRCF"))
    assert paper.cache_key() == several.cache_key()
    config = pretraining("data_augm=MSCFCJ")
    crop = video_crop(config.data_augm)
    assert (crop.crop_size, crop.min_area, crop.color_jitter, crop.flip) == (112, 0.25, 0.4, True)
    assert "crops of 112 of at least 0.25 of the picture" in describe_clips(config)
    assert "data_augm.min_area: must be above 0 and at most 1, got 0" in problem(
        "data_augm=MSCFCJ", "data_augm.min_area=0"
    )
    assert "data_augm.min_short_side: no such key" in problem("data_augm=MSCFCJ", "data_augm.min_short_side=128")


def test_sound_is_augmented_as_the_keys_say_and_not_by_default() -> None:
    pytest.importorskip("torch")
    from earmark.cli.pretrain import sound_augmentation
    from earmark.clips.sound_augmentation import SoundAugmentation

    for name in ("vRCF_aLogMel", "mRCF", "MSCFCJ"):
        assert sound_augmentation(pretraining(f"data_augm={name}").data_augm) == SoundAugmentation()
    keys = {"audio_gain_db": 6, "audio_mix": 0.5, "audio_mix_snr_db": "[0,9]", "spec_time_masks": 2}
    keys |= {"spec_time_width": 30, "spec_mel_masks": 3, "spec_mel_width": 8}
    config = pretraining(*(f"data_augm.{key}={value}" for key, value in keys.items()))
    assert sound_augmentation(config.data_augm) == SoundAugmentation(
        gain_db=6, mix=0.5, mix_snr_db=(0, 9), time_masks=2, time_width=30, mel_masks=3, mel_width=8
    )
    assert problem("data_augm.spec_time_masks=2", "data.audio_seconds=0.64").endswith(
        "2 masks of up to data_augm.spec_time_width=20 frames could hide all 40 of a spectrogram of "
        "data.audio_seconds=0.64"
    )
