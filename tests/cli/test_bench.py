"""The benchmark: what its cells are, which of them are done, and that a killed one goes on with the others."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from earmark.cli.bench import run_bench
from earmark.cli.bench_cells import CellOutcome, Found, require_same_settings, run_cell, stored_results
from earmark.cli.bench_plan import Cell, Places, cells_of, prepare_commands, tuning_cells
from earmark.cli.bench_presets import METHODS, PRESETS, REFERENCE, TASKS, BenchPreset
from earmark.cli.bench_studies import STUDIES, Change, Curve, Variants
from earmark.cli.bench_study_plan import StudyCell, changes_of, points_of, study_cells
from earmark.cli.bench_study_results import study_of
from earmark.cli.bench_tuning import chosen_rates
from earmark.cli.config import ConfigError, EvaluateConfig, PretrainConfig, checked, compose
from earmark.cli.main import main
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.kitchen.training_part import training_videos
from tests.conftest import ROOT
from tests.helpers.tiny_bench import TINY

TRAINED = [method for method, overrides in METHODS.items() if overrides is not None]
RECIPE_PARTS = (
    *("clip_pairs", "four_videos_per_batch", "batch_negatives"),
    *("more_correspondence", "cosine", "sound_augmented", "shared_crop"),
)
RATES = dict.fromkeys(TRAINED, 0.05)  # which no variant sets
OF_METHOD = {"criterion", "logging.name", "optim.args.lr", "optim.epochs", "logging.save_freq"}


def cells_in(out: Path, preset: BenchPreset, **options: Any) -> list[Cell]:
    given = {"methods": list(METHODS), "rates": RATES, "num_batches": dict.fromkeys(TRAINED, 8)}
    return cells_of(preset, Places(out), **given | options)


@pytest.mark.parametrize("name", PRESETS)
def test_methods_differ_in_nothing_but_what_they_are(name: str, tmp_path: Path) -> None:
    for cells in (
        cells_in(tmp_path, PRESETS[name]),
        tuning_cells(PRESETS[name], Places(tmp_path), methods=list(METHODS), num_batches=dict.fromkeys(TRAINED, 8)),
    ):
        shared = set()
        for cell in cells:
            if cell.pretrain is not None:
                overrides = [text for text in cell.pretrain.overrides if text.partition("=")[0] not in OF_METHOD]
                shared.add(tuple(text for text in overrides if text != f"environment.seed={cell.seed}"))
        assert len(shared) == 1
        probes = {
            tuple(
                text
                for text in command.overrides
                if not text.startswith(("logging.name=", "evaluate.checkpoint=", "environment.seed="))
            )
            for cell in cells
            for command in [cell.evaluations["action_recognition"]]
        }
        assert len(probes) == 1


def test_every_method_is_tried_with_every_rate_and_judged_with_every_seed(tmp_path: Path) -> None:
    preset = PRESETS["quick"]
    cells = cells_in(tmp_path, preset)
    assert sorted((cell.method, cell.seed) for cell in cells) == sorted(
        (method, seed) for method in METHODS for seed in preset.seeds
    )
    assert len({cell.name for cell in cells}) == len(cells) == 5 * len(METHODS)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)  # whole seeds first
    tuning = tuning_cells(preset, Places(tmp_path), methods=list(METHODS), num_batches=dict.fromkeys(TRAINED, 8))
    assert sorted((cell.method, cell.lr) for cell in tuning) == sorted(  # type: ignore[type-var]
        (method, lr) for method in TRAINED for lr in preset.rates_tried
    )
    validation = str(Places(tmp_path).kitchen)
    for cell in tuning:
        assert cell.pretrain is not None
        assert cell.seed not in preset.seeds
        for command in (cell.pretrain, *cell.evaluations.values()):
            assert f"data.args.base_path={validation}" not in command.overrides


@pytest.mark.parametrize("name", PRESETS)
def test_the_commands_are_ones_that_earmark_takes(name: str, tmp_path: Path) -> None:
    preset = dataclasses.replace(PRESETS[name], seeds=(3,))
    methods = TRAINED if name == "quick" else [REFERENCE]
    for cell in cells_in(tmp_path, preset, methods=[*methods, "random"]):
        if cell.pretrain is not None:
            config = checked(PretrainConfig, compose("default_ssrl", cell.pretrain.overrides))
            assert (config.environment.seed, config.optim.epochs) == (3, max(1, round(preset.num_steps / 8)))
        if cell.method in (REFERENCE, "random"):
            for task, command in cell.evaluations.items():
                judged = checked(EvaluateConfig, compose("default_lincls", command.overrides))
                assert judged.logging.name == cell.name, task
    for command in prepare_commands(preset, Places(tmp_path), tasks=list(TASKS), tune=True):
        checked(PretrainConfig, compose("default_ssrl", command.overrides), cuts_clips=False)


def test_the_rate_is_chosen_that_is_right_most_often_on_held_out_videos(tmp_path: Path) -> None:
    cells = tuning_cells(TINY, Places(tmp_path), methods=["replai", "avc"], num_batches={"replai": 1, "avc": 1})
    reached = {("replai", 0.01): (10.0, 30.0), ("replai", 0.1): (30.0, 12.0), ("avc", 0.01): (9.0, 9.0)}
    outcomes = {}
    for cell in cells:
        verb, noun = reached.get((cell.method, cell.lr or 0.0), (8.0, 10.0))
        found = Found("", {"verb top-1": verb, "noun top-1": noun}, {})
        outcomes[cell.name] = CellOutcome(cell.name, {"action_recognition": found})
    chosen = chosen_rates(cells, outcomes)
    assert chosen["replai"].lr == 0.1
    assert chosen["replai"].quality == {0.01: 20.0, 0.1: 21.0}
    assert chosen["replai"].on_edge
    assert chosen["avc"].lr == 0.01  # of equals the least
    outcomes[cells[0].name] = CellOutcome(cells[0].name, {}, problem="out of memory")
    with pytest.raises(ValueError, match=f"{cells[0].name}.*out of memory"):
        chosen_rates(cells, outcomes)


def write_stored(folder: Path, values: Any) -> None:
    row = {"label": "verb top-1", "score": {"encoder": {"value": 40.0}, "majority": {"value": 20.0}}}
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"config": values, "rows": [row]}))


def test_results_are_taken_for_those_of_their_own_settings_only(tmp_path: Path) -> None:
    def values(*changes: str, seed: int = 0) -> dict[str, Any]:
        (cell,) = cells_in(tmp_path, dataclasses.replace(PRESETS["quick"], seeds=(seed,)), methods=["replai"])
        return compose("default_lincls", [*cell.evaluations["action_recognition"].overrides, *changes])

    write_stored(tmp_path / "run" / "found", values())
    found = stored_results(tmp_path / "run", values())
    assert found == Found(str(tmp_path / "run" / "found"), {"verb top-1": 40.0}, {"verb top-1": 20.0})
    elsewhere = "evaluate.checkpoint=/moved/checkpoint_0015.pt"
    assert stored_results(tmp_path / "run", values(elsewhere, "environment.workers=3")) == found
    for other in (
        values(seed=1),
        values("evaluate.num_clips=3"),
        values("data.clip_fps=16"),
        values("evaluate.checkpoint=/moved/checkpoint_0014.pt"),
        values("optim.epochs=31"),
    ):
        assert stored_results(tmp_path / "run", other) is None
    (tmp_path / "run" / "damaged").mkdir()
    (tmp_path / "run" / "damaged" / "results.json").write_text('{"rows": 3')
    assert stored_results(tmp_path / "run", values()) == found
    assert stored_results(tmp_path / "absent", values()) is None


def test_a_run_of_other_settings_under_the_name_of_a_cell_is_refused(tmp_path: Path) -> None:
    (cell,) = cells_in(tmp_path, dataclasses.replace(PRESETS["quick"], seeds=(0,)), methods=["replai"])
    assert cell.pretrain is not None
    values = compose("default_ssrl", cell.pretrain.overrides)
    path = tmp_path / "outputs" / cell.name / "config.yaml"
    path.parent.mkdir(parents=True)

    def write() -> None:
        path.write_text(json.dumps(values))  # JSON is YAML, too

    write()
    require_same_settings(cell, tmp_path)
    values["environment"]["workers"], values["data"]["args"]["base_path"] = 9, "/moved"
    values["model"]["compile"] = True  # as found for a device
    del values["criterion"]["args"]["queue_size"]  # a key that came later
    write()
    require_same_settings(cell, tmp_path)
    values["criterion"]["args"]["clr_coeff"] = 0.25
    write()
    with pytest.raises(
        ConfigError, match=r"outputs/.*other settings \(criterion\.args\.clr_coeff is 0\.25, not 0\.5\)"
    ):
        require_same_settings(cell, tmp_path)
    outcome = run_cell(cell, tmp_path)
    assert "clr_coeff is 0.25" in str(outcome.problem)
    assert not outcome.found


@pytest.mark.parametrize("seeds", ["0 0", "-1", "100"])
def test_seeds_that_make_no_grid_are_refused(seeds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--out", str(tmp_path / "b"), "--seeds", *seeds.split()]) == 2
    assert "--seeds" in capsys.readouterr().err


def test_a_folder_of_other_settings_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"format_version": 1, "num_steps": 7}))
    with pytest.raises(ConfigError, match=r"holds a benchmark of other settings.*num_steps"):
        run_bench(TINY, tmp_path)
    (tmp_path / "bench.json").write_text("[")
    with pytest.raises(ConfigError, match=r"bench\.json: not the description"):
        run_bench(TINY, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json"}


def cells_of_study(name: str, preset: BenchPreset, out: Path) -> list[StudyCell]:
    def num_batches(method: str, change: Change) -> int:
        return round(16 / change.batch * change.videos)

    return study_cells(
        name, preset, Places(out), methods=list(METHODS), rates=RATES, num_batches=num_batches, num_workers=0
    )


CHANGED_BY = {  # keys of pretraining beside the run folder's name
    "hours": {"data.args.base_path", "optim.epochs", "logging.save_freq"},
    "idle": {"data.args.base_path"},
    "off_screen": {"data.args.base_path"},
    "moments": {"data.moments", "prepare"},
    "gap": {"data.args.delta_non_overlap"},
    "batch": {"optim.batch_size"},
    "epochs": {"optim.epochs", "logging.save_freq"},
}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("preset_name", PRESETS)
def test_points_of_a_study_differ_from_the_table_in_its_factor_alone(
    name: str, preset_name: str, tmp_path: Path
) -> None:
    preset = PRESETS[preset_name]
    table = {cell.name: cell for cell in cells_in(tmp_path, preset, num_batches=dict.fromkeys(TRAINED, 16))}
    found = cells_of_study(name, preset, tmp_path)
    own: set[str] = set()
    for one in found:
        cell = one.cell
        if cell.name in table:
            assert cell == table[cell.name]
            own.add(one.line)
            continue
        usual = table[f"{cell.method}-lr0.05-seed{cell.seed}"]
        assert cell.pretrain is not None
        assert usual.pretrain is not None
        changed = set(cell.pretrain.overrides) ^ set(usual.pretrain.overrides)
        keys = {text.partition("=")[0] for text in changed} - {"logging.name"}
        assert keys
        if name in CHANGED_BY:
            assert keys <= CHANGED_BY[name], cell.name
        else:
            variant = STUDIES[name].factor
            assert isinstance(variant, Variants)
            assert one.label is not None
            (change,) = (x.change for key, x in variant.variants.items() if (x.shown or key) == one.label)
            of_batch = {"optim.batch_size"} if change.batch != 1 else set()
            of_length = {"optim.epochs", "logging.save_freq"} if change.batch * change.steps != 1 else set()
            assert keys == {text.partition("=")[0] for text in change.overrides} | of_batch | of_length
        for task, command in cell.evaluations.items():  # judged on the videos of the table, as they are
            differing = set(command.overrides) ^ set(usual.evaluations[task].overrides)
            assert {text.partition("=")[0] for text in differing} == {"logging.name", "evaluate.checkpoint"}
    assert own >= {*STUDIES[name].methods, *STUDIES[name].beside}  # every line goes through the table
    grid = {(one.line, one.label, one.cell.seed) for one in found}
    assert len(grid) == len(found)
    assert {one.cell.seed for one in found} == set(preset.seeds)


def test_a_name_means_one_run_in_all_of_a_benchmark(tmp_path: Path) -> None:
    for preset in PRESETS.values():
        named: dict[str, Cell] = {}
        for one in (one for name in STUDIES for one in cells_of_study(name, preset, tmp_path)):
            assert named.setdefault(one.cell.name, one.cell) == one.cell


def test_batches_see_equally_many_samples_and_shares_take_equally_many_steps(tmp_path: Path) -> None:
    preset = PRESETS["paper"]

    def seen(name: str) -> dict[str, tuple[int, int]]:
        found = {}
        for label, method, change in (
            (point.label, point.method, point.change) for point in points_of(STUDIES[name], REFERENCE, preset)
        ):
            batch = round(change.batch * preset.batch_size)
            num_batches = 8192 * change.videos // batch
            (cell,) = (
                one.cell
                for one in study_cells(
                    name,
                    dataclasses.replace(preset, seeds=(0,)),
                    Places(tmp_path),
                    methods=[method],
                    rates=RATES,
                    num_batches=lambda _, asked, n=num_batches: int(n),  # type: ignore[misc]
                )
                if one.label == label
            )
            assert cell.pretrain is not None
            values = dict(text.split("=", 1) for text in cell.pretrain.overrides)
            assert int(values["optim.batch_size"]) == batch
            steps = int(values["optim.epochs"]) * int(num_batches)
            found[label] = (steps, steps * batch)
        return found

    samples = {label: samples for label, (_, samples) in seen("batch").items()}
    assert set(samples) == {"0.25", "0.5", "1", "2"}
    of_halves = {label: samples for label, (_, samples) in seen("half_batches").items()}
    assert of_halves.keys() >= {REFERENCE, "half the batch"}
    assert set(of_halves.values()) == {samples["1"]}
    of_units = {label: samples for label, (_, samples) in seen("sound_units").items()}
    assert of_units.keys() >= {REFERENCE, "half the batch, sound units", "half the batch, quiet times"}
    assert set(of_units.values()) == {samples["1"]}
    of_recipe = seen("earmark")
    assert of_recipe.pop("replai as in the table")[1] == samples["1"]
    long = 4 * preset.num_steps * preset.batch_size
    assert abs(of_recipe.pop(REFERENCE)[1] - long) <= 4096
    assert of_recipe.keys() >= {"half the batch", "half the batch, earmark"}
    assert all(abs(count - 0.85 * long) <= 4096 for _, count in of_recipe.values()), of_recipe
    of_quarters = {label: samples for label, (_, samples) in seen("quarter_batches").items()}
    assert of_quarters.pop(REFERENCE) == samples["1"]
    assert of_quarters.keys() == {"a quarter of the batch", "a quarter of the batch, sound units"}
    seven_eighths = 7 / 8 * preset.num_steps * preset.batch_size
    assert all(abs(count - seven_eighths) <= 4096 for count in of_quarters.values()), of_quarters
    assert all(abs(count - preset.num_steps * preset.batch_size) <= 4096 for count in samples.values())
    steps = {label: steps for label, (steps, _) in seen("hours").items()}
    assert all(abs(count - preset.num_steps) <= 64 for count in steps.values()), steps


def test_the_commands_of_studies_are_ones_that_earmark_takes(tmp_path: Path) -> None:
    preset = dataclasses.replace(PRESETS["quick"], seeds=(3,))
    for name in ("moments", "gap", "recipe", "half_batches", "sound_units", "earmark", "quarter_batches"):
        changed = [one.cell for one in cells_of_study(name, preset, tmp_path) if one.line == REFERENCE]
        for cell in changed if name != "gap" else changed[:1]:
            if cell.pretrain is not None and f"-{name}_" in cell.name:
                checked(PretrainConfig, compose("default_ssrl", cell.pretrain.overrides))


def test_the_recipe_is_what_its_parts_add_up_to(tmp_path: Path) -> None:
    preset = dataclasses.replace(PRESETS["small"], seeds=(0,))
    cells = {one.label: one.cell for one in cells_of_study("earmark", preset, tmp_path)}

    def config_of(label: str) -> PretrainConfig:
        pretrain = cells[label].pretrain
        assert pretrain is not None
        return checked(PretrainConfig, compose("default_ssrl", pretrain.overrides))

    added = {}
    for label in ("half the batch", "half the batch, sound units", "half the batch, quiet times"):
        config = config_of(label)
        args = config.criterion.args
        added[label] = (args.sound_unit_coeff, args.moment_detection_coeff, config.data.quiet_share)
    assert list(added.values()) == [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0.25)]
    config = config_of("half the batch, earmark")
    args = config.criterion.args
    assert (args.sound_unit_coeff, args.moment_detection_coeff, config.data.quiet_share) == (0.5, 0.5, 0.25)
    assert (args.clr_coeff, args.aot_coeff, config.data.moments) == (0.5, 0.5, "audible")
    assert config.optim.args.lr == config_of(REFERENCE).optim.args.lr


def test_the_own_value_of_a_preset_is_among_the_points() -> None:
    for preset in PRESETS.values():
        for study in STUDIES.values():
            for line in study.methods:
                points = points_of(study, line, preset)
                assert [point.change for point in points].count(Change()) >= 1
                if isinstance(study.factor, Curve):
                    own = [point.value for point in points if point.change == Change()]
                    assert own == [study.factor.of_preset(preset)]
                    values = [point.value or 0.0 for point in points]
                    assert values == sorted(set(values))
    full = PRESETS["full"]
    assert ("replai", Change()) in changes_of(["off_screen"], full, ["replai"])
    assert [point.label for point in points_of(STUDIES["off_screen"], "replai", full)] == ["0.1", "0.3", "1"]


def test_random_moments_of_replai_are_the_method_of_the_table(tmp_path: Path) -> None:
    preset = dataclasses.replace(PRESETS["quick"], seeds=(0,))
    cells = {(one.line, one.label): one.cell.name for one in cells_of_study("moments", preset, tmp_path)}
    assert cells["replai", "random times"] == "replai_random-lr0.05-seed0"
    assert cells["astc", "random times"] == "astc-lr0.05-moments_random-seed0"
    assert cells["random", None] == "random-seed0"


def test_studies_of_other_methods_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["bench", "--out", str(tmp_path / "b"), "--studies", "gap", "hours", "--methods", "supervised"])
    assert code == 2
    assert "--methods: none is pretrained by gap, which are about replai" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_point_without_a_batch_is_left_out_and_named_with_its_reason(tmp_path: Path) -> None:
    preset = dataclasses.replace(PRESETS["quick"], seeds=(0,))
    points = {point.label: point.change for point in points_of(STUDIES["hours"], REFERENCE, preset)}
    left_out = {(REFERENCE, points["0.125"]): "31 segments make no batch of 32"}
    cells = study_cells(
        "hours",
        preset,
        Places(tmp_path),
        methods=[REFERENCE],
        rates=RATES,
        num_batches=lambda method, change: 4,
        left_out=left_out.keys(),
    )
    assert [one.label for one in cells] == ["0.25", "0.5", "1", None]
    make_kitchen(tmp_path / "kitchen", size=KitchenSize(2, 4, 5, width=64, height=64, fps=4, sample_rate=16000))
    outcomes = {one.cell.name: CellOutcome(one.cell.name) for one in cells}
    study = study_of("hours", preset, Places(tmp_path), cells, outcomes, left_out=left_out)
    assert list(study.places) == ["0.25", "0.5", "1"]
    hours = preset.kitchen.video_seconds / 3600
    count = len(training_videos(tmp_path / "kitchen"))
    assert list(study.places.values()) == [max(round(share * count), 1) * hours for share in (0.25, 0.5, 1)]
    assert study.words.endswith("0.125 is left out: 31 segments make no batch of 32.")


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_with_the_cells_that_are_not_done(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "bench"
    command = [sys.executable, "-m", "tests.helpers.tiny_bench", str(out)]

    def results() -> dict[str, int]:
        return {path.parent.parent.name: path.stat().st_mtime_ns for path in out.glob("outputs/*/*/results.json")}

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    stop = time.monotonic() + 300
    while len(results()) < 2 and process.poll() is None and time.monotonic() < stop:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = results()
    assert 2 <= len(first) < 6, (tmp_path / "log").read_text()

    listed = subprocess.run([*command, "--list"], env=environment, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    programs = [line.split()[:2] for line in listed.stdout.splitlines()]
    assert programs.count(["earmark", "pretrain"]) == 4
    assert programs.count(["earmark", "evaluate"]) == 6
    assert results() == first

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name: results()[name] for name in first} == first  # not made again
    assert done.stderr.count("(done before)") == len(first)
    content = json.loads(done.stdout)
    assert [cell["name"] for cell in content["cells"]] == [
        f"{method}-seed{seed}" for seed in (0, 1) for method in ("random", "supervised-lr0.1", "replai-lr0.1")
    ]
    assert all(cell["problem"] is None for cell in content["cells"])
    entries = {(entry["method"], entry["measure"]): entry for entry in content["table"]["entries"]}
    assert len(entries) == 6
    for cell in content["cells"]:
        (folder,) = cell["results"]
        stored = json.loads((Path(folder) / "results.json").read_text())
        by_seed = entries[cell["method"], "verb top-1"]["over_seeds"]["by_seed"]
        assert by_seed[str(cell["seed"])] == stored["headline"]["value"]
    for name in ("table.txt", "table.csv", "table.tex", "report.html", "results.json"):
        assert (out / name).stat().st_size > 0
    require_recipe(out, entries["replai", "verb top-1"]["over_seeds"]["by_seed"]["0"], first, results)
    require_hours(out)


def require_recipe(
    out: Path, first_number: float, first: dict[str, int], results: Callable[[], dict[str, int]]
) -> None:
    """Run a study in the folder of a benchmark that is through, whose runs and page it shares."""
    recipe = dataclasses.replace(TINY, seeds=(0,))
    assert run_bench(recipe, out, methods=["random", "replai"], studies=["recipe"], num_jobs=1) == 0
    assert {name: results()[name] for name in first} == first
    study = json.loads((out / "studies/recipe.json").read_text())
    names = [cell["name"] for cell in study["cells"]]
    assert names == [
        "replai-lr0.1-seed0",  # of the table
        *(f"replai-lr0.1-recipe_{part}-seed0" for part in RECIPE_PARTS),
        "random-seed0",
    ]
    ((line, table),) = study["study"]["lines"]
    assert line == "replai"
    values = {(entry["method"], entry["measure"]): entry["over_seeds"]["by_seed"] for entry in table["entries"]}
    assert values["replai", "verb top-1"] == {"0": first_number}
    assert len(values) == 2 * (1 + len(RECIPE_PARTS))
    for ending in ("csv", "txt", "tex", "svg"):
        assert (out / f"studies/recipe.{ending}").stat().st_size > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Parts of the recipe" in page  # beside the table, which another call made
    assert "Means over seeds</h2>" in page
    (out / "results.json").write_text("[")
    assert run_bench(recipe, out, methods=["random", "replai"], studies=["recipe"], num_jobs=1) == 0
    assert "Means over seeds</h2>" not in (out / "report.html").read_text(encoding="utf-8")


def require_hours(out: Path) -> None:
    """Run a study one of whose points has too few videos for a batch."""
    preset = dataclasses.replace(TINY, seeds=(0,))
    assert run_bench(preset, out, methods=["replai"], studies=["hours"], num_jobs=1) == 0
    content = json.loads((out / "studies/hours.json").read_text())["study"]
    assert re.search(r" 0\.125 is left out: replai: \d+ segments? to train on make no batch of 4", content["words"])
    places = dict(content["places"])
    assert "0.125" not in places
    ((_, table),) = content["lines"]
    assert {entry["method"] for entry in table["entries"]} == places.keys()
    assert "1" in places
    assert "0.125 is left out" in (out / "report.html").read_text(encoding="utf-8")
