"""The command line: what its commands print, write and answer with, and how they say no."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark import __version__
from earmark.cli import doctor
from earmark.cli.build import build_encoder, build_fabric, open_dataset, open_store, store_path
from earmark.cli.config import ConfigError, quoted
from earmark.cli.main import command_parser, main, parsed
from earmark.cli.terminal import clock
from earmark.kitchen import PRESETS, Difficulty, KitchenSize, Preset, make_kitchen
from tests.helpers.clicking import make_video
from tests.helpers.command_lines import PUBLISHED_PRETRAINING, PUBLISHED_PROBE, SMALL_ENCODERS, configured

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*arguments: str, cwd: Path, program: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, as a user does."""
    code = "import sys; from earmark.cli.main import main; sys.exit(main())"
    command = [sys.executable, program] if program else [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kitchen of six short videos with small pictures."""
    out = tmp_path_factory.mktemp("cli") / "kitchen"
    sizes = {"num_kitchens": 3, "videos_per_kitchen": 2, "width": 96, "height": 64, "fps": 8, "sample_rate": 16000}
    make_kitchen(out, size=KitchenSize(video_seconds=15, **sizes), progress=False)
    return out


# --- starting ---


def test_help_and_version_start_without_the_heavy_libraries(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from earmark.cli.main import main
        for arguments in (["--help"], ["--version"], ["moments", "--help"]):
            try:
                main(arguments)
            except SystemExit as stop:
                assert stop.code == 0, stop.code
        print(sorted({"torch", "hydra", "omegaconf", "av", "numpy", "rich", "pyarrow"} & set(sys.modules)))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"earmark {__version__}" in done.stdout
    for command in ("demo", "kitchen", "moments", "prepare", "pretrain", "evaluate", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["moments"], ["moments", "--min-score", "-1", "x"], ["kitchen"]]
)
def test_wrong_usage_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: earmark" in capsys.readouterr().err


def test_faults_of_the_program_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_an_interrupt_ends_with_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == 130


# --- times ---


def test_clock_rounds_and_carries() -> None:
    assert [clock(t) for t in (0, 1.1314, 59.9996, 3723.4)] == ["0:00.000", "0:01.131", "1:00.000", "62:03.400"]


@pytest.mark.parametrize(
    ("given", "waits_by"),
    [
        ({}, "passive 1000"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
        ({"KMP_BLOCKTIME": "0"}, "None None"),
    ],
)
def test_threads_wait_asleep_unless_the_user_says_how(given: dict[str, str], waits_by: str) -> None:
    code = """
import os, sys
from earmark.cli.main import command_parser, main, parsed
assert "torch" not in sys.modules  # the library reads it when torch is loaded
main(["moments", "no_such_file.wav"])
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""
    names = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"}
    environ = {name: value for name, value in os.environ.items() if name not in names}
    environ |= {"PYTHONPATH": str(ROOT / "src"), **given}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == waits_by


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0")])
def test_tensors_lie_in_huge_pages_unless_the_user_says_otherwise(given: dict[str, str], expected: str) -> None:
    pytest.importorskip("torch")
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not switch.exists() or "[madvise]" not in switch.read_text():
        pytest.skip("this system does not give huge pages on request")
    code = """
import os, re
from earmark.cli.main import main
main(["moments", "no_such_file.wav"])
import torch
tensor = torch.ones(2**26)  # 256 MiB
rollup = open("/proc/self/smaps_rollup").read()
print(os.environ["THP_MEM_ALLOC_ENABLE"], int(re.search(r"AnonHugePages: *([0-9]+) kB", rollup)[1]) >= 2**17)
"""
    environ = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    environ |= {"PYTHONPATH": str(ROOT / "src"), **given}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, str(expected == "1")]


# --- doctor ---


def test_doctor_finds_what_the_core_needs_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--data-dir", "not/yet/there"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["torch"]["found"] == torch.__version__
    assert findings["GPU"]["ok"] == torch.cuda.is_available()
    assert {"h264 decoder", "libx264 encoder", "mjpeg encoder", "opus decoder", "disk", "memory"} <= set(findings)
    assert all(finding["ok"] for finding in findings.values() if finding["required"])


