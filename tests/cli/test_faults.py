"""Ordinary faults as a user meets them: unwritable folders, closed and full streams, full disks, odd names."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile

from earmark.cli.main import main
from tests.conftest import ROOT
from tests.helpers.click_sound import RATE, clicks

HOSTILE = "a\x1b[2J\x07\n\u202egpj\u2028\u00fc.wav"  # clears a terminal, rings, forges a line, turns round
HOSTILE_SHOWN = "a\\x1b[2J\\x07\\n\\u202egpj\\u2028\u00fc.wav"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_clicks(path: str, times_seconds: list[float]) -> None:
    wave = clicks(*times_seconds, duration_seconds=10.0)
    scipy.io.wavfile.write(path, RATE, (32767 * np.clip(wave, -1, 1)).astype(np.int16))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "earmark", *arguments]


def environment(**given: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **given}


# --- folders that cannot be written ---

BELOW_A_FILE = "file/data"
ELSEWHERE = f"environment.data_dir={BELOW_A_FILE}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["kitchen", BELOW_A_FILE],
        ["kitchen", "--contact-sheet", f"{BELOW_A_FILE}/sheet.png"],
        ["demo", "--out", BELOW_A_FILE],
        ["moments", "a.wav", "--out", f"{BELOW_A_FILE}/moments.csv"],
        ["moments", "a.wav", "--plot", f"{BELOW_A_FILE}/page.html"],
        ["moments", "a.wav", "a.wav", "--plot", BELOW_A_FILE],
        ["moments", "a.wav", "--clips", BELOW_A_FILE],
        ["prepare", "data=folder", "data.args.base_path=.", ELSEWHERE],
        ["prepare", "data=folder", "data.args.base_path=.", f"data.store={BELOW_A_FILE}"],
        ["prepare", ELSEWHERE],
        ["pretrain", ELSEWHERE],
        ["evaluate", ELSEWHERE],
    ],
)
def test_a_folder_that_cannot_be_written_is_named_before_any_work(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    write_clicks("a.wav", [3.0])
    Path("file").write_text("in the way")
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 1
    err = capfd.readouterr().err
    (told,) = [line for line in err.splitlines() if not line.startswith(("(EARMARK_DEBUG", "note: "))]
    assert re.fullmatch(rf"earmark {arguments[0]}: .*/file(/\S+)?: cannot be written to: not a directory", told)
    assert sorted(Path().rglob("*")) == before


# --- streams ---


def run_with_streams(arguments: list[str], *, stdout: str, stderr: str = "pipe") -> tuple[int, str, str]:
    """Run a command with standard streams that are read (pipe), closed, full, or that nobody reads (broken)."""
    script = " ".join(f"'{word}'" for word in command(*arguments))
    to = {"pipe": "", "closed": ">&-", "full": ">/dev/full", "broken": ""}
    script += f" {to[stdout]} {to[stderr].replace('>', '2>', 1)}"
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            stdout=write_end if stdout == "broken" else subprocess.PIPE,
            stderr=write_end if stderr == "broken" else subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
    return done.returncode, done.stdout or "", done.stderr or ""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with many runs, each with a line of metrics."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(40):
        run = folder / "outputs" / f"run_{number:03d}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("optim: {epochs: 3}\n")
        (run / "metrics.jsonl").write_text(json.dumps({"kind": "epoch", "epoch": 1, "step": 5, "loss": 1.5}) + "\n")
    return folder


TABLES = [["runs"], ["runs", "--json"], ["moments", "a.wav"], ["moments", "a.wav", "--json"], ["moments", "--help"]]


@pytest.mark.parametrize("arguments", TABLES)
def test_a_command_whose_reader_has_seen_enough_ends_without_a_word(arguments: list[str], run_folder: Path) -> None:
    write_clicks("a.wav", [3.0])
    if arguments[0] == "runs":
        arguments = [*arguments, "--data-dir", str(run_folder)]
    code, _, err = run_with_streams(arguments, stdout="broken")
    assert code in (0, 141)
    assert err == ""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"], ["kitchen", "k", "--preset", "tiny"]])
def test_slower_commands_end_without_a_word_too(arguments: list[str]) -> None:
    code, _, err = run_with_streams([*arguments], stdout="broken")
    assert code in (0, 141)
    assert arguments[0] == "kitchen" or err == ""  # its progress is on standard error
    assert "Traceback" not in err


def test_a_closed_standard_output_takes_nothing_and_breaks_nothing(run_folder: Path) -> None:
    write_clicks("a.wav", [3.0])
    assert run_with_streams(["runs", "--data-dir", str(run_folder)], stdout="closed") == (0, "", "")
    code, _, err = run_with_streams(["moments", "a.wav", "--out", "out.csv"], stdout="closed")
    assert (code, err) == (0, "wrote out.csv\n")
    assert Path("out.csv").read_text().startswith("video_id,")


@pytest.mark.parametrize("stderr", ["closed", "broken"])
def test_without_standard_error_results_come_all_the_same(stderr: str) -> None:
    write_clicks("a.wav", [3.0])
    code, out, _ = run_with_streams(["moments", "a.wav", "nowhere.wav", "--json"], stdout="pipe", stderr=stderr)
    if stderr == "closed":
        assert code == 0
        assert [result["path"] for result in json.loads(out)] == ["a.wav", "nowhere.wav"]
    else:
        assert code in (0, 141)
    assert "earmark moments:" not in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["runs"], ["runs", "--json"]])
def test_a_full_standard_output_fails_the_command_by_name(arguments: list[str], run_folder: Path) -> None:
    code, _, err = run_with_streams([*arguments, "--data-dir", str(run_folder)], stdout="full")
    assert code == 1
    assert err.splitlines()[0] == "earmark runs: standard output: no space left on device"
    assert "Traceback" not in err
    assert "Exception ignored" not in err


# --- full disks ---


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    (folder / "filler").write_bytes(bytes(56_000))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("--clips", "small/clips", r"small/clips/a_0001_\S+\.mp4: cannot be written"),
        ("--plot", "small/page.html", r"small/page\.html: cannot be written"),
        ("--plot", "small/page.png", r"small/page\.png: cannot be written"),
        ("--plot", "small", r"small/a\.html: cannot be written"),
        ("--out", "small/moments.csv", r"small/moments\.csv"),
        ("--out", "small/moments.json", r"small/moments\.json"),
        ("--out", "small/moments.parquet", r"small/moments\.parquet"),
        ("--out", "small/moments.vtt", r"small/moments\.vtt"),
    ],
)
def test_a_full_disk_fails_moments_by_name(
    full_disk: Path, option: str, name: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_clicks("a.wav", [3.0, 5.0])
    (full_disk / "more").write_bytes(bytes(4000))
    with (full_disk / "rest").open("wb", buffering=0) as rest:
        try:
            while rest.write(bytes(512)):
                pass
        except OSError:
            pass
    (full_disk / "more").unlink()  # a page of memory is left, more than the trial needs and less than any output
    if option == "--out":
        (full_disk / "more").write_bytes(bytes(1))
    before = sorted(full_disk.rglob("*"))
    assert main(["moments", "a.wav", "--min-score", "1", option, name]) == 1
    err = capfd.readouterr().err
    assert re.search(
        rf"^earmark moments: (\S*/)?({told}|small: cannot be written to): no space left on device", err, re.M
    )
    assert "wrote" not in err
    assert [path for path in sorted(full_disk.rglob("*")) if path.name != "clips"] == before


# --- names ---


def test_what_a_terminal_would_obey_is_shown_escaped(run_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_clicks(HOSTILE, [3.0])
    Path("truth").mkdir()
    Path("truth", f"{HOSTILE[:-4]}.txt").write_text("3.0\t3.0\thit\n")
    made = ["--plot", "pages", "--clips", "clips", "--score", "truth", "--out", "out.json"]
    assert main(["moments", HOSTILE, "no\x1bwhere.wav", *made]) == 0
    captured = capfd.readouterr()
    pages = [path.read_text(encoding="utf-8") for path in Path("pages").iterdir()]
    for text in (captured.out, captured.err, *pages):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u2028-\u202e]", text)
    assert f"{HOSTILE_SHOWN}: 1 moment" in captured.out
    assert captured.err.count("\nearmark moments: no\\x1bwhere.wav: ") == 1
    assert all(HOSTILE_SHOWN in page for page in pages)
    assert json.loads(Path("out.json").read_text())[0]["path"] == HOSTILE  # data is as it is


@pytest.mark.parametrize(
    "given",
    [
        {"LANG": "C", "LC_ALL": ""},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"},
    ],
)
def test_names_with_umlauts_work_in_a_locale_that_has_none(given: dict[str, str]) -> None:
    write_clicks("\u00fc.wav", [3.0])
    arguments = ["moments", "\u00fc.wav", "--plot", "pages", "--out", "out.csv"]
    done = subprocess.run(command(*arguments), env=environment(**given), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rb"(\xc3\xbc|\\xfc)\.wav: 1 moment", done.stdout)
    assert b"Traceback" not in done.stderr
    assert Path("out.csv").read_text(encoding="utf-8").splitlines()[1].endswith(",\u00fc.wav")
    assert "<h1>\u00fc.wav</h1>" in Path("pages/\u00fc.html").read_text(encoding="utf-8")
    assert ">\u00fc.wav</a>" in Path("pages/index.html").read_text(encoding="utf-8")


def test_json_holds_no_number_that_json_lacks(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("data/outputs", os.fsdecode(b"caf\xe9"))
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("optim: {epochs: 3}\n")
    (run / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 1, "step": 5, "loss": 1e999}\n')
    assert main(["runs", "--json", "--data-dir", "data"]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (found,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert (found["name"], found["loss"]) == ("caf%E9", None)
    assert main(["runs", "--data-dir", "data"]) == 0
    assert "caf%E9" in capsys.readouterr().out