def test_doctor_names_what_is_missing_for_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.LIBRARIES, "earmark_no_such_library", "hearing")
    monkeypatch.setattr(doctor, "CODECS", (("no_such_codec", "r", "seeing", True),))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing for the core: no_such_codec decoder, earmark_no_such_library" in " ".join(out.split())
    assert "hearing" in out


def test_doctor_survives_a_library_that_breaks_on_import(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken_library.py").write_text("raise OSError('libfoo.so: cannot open\\nmore')")
    monkeypatch.syspath_prepend(".")
    monkeypatch.setitem(doctor.OPTIONAL_LIBRARIES, "broken_library", "nothing")
    finding = doctor.examine(".")[-1]
    assert (finding.name, finding.ok, finding.required) == ("broken_library", False, False)
    assert finding.found == "cannot be imported: libfoo.so: cannot open"
    assert finding.install == "pip install --force-reinstall broken_library"


def test_doctor_gives_a_command_beside_whatever_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {**doctor.LIBRARIES, **doctor.OPTIONAL_LIBRARIES}
    for name in libraries:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    findings = {finding.name: finding for finding in doctor.examine(".") if finding.name in libraries}
    assert findings.keys() == libraries.keys()
    assert findings["cv2"].install == "pip install opencv-python-headless"
    assert findings["transformers"].install == "pip install 'earmark[hf]'"
    known = {re.split(r"[>=<]", text)[0] for text in PROJECT["dependencies"]}
    known |= {f"'earmark[{extra}]'" for extra in PROJECT["optional-dependencies"]}
    for finding in findings.values():
        assert not finding.ok
        assert finding.install.removeprefix("pip install ") in known


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        (("2.9.0", 91002, "12.8"), "switched off"),
        (("2.9.0+cu130", 91300, "13.0"), "switched off"),
        (("2.9.1", 91002, "12.8"), "9.10.2 is wrong"),
        (("2.8.0", 91002, "12.8"), "9.10.2 is wrong"),
        (("2.8.0", 91001, "12.8"), "9.10.1 is slow"),
        (("2.7.1", 90800, "12.6"), "9.8.0 is slow"),
        (("2.10.0", 91401, "12.8"), "9.14.1 is slow"),
        (("2.10.0", 91500, "12.8"), None),
        (("2.7.0", 90701, "12.6"), None),
        (("2.6.0", 90100, "12.4"), None),
        (("2.13.0", 92000, "13.0"), None),
        (("2.90.0", 92000, "13.0"), None),
    ],
)
def test_doctor_knows_torch_whose_3d_convolutions_are_broken(versions: tuple[str, int, str], problem: str) -> None:
    found = doctor.convolution_problem(*versions)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found[0]
        torch_too = "torch" if "off" in problem else f"nvidia-cudnn-cu{versions[2][:2]}"
        assert found[1].startswith(f"pip install '{torch_too}>")


# --- kitchen ---


def test_names_with_brackets_are_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    Path("clips").mkdir()
    for name in ("[abc] cut", "end [b]"):
        Path(f"clips/{name}.mp4").write_bytes(b"no video")
    assert main(["prepare", "data=folder", "data.args.base_path=clips", "prepare.workers=1"]) == 1
    printed = capsys.readouterr().out
    assert "[abc] cut: " in printed
    assert "end [b]: " in printed
    assert main(["doctor", "--data-dir", str(Path("[x]/[/y]").absolute())]) == 0
    Path("[x]").mkdir()
    assert main(["doctor", "--data-dir", "[x]"]) == 0
    assert "[x]" in capsys.readouterr().out


def test_kitchen_is_generated_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--kitchens", "1", "--videos", "1", "--seconds", "5", "--width", "64", "--height", "64", "--fps", "8"]
    assert main(["kitchen", "out", "--preset", "tiny", *small, "--workers", "1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["path"], made["num_videos"], made["num_new_videos"]) == ("out", 1, 1)
    assert Path("out/P01/videos/P01_01.MP4").is_file()
    shares = {"silent_share": 0.1, "off_screen_share": 0.2, "idle_motion_share": 0.3, "babble_share": 0.4}
    difficulty = shares | {"plan_share": 0.5, "noise_db": -6.0}
    flags = [part for name, value in difficulty.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["kitchen", "hard", "--preset", "tiny", *small, *flags]) == 0
    assert difficulty.items() <= json.loads(Path("hard/kitchen.json").read_text()).items()
    capsys.readouterr()
    assert main(["kitchen", "out", "--preset", "tiny", *small, "--seed", "1"]) == 1
    assert "earmark kitchen: out" in capsys.readouterr().err


# --- Hydra commands ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pretrain", "optim.args.lrr=1"], "earmark pretrain: optim.args.lrr: no such key; did you mean optim.args.lr"),
        (["pretrain", "-m", "optim.args.lr=0.1,-1"], "earmark pretrain: optim.args.lr: must be above 0, got -1.0"),
        (["evaluate", "data=foldr"], "did you mean folder?"),
        (["prepare", "optim.batch_size=0"], "earmark prepare: optim.batch_size: must be at least 1, got 0"),
        (["pretrain", "optim.epochs=1,2"], "earmark pretrain: optim.epochs: several values need a sweep (-m)"),
        (["pretrain", "--config-name=default_srl"], "did you mean default_ssrl"),
        (["pretrain", "--config-path=elsewhere"], "--config-path: give a folder of your own configurations"),
        (["prepare", "data=folder"], "earmark prepare: data.args.base_path: is missing"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_starts(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_configuration_ends_a_real_process_without_a_trace(tmp_path: Path) -> None:
    commands = [
        (run("pretrain", "-m", "optim.epochs=1,abc", cwd=tmp_path), "optim.epochs: expected an integer, got 'abc'"),
        (run("--config-name=default_lincls", "data=foldr", cwd=tmp_path, program=str(ROOT / "main.py")), "folder?"),
        (run("evaluate", "logging.name=nothing_there", cwd=tmp_path), "no run with a checkpoint in"),
    ]
    for done, expected in commands:
        assert done.returncode == 2
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("config_name", "published"),
    [("default_ssrl", PUBLISHED_PRETRAINING), ("default_lincls", PUBLISHED_PROBE)],
)
def test_the_published_commands_are_understood_by_main_py(config_name: str, published: str, tmp_path: Path) -> None:
    arguments = [f"--config-name={config_name}", *published.split(), "--cfg=job"]
    done = run(*arguments, cwd=tmp_path, program=str(ROOT / "main.py"))
    assert done.returncode == 0, done.stderr
    assert "name: epic_git1" in done.stdout
    assert ("criterion:" in done.stdout) == (config_name == "default_ssrl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("one_thread")
def test_videos_to_judged_encoder_through_the_commands(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prepare, pretrain a sweep, go on with one run, evaluate it: every command finds what the one before left."""
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"]
    assert main(["prepare", *data]) == 0
    assert "6 (0 already done)" in capsys.readouterr().out

    training = [*data, *SMALL_ENCODERS, "optim.batch_size=2", "logging.print_freq=1", "optim.use_lr_scheduler=false"]
    assert main(["pretrain", *training, "-m", "logging.name=a", "optim.epochs=1", "optim.args.lr=0.01,0.001"]) == 0
    outputs = tmp_path / "earmark_data/outputs"
    runs = {path.parent.name: path for path in outputs.glob("*/metrics.jsonl")}
    assert set(runs) == {"a_optim.args.lr=0.01", "a_optim.args.lr=0.001"}
    rates = {json.loads(path.read_text().splitlines()[1])["lr"] for path in runs.values()}
    assert rates == {0.01, 0.001}

    named = ["logging.name=a_optim.args.lr=0.01", "optim.args.lr=0.01", "optim.epochs=1"]
    before = runs["a_optim.args.lr=0.01"].read_text()
    capsys.readouterr()
    assert main(["pretrain", *training, *named]) == 0  # finished: nothing is left to do
    assert runs["a_optim.args.lr=0.01"].read_text() == before
    assert main(["pretrain", *training, *named, "optim.args.momentum=0.5"]) == 1
    assert "optim.args.momentum" in capsys.readouterr().err

    assert main(["pretrain", *training, *named, "environment.precision=64-true"]) == 1
    assert "environment.precision (32-true there, 64-true here)" in capsys.readouterr().err

    judging = ["data_augm.crop_size=32", "evaluate.num_clips=1", "optim.epochs=2", "optim.schedule=[1]"]
    judging += ["optim.gamma=0.5", "optim.args.momentum=0.8"]
    assert main(["evaluate", *data, named[0]]) == 2
    assert "was trained with data_augm.crop_size=32, this is to judge it with data_augm.crop_size=112" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", *data, *judging, named[0]]) == 0
    printed = capsys.readouterr()
    assert "verb top-1" in " ".join(printed.out.split())
    assert "holds the encoder avid_r2plus1d_10 of width 4: the avid_r2plus1d_18 of width 64 of" in printed.err
    (judged,) = (outputs / "a_optim.args.lr=0.01_eval").glob("*/")
    assert judged.name.startswith("checkpoint_0001-validation-")
    results = json.loads((judged / "results.json").read_text())
    assert results["checkpoint"].endswith("a_optim.args.lr=0.01/checkpoints/checkpoint_0001.pt")
    assert {column["column"] for column in results["columns"]} == {"verb", "noun", "action"}
    assert results["config"]["backbone"]["video"]["name"] == "avid_r2plus1d_10"
    assert results["config"]["backbone"]["video"]["args"]["width"] == 4
    probe = results["options"]["probe"]
    assert (probe["milestones"], probe["gamma"], probe["momentum"]) == ([1], 0.5, 0.8)
    assert all(column["top1"]["baseline"] is not None for column in results["columns"])
    assert "<html" in (judged / "report.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"earmark_data"}  # Hydra left nothing beside the run folders
    assert {path.name for path in (tmp_path / "earmark_data").iterdir()} == {"features", "outputs", "prepared"}


@pytest.mark.usefixtures("one_thread")
def test_footage_with_any_name_added_later_is_prepared_and_the_store_outlives_it(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "Küche, 1=a" / "it's mine"
    clips.mkdir(parents=True)
    sources = sorted(kitchen.glob("P*/videos/*.MP4"))
    shutil.copy(sources[0], clips / "one.mp4")
    # a comma is Hydra's own sign for several values, so this value comes in quotes; "./" needs none
    where = [f"data.args.base_path={quoted('Küche, 1=a/it' + chr(39) + 's mine')}", "data=folder"]
    training = [*where, *SMALL_ENCODERS, "prepare.short_side=64", "environment.workers=0", "optim.batch_size=1"]
    assert main(["pretrain", *training, "logging.name=one", "optim.epochs=1"]) == 0
    assert "pretraining on 2 segments" in capsys.readouterr().err
    shutil.copy(sources[1], clips / "two.mp4")
    assert main(["pretrain", *training, "logging.name=two", "optim.epochs=1"]) == 0
    told = capsys.readouterr().err
    assert "was prepared: 1 video" in told
    assert "pretraining on 4 segments" in told
    clips.rename(tmp_path / "gone")
    assert main(["pretrain", *training, "logging.name=three", "optim.epochs=1"]) == 0
    told = capsys.readouterr().err
    assert "is used as it was prepared" in told
    assert "pretraining on 4 segments" in told


@pytest.mark.usefixtures("one_thread")
def test_a_failing_job_does_not_stop_the_others_of_a_sweep(kitchen: Path, tmp_path: Path) -> None:
    data = [f"data.args.base_path={kitchen}", "prepare.short_side=64", "prepare.workers=1", "environment.workers=0"]
    training = [*data, *SMALL_ENCODERS, "optim.batch_size=2", "optim.epochs=1", "criterion.args.in_dim=7,8,null"]
    done = run("pretrain", "-m", *training, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("criterion.args.in_dim: ") == 2
    assert "Traceback" not in done.stderr
    dated = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[20")]
    assert not dated  # neither date nor module nor level
    runs = [path.parents[1].name for path in (tmp_path / "earmark_data/outputs").glob("*/checkpoints/*.pt")]
    assert runs == ["default_criterion.args.in_dim=null"]


# --- from the configuration to objects ---


def test_the_store_is_named_by_what_its_content_depends_on() -> None:
    def path(*overrides: str) -> Path:
        config = configured("data=folder", "data.args.base_path=clips", *overrides)
        return store_path(config.data, config.environment, config.prepare)

    assert path() == path("prepare.workers=3") == path("data.args.delta_non_overlap=0.2")
    assert path().parent == Path("earmark_data/prepared")
    assert path().name.startswith("folder-")
    assert len({path(), path("prepare.short_side=256"), path("prepare.fps=32"), path("data.args.base_path=other")}) == 4
    assert path("data.store=here") == Path("here")


def test_a_store_of_the_original_detector_keeps_the_name_it_had_when_there_was_no_other() -> None:
    def name(*overrides: str) -> str:
        config = configured("data.args.base_path=/videos", *overrides)
        return store_path(config.data, config.environment, config.prepare).name

    assert name("data=epic_10s_audiopeak") == "epic_kitchens-75546e6d"  # as version 0.1 named it
    assert name("data=epic_10s_audiopeak", "prepare=default") != "epic_kitchens-75546e6d"
    assert name("data=folder") != name("data=folder", "prepare=replai")


def test_a_store_prepared_otherwise_than_asked_for_is_refused(kitchen: Path) -> None:
    where = [f"data.args.base_path={kitchen}", "data.store=here", "prepare.workers=1"]
    config = configured(*where, *SMALL_ENCODERS, "prepare.short_side=32")
    open_store(config.data, config.environment, config.prepare)
    assert open_store(config.data, config.environment, config.prepare).parameters["short_side"] == 32
    other = configured(*where, *SMALL_ENCODERS, "prepare.short_side=48")
    with pytest.raises(ConfigError, match=r"was prepared with prepare\.short_side=32, not with prepare\.short_side=48"):
        open_store(other.data, other.environment, other.prepare)


def test_prepared_videos_below_the_folder_are_no_sources() -> None:
    for name in ("a.mp4", "earmark_data/prepared/x/videos/a.mov", "store/videos/a.mov"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for overrides, expected in (
        (["data.store=store"], ["a"]),
        ([], ["a", "store/videos/a"]),
        (["environment.data_dir=."], ["a", "earmark_data/prepared/x/videos/a", "store/videos/a"]),
    ):
        config = configured("data=folder", "data.args.base_path=.", *overrides)
        assert [video.video_id for video in open_dataset(config.data, config.environment).videos()] == expected


def test_the_kitchen_is_generated_once_below_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"num_kitchens": 1, "videos_per_kitchen": 1, "video_seconds": 5, "width": 64, "height": 64, "fps": 8}
    monkeypatch.setitem(PRESETS, "tiny", Preset(KitchenSize(**sizes), Difficulty()))
    config = configured("data.args.preset=tiny", "data.args.seed=3")
    for expected in (1, 0):
        dataset = open_dataset(config.data, config.environment)
        assert [video.video_id for video in dataset.videos()] == ["P01_01"]
        assert capsys.readouterr().err.count("generating Audible Kitchen, preset tiny") == expected
    assert Path("earmark_data/kitchen/tiny_seed3/P01/videos/P01_01.MP4").is_file()


def test_pretrained_weights_come_from_the_file_named_or_from_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    small = ("backbone/video=avid_r2plus1d_18", "backbone.video.args.width=4", "backbone.video.args.pretrained=true")
    config = configured(*small)
    with pytest.raises(ConfigError) as caught:
        build_encoder(config.backbone.video, config.environment)
    file = "AVID_Audioset_Cross-N1024_checkpoint.pth.tar"
    for part in (
        "backbone.video.args.pretrained: ",
        "fetch that file from https://github.com/facebookresearch/AVID-CMA",
        file,
        "put it into earmark_data/weights",
        "backbone.video.args.weights=FILE",
        "EARMARK_WEIGHTS",
    ):
        assert part in str(caught.value)
    trained = build_encoder(configured(*small[:-1]).backbone.video, config.environment)
    Path("earmark_data/weights").mkdir(parents=True)
    state = {f"module.video_model.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"model": state}, f"earmark_data/weights/{file}")
    torch.save({"model": state}, "mine.pth")
    mine = "backbone.video.args.weights=mine.pth"
    for overrides, expected in (small, f"earmark_data/weights/{file}"), ((*small, mine), "mine.pth"):
        loaded = build_encoder(configured(*overrides).backbone.video, config.environment)
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in trained.state_dict().items())
        assert f"video encoder: {expected} (checkpoint of AVID or AVID-CMA): loaded all" in capsys.readouterr().err


def test_weights_of_a_model_of_hugging_face_come_from_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers", reason="needs earmark[hf]")
    tiny = transformers.VideoMAEConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = transformers.VideoMAEModel(tiny)
    model.save_pretrained("tiny")
    chosen = ("backbone/video=hf_video", "backbone.video.args.model=tiny")
    config = configured(*chosen, "backbone.video.args.pretrained=true")
    encoder = build_encoder(config.backbone.video, config.environment)
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key.removeprefix("model.")]) for key, value in encoder.state_dict().items())
    assert "video encoder: weights of tiny" in capsys.readouterr().err
    Path("tiny/config.json").unlink()
    with pytest.raises(ConfigError, match=r"backbone\.video: tiny: not a model that transformers knows"):
        build_encoder(configured(*chosen).backbone.video, config.environment)


def test_more_gpus_than_there_are_give_one_process_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fabric = build_fabric(configured("environment.ngpu=4").environment)
    assert (fabric.world_size, fabric.device.type) == (1, "cpu")
    assert capsys.readouterr().err.count("one process on the CPU is used") == 1
    with pytest.raises(ConfigError, match=r"environment\.accelerator: cuda is asked for"):
        build_fabric(configured("environment.accelerator=cuda").environment)


def test_a_head_size_that_does_not_fit_the_encoder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from earmark.cli.method import build_encoders, build_model

    with pytest.raises(ConfigError, match=r"criterion\.args\.in_dim: 512, but the video encoder puts out 32"):
        build_encoders(configured(*SMALL_ENCODERS, "criterion.args.in_dim=512"))
    config = configured(*SMALL_ENCODERS, "criterion.args.in_dim=32", "criterion.args.out_dim=16")
    model: Any = build_model(config, build_encoders(config), num_samples=4, num_classes={})
    assert model.mlp["aot_diff"][2].out_features == 16


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["backbone/audio=cnn10", "backbone.audio.args.num_mels=64", "data.audio_seconds=0.1"],
            r"backbone\.audio: cannot take an input of 1 x 11 x 64 \(data\.audio_seconds=0\.1\)",
        ),
        (
            ["backbone/audio=cnn10", "data.audio_seconds=0.1"],
            r"backbone\.audio: cannot take an input of 1 x 6 x 80 \(data\.audio_seconds=0\.1\)",
        ),
    ],
)
def test_an_encoder_that_cannot_take_its_input_is_told_before_videos_are_prepared(
    overrides: list[str], expected: str
) -> None:
    from earmark.cli.method import build_encoders

    video = ["backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4"]
    with pytest.raises(ConfigError, match=expected):
        build_encoders(configured(*video, *overrides))
    build_encoders(configured(*video, "backbone/audio=cnn10", "backbone.audio.args.num_mels=64"))  # its own spectrogram
    encoders = build_encoders(configured(*video, "backbone/audio=cnn10"))
    assert all(encoder.training for encoder in encoders.values())
    running = encoders["video"].get_buffer("conv1.1.num_batches_tracked")
    assert running == 0


def test_preparing_for_clips_of_other_settings_is_noted_and_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "sources" / "one.mp4")
    where = [f"data.args.base_path={tmp_path / 'sources'}", f"environment.data_dir={tmp_path}", "prepare.workers=1"]
    assert main(["prepare", "data=folder", *where, "prepare.fps=8"]) == 0
    shown = capsys.readouterr().err
    assert "note: `earmark pretrain` with these settings would refuse this store: data.clip_fps: 16 frames" in shown
    assert main(["pretrain", "data=folder", *where, "prepare.fps=8"]) == 2
    assert "data.clip_fps: 16 frames per second need more than prepare.fps=8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "flags", "name"),
    [
        ("moments", ["--quiet"], "files"),
        ("check", ["--json"], "overrides"),
        ("prepare", ["--verify"], "overrides"),
        ("audio", ["--out", "a.hdf5"], "overrides"),
        ("features", ["--model", "m", "--out", "d"], "inputs"),
    ],
)
def test_files_and_overrides_may_stand_anywhere_between_flags(
    command: str, flags: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = parsed(command_parser(command), [command, "one", *flags, "two", "three"])
    assert getattr(options, name) == ["one", "two", "three"]
    with pytest.raises(SystemExit) as stopped:
        parsed(command_parser(command), [command, "one", *flags, "two", "--no-such-flag", "three"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: two --no-such-flag three" in capsys.readouterr().err
