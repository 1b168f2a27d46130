"""The command `earmark moments`: what it takes, prints, writes and answers with, on ordinary and on odd input."""

import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.io.wavfile
from numpy.typing import NDArray

from earmark.cli import moments as cli_moments
from earmark.cli.main import main
from earmark.cli.moments import DETECTORS
from earmark.cli.moments_file import Search, find
from earmark.media import SoundReader, media_info
from earmark.moments import DETECTORS as BUILT_DETECTORS
from tests.conftest import ROOT
from tests.helpers.media_clips import click_track, grey_ramp, write_clip
from tests.helpers.webvtt import vtt_cues


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def hits(rate: int = 8000, times: tuple[float, ...] = (3.0, 7.0), seconds: float = 10.0) -> NDArray[np.float32]:
    """Return noise with decaying bursts of noise at some times, float32 in -1 to 1."""
    generator = np.random.default_rng(0)
    wave = generator.normal(0, 0.001, round(seconds * rate))
    length = rate // 20
    for time in times:
        burst = generator.normal(0, 0.25, length) * np.exp(-np.arange(length) / (rate / 100))
        wave[round(time * rate) :][:length] += burst[: len(wave) - round(time * rate)]
    return np.clip(wave, -0.99, 0.99).astype(np.float32)


def write_wav(path: str | Path, wave: NDArray[np.float32], rate: int = 8000) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    scipy.io.wavfile.write(path, rate, (wave * 32767).astype(np.int16))
    return str(path)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["moments", "--json", "--min-score", "3", *arguments]) == 0
    results: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return results


def seconds_of(result: dict[str, Any]) -> list[int]:
    return [round(moment["time_seconds"]) for moment in result["moments"]]


# --- which files ---


def test_a_folder_gives_its_media_files_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/b.WAV", "in/sub/a.wav", "in/.hidden.wav", "in/.git/c.wav"):
        write_wav(name, hits())
    Path("in/notes.txt").write_text("no sound")
    results = as_json(capsys, "in")
    assert [result["path"] for result in results] == ["in/b.WAV", "in/sub/a.wav"]
    assert all(seconds_of(result) == [3, 7] for result in results)


def test_a_quoted_pattern_is_expanded_and_each_file_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/a.wav", "in/sub/b.wav", "in/c[1].wav"):
        write_wav(name, hits())
    results = as_json(capsys, "in/c[1].wav", "in/**/*.wav", "in", "./in/a.wav")
    assert [result["path"] for result in results] == ["in/c[1].wav", "in/a.wav", "in/sub/b.wav"]


def test_an_empty_folder_and_a_pattern_without_match_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["moments", "empty", "*.mp4"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "earmark moments: empty: no video or sound file in this folder",
        "earmark moments: *.mp4: no file matches this pattern",
    ]


def test_clips_and_pages_in_the_folder_are_not_searched_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    write_wav("in/a.wav", hits())
    for _ in range(2):
        (result,) = as_json(capsys, "in", "--clips", "in/clips", "--plot", "in/pages")
        assert result["path"] == "in/a.wav"
    assert len(list(Path("in/clips").iterdir())) == 2


def test_a_wav_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav("a.wav", hits())
    content = bytearray(Path("a.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # as of one who writes to a pipe and can't know the length

    class Standard:
        buffer = io.BytesIO(bytes(content))

    monkeypatch.setattr(sys, "stdin", Standard)
    (result,) = as_json(capsys, "-", "--clips", "clips")
    assert result["path"] == "-"
    assert seconds_of(result) == [3, 7]
    assert result["duration_seconds"] == pytest.approx(10.0)
    assert result["notes"] == []
    assert sorted(path.name.partition("_")[0] for path in Path("clips").iterdir()) == ["stdin", "stdin"]


def test_standard_input_that_is_no_sound_is_told_by_its_name() -> None:
    code = "import sys; from earmark.cli.main import main; sys.exit(main(['moments', '-']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="no sound", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"earmark moments: -: not a media file that can be opened .*\n", done.stderr)


def unprivileged(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user who may not read everything, which root may.

    It runs once before that, so that what it imports when it runs is there, and its workers are: the environment may be
    root's alone.
    """
    code = (
        "import contextlib, io, os, sys, time, joblib\n"
        "from earmark.cli.main import main\n"
        "from earmark.worker_processes import parallel\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "    main(sys.argv[1:])\n"
        "def give_up_rights():\n"
        "    time.sleep(0.3)\n"  # so that each worker is asked
        "    if not os.geteuid(): os.setegid(65534); os.seteuid(65534)\n"
        "    return os.getpid()\n"
        "workers = parallel(2, [joblib.delayed(give_up_rights)()] * 6, pre_dispatch='all', batch_size=1)\n"
        "assert len(set(workers)) == 2\n"
        "give_up_rights()\n"
        "sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": "/tmp"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_folders_that_cannot_be_read_are_named_and_the_others_done(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    open_to_all = tempfile.TemporaryDirectory()  # that of pytest is its owner's alone
    request.addfinalizer(open_to_all.cleanup)
    monkeypatch.chdir(open_to_all.name)
    for name in ("in/a.wav", "in/shut/b.wav", "in/sub/c.wav", "shut/d.wav"):
        write_wav(name, hits())
    Path.cwd().chmod(0o755)
    for name in ("in/shut", "shut"):
        Path(name).chmod(0)
    try:
        done = unprivileged(
            "moments", "--json", "--workers", "1", "in", "shut", "shut/d.wav", "in/**/*.wav", "shut/*.wav"
        )
    finally:
        for name in ("in/shut", "shut"):
            Path(name).chmod(0o755)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [result["path"] for result in results if "error" not in result] == ["in/a.wav", "in/sub/c.wav"]
    assert sorted({result["error"].lower() for result in results if "error" in result}) == [
        "in/shut: permission denied, nothing below it is read",
        "shut/d.wav: permission denied",
        "shut: permission denied, nothing below it is read",
    ]
    assert "no video or sound file" not in done.stderr
    assert "no file matches" not in done.stderr


def test_links_that_lead_nowhere_or_in_a_circle_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_wav("in/a.wav", hits())
    Path("in/gone.wav").symlink_to("nowhere.wav")
    Path("in/circle.wav").symlink_to("circle.wav")
    Path("in/up").symlink_to("..")
    os.mkfifo("in/pipe.wav")
    results = as_json(capsys, "in", "--workers", "1")
    assert [result["error"].lower() for result in results if "error" in result] == [
        "in/up: a link to a folder, which is not followed",
        "in/circle.wav: too many levels of symbolic links",
        "in/gone.wav: no such file",
        "in/pipe.wav: not a regular file",
    ]
    assert [seconds_of(result) for result in results if "error" not in result] == [[3, 7]]


# --- what counts ---


def test_the_options_reach_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_wav("a.wav", hits(times=(1.0, 3.0, 3.5, 5.0, 61.0, 62.0), seconds=70.0))
    (everything,) = as_json(capsys, path)
    assert [round(moment["time_seconds"], 1) for moment in everything["moments"]] == [1.0, 3.0, 3.5, 5.0, 61.0, 62.0]
    (apart,) = as_json(capsys, path, "--min-distance", "1.2")
    assert seconds_of(apart) in ([1, 3, 5, 61], [1, 3, 5, 62], [1, 4, 5, 61], [1, 4, 5, 62])
    (inner,) = as_json(capsys, path, "--margin", "8.5")
    assert seconds_of(inner) == [61]
    (best,) = as_json(capsys, path, "--max-per-minute", "1")
    first, second = everything["moments"][:4], everything["moments"][4:]
    assert best["moments"] == [max(minute, key=lambda moment: moment["score"]) for minute in (first, second)]
    (high,) = as_json(capsys, path, "--min-score", str(best["moments"][0]["score"]))
    assert {moment["score"] >= best["moments"][0]["score"] for moment in high["moments"]} == {True}


def test_loudness_is_the_level_of_the_100_ms_from_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_wav("a.wav", hits())
    (result,) = as_json(capsys, path)
    wave = np.concatenate(list(SoundReader(path))).astype(np.float64)
    for moment in result["moments"]:
        start = round(moment["time_seconds"] * 8000)
        level = 10 * np.log10(np.mean(wave[start : start + 800] ** 2))
        assert moment["loudness_db"] == pytest.approx(level, abs=1e-6)


def test_a_sound_track_is_chosen_and_several_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    waves = [click_track(144000, round(48000 * time)) for time in (0.7, 2.1)]
    write_clip(Path("two.mkv"), frames=grey_ramp(30), fps=10, waves=waves)
    write_wav("one.wav", hits())
    (default,) = as_json(capsys, "two.mkv")
    assert default["notes"] == ["2 sound tracks, number 1 is listened to (--track chooses)"]
    made = ["--plot", "a.html", "--clips", "clips"]
    (second,) = as_json(capsys, "two.mkv", "--track", "2", *made)
    assert second["notes"] == []
    assert [round(result["moments"][0]["time_seconds"], 1) for result in (default, second)] == [0.7, 2.1]
    (clip,) = Path("clips").iterdir()
    loud = np.abs(np.concatenate(list(SoundReader(clip))))
    assert loud.argmax() / SoundReader(clip).sample_rate == pytest.approx(1.0, abs=0.12)
    assert main(["moments", "two.mkv", "one.wav", "--track", "3"]) == 1
    err = capsys.readouterr().err
    assert "two.mkv: no sound track 3, there are only 2 tracks" in err
    assert "one.wav: no sound track 3, there is only 1 track" in err


def test_the_tracks_of_real_footage_are_told(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = as_json(capsys, str(media / "multi_stream.mp4"))
    assert any(note.startswith("2 sound tracks, number ") for note in result["notes"])


def test_all_detectors_can_be_chosen() -> None:
    assert tuple(BUILT_DETECTORS) == DETECTORS


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_finds_clear_hits(detector: str) -> None:
    path = Path(write_wav("a.wav", hits(rate=16000), rate=16000))
    heard: list[float] = []
    found = find(path, Search(detector, None, None, 0.0, None), heard.append)
    best = sorted(found.moments, key=lambda moment: -moment.score)[:2]
    assert sorted(round(moment.time_seconds, 1) for moment in best) == [3.0, 7.0]
    assert heard[-1] == 10.0


# --- what is made ---


def test_a_table_is_printed_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_wav("[b]a.wav", hits())
    assert main(["moments", path, "--min-score", "3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[b]a.wav: 2 moments in 0:10.000, detector earmark\n")
    assert all(name in out for name in ("time", "score", "loudness, dB"))
    assert re.search(r"0:0[23]\.\d\d\d │ +\d+\.\d\d │ +-\d\d\.\d", out)


def test_several_files_at_once_give_what_one_after_the_other_does(capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_wav(f"{k}.wav", hits(times=(1.0 + k, 8.0))) for k in range(4)]
    Path("2.wav").write_text("broken")
    serial, parallel = (as_json(capsys, *names, "--workers", number) for number in ("1", "2"))
    assert serial == parallel
    assert [seconds_of(result) if "moments" in result else None for result in serial] == [[1, 8], [2, 8], None, [4, 8]]


def test_a_file_that_kills_its_process_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from concurrent.futures.process import BrokenProcessPool

    import joblib

    write_wav("good.wav", hits())
    write_wav("deadly.wav", hits())

    class Parallel:
        """Stands in for the pool: a process that really dies takes seconds to be noticed."""

        def __init__(self, *_: object, **__: object) -> None: ...

        def __call__(self, tasks: Any) -> Any:
            for function, arguments, keywords in tasks:
                if "deadly" in arguments[-1].shown:
                    raise BrokenProcessPool
                yield function(*arguments, **keywords)

    monkeypatch.setattr(joblib, "Parallel", Parallel)
    error, result = as_json(capsys, "deadly.wav", "good.wav", "--workers", "2")
    assert "killed" in error["error"]
    assert seconds_of(result) == [3, 7]


def test_a_rate_that_nobody_records_is_refused_by_name_and_takes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(Path(write_wav("claims.wav", hits())).read_bytes())
    data[24:28] = struct.pack("<I", 2**31 - 1)
    Path("claims.wav").write_bytes(data)
    assert main(["moments", "claims.wav"]) == 1
    assert capsys.readouterr().err == (
        "earmark moments: claims.wav: the sound claims 2147483647 Hz, only 100 to 768000 Hz are believed\n"
    )
    write_wav("bats.wav", hits(rate=384_000, seconds=8.0), rate=384_000)
    assert seconds_of(as_json(capsys, "bats.wav")[0]) == [3, 7]


def test_a_picture_that_is_not_believed_keeps_nobody_from_listening(capsys: pytest.CaptureFixture[str]) -> None:
    wave = (hits() * 32767).astype(np.int16)
    write_clip(Path("a.avi"), frames=grey_ramp(16), video_codec="mjpeg", waves=[wave], sample_rate=8000,
               audio_codec="pcm_s16le")  # fmt: skip
    data = bytearray(Path("a.avi").read_bytes())
    start = data.index(b"vids") + 20
    data[start : start + 8] = struct.pack("<II", 32767, 16)
    Path("a.avi").write_bytes(data)
    (result,) = as_json(capsys, "a.avi")
    assert seconds_of(result) == [3, 7]
    assert result["duration_seconds"] == pytest.approx(10.0)
    assert any("the picture claims to last until" in note for note in result["notes"])


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_tables_hold_the_moments_of_all_files(suffix: str) -> None:
    names = [write_wav("x/a.wav", hits()), write_wav("y/a.wav", hits(times=(5.0,)))]
    out = Path(f"out/moments{suffix}")
    assert main(["moments", *names, "--min-score", "3", "--out", str(out)]) == 0
    if suffix == ".json":
        rows = [(r["path"], m["time_seconds"]) for r in json.loads(out.read_text()) for m in r["moments"]]
    elif suffix == ".csv":
        table = list(csv.DictReader(io.StringIO(out.read_text())))
        assert [row["video_id"] for row in table] == ["a", "a", "a-2"]
        rows = [(row["path"], float(row["time_seconds"])) for row in table]
    else:
        parquet = pq.read_table(out)
        rows = list(zip(parquet["path"].to_pylist(), parquet["time_seconds"].to_pylist(), strict=True))
        assert json.loads(parquet.schema.metadata[b"parameters"])["min_score"] == 3.0
    assert [(path, round(time)) for path, time in rows] == [("x/a.wav", 3), ("x/a.wav", 7), ("y/a.wav", 5)]


def test_what_was_written_is_named_and_several_files_get_a_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_wav("a.wav", hits()), write_wav("b.wav", hits(times=(5.0,)))]
    made = ["--plot", "pages", "--clips", "clips", "--out", "out.csv", "--min-score", "3"]
    assert main(["moments", *names, "nowhere.wav", *made]) == 0
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if line.startswith("wrote ")] == [
        "wrote pages/a.html",
        "wrote clips/a_*.mp4 (2 clips)",
        "wrote pages/b.html",
        f"wrote clips/{next(Path('clips').glob('b_*')).name}",
        "wrote out.csv",
        "wrote pages/index.html",
    ]
    assert captured.out.splitlines()[-1] == (
        "3 moments in 2 files, 0:20.000 in all, detector earmark; 1 could not be read"
    )
    assert main(["moments", "b.wav", "--min-score", "3"]) == 0
    assert "1 moment in 0:10.000, detector earmark" in capsys.readouterr().out


def test_quiet_leaves_what_is_wrong_and_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_wav("a.wav", hits()), "nowhere.wav"]
    assert main(["moments", *names, "--min-score", "3", "--quiet", "--out", "out.csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "2 moments in 1 file, 0:10.000 in all, detector earmark; 1 could not be read\n"
    assert captured.err == "earmark moments: nowhere.wav: no such file\n"
    assert Path("out.csv").is_file()


def test_several_files_on_one_page_get_a_page_each_and_one_that_leads_to_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [write_wav("a b.wav", hits()), write_wav("index.wav", hits(times=(5.0,))), "nowhere.wav"]
    assert main(["moments", *names, "--min-score", "3", "--plot", "all.html", "--detector", "replai"]) == 0
    assert sorted(path.name for path in Path("all").iterdir()) == ["a b.html", "index-2.html"]
    page = Path("all.html").read_text()
    assert re.findall(r'<a href="([^"]+)">([^<]+)</a>', page) == [
        ("all/a%20b.html", "a b.wav"),
        ("all/index-2.html", "index.wav"),
    ]
    assert "nowhere.wav: no such file" in page
    assert "detector replai; 1 could not be read" in page
    assert "<script" not in page
    strokes = re.findall(r'<path d="([^"]+)"', page)
    assert [[round(float(x) / 100) for x in re.findall(r"M([\d.]+)", stroke)] for stroke in strokes[1:]] == [[5]]
    assert '<a href="../all.html">all files</a>' in Path("all/a b.html").read_text()


def test_labels_of_several_files_go_to_files_of_their_own() -> None:
    names = [write_wav("x/a.wav", hits()), write_wav("y/A.wav", hits(times=(5.0,)))]
    assert main(["moments", names[0], "--min-score", "3", "--out", "one.vtt"]) == 0
    assert [round(cue[0] / 1000) for cue in vtt_cues(Path("one.vtt").read_text())] == [3, 7]
    assert main(["moments", *names, "--min-score", "3", "--out", "all.txt"]) == 0
    assert not Path("all.txt").exists()
    assert len(Path("all-a.txt").read_text().splitlines()) == 2
    assert len(Path("all-A-2.txt").read_text().splitlines()) == 1


def test_pages_and_clips_are_made_for_each_file() -> None:
    write_clip(Path("a.mp4"), frames=grey_ramp(30), fps=10, waves=[click_track(144000, 72000)])
    write_wav("b.wav", hits())
    assert main(["moments", "a.mp4", "b.wav", "--plot", "pages", "--clips", "clips", "--min-score", "3"]) == 0
    assert sorted(path.name for path in Path("pages").iterdir()) == ["a.html", "b.html", "index.html"]
    clips = sorted(Path("clips").iterdir())
    assert [path.name.split("_")[:2] for path in clips] == [["a", "0001"], ["b", "0001"], ["b", "0002"]]
    assert all(media_info(path).audio for path in clips)
    assert main(["moments", "a.mp4", "--plot", "new/a.png"]) == 0
    assert Path("new/a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.wav", "--out", "a.xlsx"],
        ["a.wav", "--out", "moments"],
        ["a.wav", "--plot", "a.pdf"],
        ["a.wav", "b.wav", "--plot", "a.png"],
        ["a.wav", "--track", "0"],
        ["a.wav", "--detector", "guess"],
        ["a.wav", "--max-per-minute", "0"],
        ["a.wav", "--min-distance", "-1"],
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["moments", *arguments])
    assert stop.value.code == 2
    assert "usage: earmark moments" in capsys.readouterr().err


# --- odd input ---


def wav_bytes(samples: bytes, *, rate: int, bits: int, channels: int = 1, kind: int = 1) -> bytes:
    """Return a wav file; kind 1 is PCM, 3 floating point."""
    frame = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sound_only(path: Path, wave: NDArray[np.float32], rate: int, *, channels: int = 1, bits: int = 16) -> None:
    samples = np.round(wave * 127 + 128).astype(np.uint8) if bits == 8 else np.round(wave * 32767).astype("<i2")
    path.write_bytes(wav_bytes(np.repeat(samples, channels).tobytes(), rate=rate, bits=bits, channels=channels))


@pytest.mark.parametrize(
    ("rate", "channels", "bits"), [(44100, 1, 8), (8000, 1, 16), (192000, 1, 16), (48000, 6, 16)], ids=str
)
def test_sound_of_every_kind_is_read(rate: int, channels: int, bits: int, capsys: pytest.CaptureFixture[str]) -> None:
    sound_only(Path("a.wav"), hits(rate), rate, channels=channels, bits=bits)
    assert main(["moments", "a.wav", "--json", "--max-per-minute", "2"]) == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)
    assert seconds_of(result) == [3, 7]
    assert (result["notes"], captured.err) == ([], "")


def odd_inputs() -> None:
    """Write a file for each kind of odd input, and an ordinary one."""
    picture = {"frames": grey_ramp(30), "fps": 10}
    click = click_track(144000, 72000)
    write_clip(Path("no_sound.mp4"), **picture)  # type: ignore[arg-type]
    write_wav("silent.wav", np.zeros(80000, np.float32))
    write_wav("short.wav", hits(times=(0.5,), seconds=1.0))
    write_wav("instant.wav", np.full(5, 0.1, np.float32))
    write_clip(Path("longer.mkv"), **picture, waves=[click_track(288000, 72000)])  # type: ignore[arg-type]
    write_clip(Path("shorter.mkv"), **picture, waves=[click[:96000]])  # type: ignore[arg-type]
    write_clip(Path("late.mkv"), **picture, waves=[click], sound_start=1.0)  # type: ignore[arg-type]
    broken = hits()
    broken[1000:1010] = np.nan
    Path("nan.wav").write_bytes(wav_bytes(broken.astype("<f4").tobytes(), rate=8000, bits=32, kind=3))
    write_clip(Path("whole.mkv"), **picture, waves=[click])  # type: ignore[arg-type]
    Path("truncated.mkv").write_bytes(Path("whole.mkv").read_bytes()[: Path("whole.mkv").stat().st_size * 2 // 3])
    Path("whole.mkv").unlink()
    Path("text.mp4").write_text("no media at all")
    Path("empty.wav").touch()
    write_wav("zz_ordinary.wav", hits())


ODD = {
    "empty.wav": r"the file is empty",
    "instant.wav": r"only 1 ms of sound",
    "late.mkv": r"the sound starts at 1\.0\d s, the picture at 0\.00 s",
    "longer.mkv": r"the sound ends at 6\.\d\d s, the picture at 3\.00 s",
    "nan.wav": r"samples that are not finite were set to 0",
    "no_sound.mp4": r"no sound stream that can be decoded",
    "shorter.mkv": r"the sound ends at 2\.\d\d s, the picture at 3\.00 s",
    "silent.wav": r"the sound is digital silence",
    "text.mp4": r"not a media file that can be opened",
    "truncated.mkv": r"breaks off|ends at|broke off",
}


def test_each_odd_input_gets_a_line_and_the_others_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    odd_inputs()
    assert main(["moments", ".", "--json", "--workers", "1", "--plot", "pages", "--clips", "clips"]) == 0
    captured = capsys.readouterr()
    results = {result["path"]: result for result in json.loads(captured.out)}
    assert set(results) == {*ODD, "short.wav", "zz_ordinary.wav"}
    lines = [line for line in captured.err.splitlines() if not line.startswith("wrote ")]
    for name, reason in ODD.items():
        (line, *more) = [line for line in lines if line.startswith(f"earmark moments: {name}: ")]
        assert re.search(reason, "; ".join([line, *more])), (name, line)
    assert not [line for line in lines if "short.wav" in line or "ordinary" in line]
    assert {name for name, result in results.items() if "error" in result} == {"empty.wav", "no_sound.mp4", "text.mp4"}
    assert seconds_of(results["zz_ordinary.wav"])[:1] == [3]
    assert [round(moment["time_seconds"], 1) for moment in results["late.mkv"]["moments"]] == [2.5]
    assert "0.5" in [f"{moment['time_seconds']:.1f}" for moment in results["short.wav"]["moments"]]
    assert (results["silent.wav"]["moments"], results["instant.wav"]["moments"]) == ([], [])
    assert len(list(Path("pages").iterdir())) == len(results) - 3 + 1  # the last one leads to the others


@pytest.mark.parametrize("name", ["empty.wav", "no_sound.mp4", "text.mp4", "nowhere.mp4"])
def test_the_exit_code_is_1_only_where_nothing_could_be_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    odd_inputs()
    assert main(["moments", name, "--out", "out.csv", "--plot", "a.png"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("out.csv").exists()
    assert main(["moments", name, "silent.wav", "--workers", "1"]) == 0


def test_a_truncated_wav_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(write_wav("a.wav", hits()))
    path.write_bytes(path.read_bytes()[:100000])
    (result,) = as_json(capsys, "a.wav")
    assert seconds_of(result) == [3]
    assert re.search("1 damaged packet skipped, the first at 6.2|breaks off at 6.2", result["notes"][0])


def test_real_footage_of_many_kinds(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tennis_no_audio.mp4", "chopping.mp4", "ego_silent_track.mp4", "failing_audio.mp4", "pancake.mkv"):
        shutil.copy(media / name, name)
    assert main(["moments", ".", "--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"chopping\.mp4: 1\d moments", captured.out)
    assert "tennis_no_audio.mp4: no sound" in captured.err
    assert "ego_silent_track.mp4: the sound is digital silence" in captured.err


# --- progress and scoring ---


def test_the_progress_bar_counts_the_time_of_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    names = [write_wav(f"{k}.wav", hits(seconds=70.0)) for k in range(2)]
    shown = (r"(1:10|2:20)\.000 of 2:20\.000 of sound", r"2:20\.000 of 2:20\.000 of sound")  # the worker may be ahead
    seen = []
    real = cli_moments._tell

    def slow_tell(*arguments: Any, **keywords: Any) -> None:
        # The bar is drawn now and then, and a busy worker is in the midst of the second file for a while.
        deadline = monotonic() + 30
        while not re.search(shown[len(seen)], terminal.getvalue()) and monotonic() < deadline:
            sleep(0.05)
        real(*arguments, **keywords)
        seen.append(terminal.getvalue())

    monkeypatch.setattr(cli_moments, "_tell", slow_tell)
    assert main(["moments", *names, "--workers", "1"]) == 0
    assert [bool(re.search(*pair)) for pair in zip(shown, seen, strict=True)] == [True, True]


def test_moments_are_scored_against_labels(capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_wav("a.wav", hits()), write_wav("b.wav", hits(times=(5.0,))), write_wav("c.wav", hits())]
    Path("truth").mkdir()
    Path("truth/a.txt").write_text("3.0\t3.0\thit\n7.0\t7.0\thit\n9.0\t9.0\tnever heard\n")
    Path("truth/b.txt").write_text("5.0\t5.0\thit\n")
    assert main(["moments", *names, "--min-score", "3", "--score", "truth", "--json"]) == 0
    captured = capsys.readouterr()
    first, second, third = json.loads(captured.out)
    assert [score["window_seconds"] for score in first["scores"]] == [0.05, 0.1]
    assert first["scores"][0]["precision"] == 1.0
    assert first["scores"][0]["recall"] == pytest.approx(2 / 3)
    assert second["scores"][0]["f1"] == 1.0
    assert "scores" not in third
    assert "c.wav: truth has no entry for it" in captured.err
    rows = [line for line in captured.err.splitlines() if "all" in line and "ms" in line]
    assert "0.750" in rows[0]
    assert main(["moments", "a.wav", "--min-score", "3", "--score", "truth/b.txt"]) == 0  # one file, one truth
    assert "0.000" in capsys.readouterr().out


def test_starts_of_actions_are_not_scored_as_onsets(capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_wav("P01_01.wav", hits(times=(3.0, 5.0, 7.0))), write_wav("P01_02.wav", hits(times=(4.0,)))]
    lines = [
        "narration_id,video_id,start_timestamp,stop_timestamp",
        "P01_01_0,P01_01,00:00:02.50,00:00:03.50",
        "P01_01_1,P01_01,00:00:06.50,00:00:08.00",
        "P01_01_2,P01_01,00:00:08.50,00:00:09.00",
        "P01_02_0,P01_02,00:00:03.50,00:00:04.50",
    ]
    Path("EPIC_100.csv").write_text("\n".join(lines) + "\n")
    first, second = as_json(capsys, *names, "--score", "EPIC_100.csv")
    assert first["scores"] == [
        {"num_moments": 3, "num_actions": 3, "span_recall": pytest.approx(2 / 3), "idle_share": pytest.approx(1 / 3)}
    ]
    assert second["scores"][0]["span_recall"] == 1.0
    assert main(["moments", *names, "--min-score", "3", "--score", "EPIC_100.csv"]) == 0
    out = capsys.readouterr().out
    assert "recall of actions" in out
    assert "precision can't be computed" in " ".join(out.split())
    assert "F1" not in out
    assert re.search(r"all +│ +4 │ +4 │ 0\.750 │|all +│ +4 │ +4 │ +0\.750 │ 0\.250", out)


@pytest.mark.parametrize("name", ["nowhere.txt", "nowhere.csv", "nowhere.parquet", "nowhere"])
def test_a_truth_that_is_not_there_is_told_by_file_and_reason(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav("a.wav", hits())
    assert main(["moments", "a.wav", "--score", name]) == 1
    expected = "no such file or directory" if "." in name else "onsets are read from"
    assert capsys.readouterr().err.startswith(f"earmark moments: {name}: {expected}")
    Path("empty").mkdir()
    assert main(["moments", "a.wav", "--score", "empty"]) == 1
    assert "empty: no Audacity labels (.txt) in this folder" in capsys.readouterr().err


def test_moments_are_scored_against_annotated_actions(capsys: pytest.CaptureFixture[str]) -> None:
    write_wav("P01_01.wav", hits(times=(3.0, 5.0, 7.0)))
    lines = [
        "video_id,start_timestamp,stop_timestamp",
        "P01_01,00:00:02.90,00:00:03.50",
        "P01_01,00:00:06.99,00:00:08.00",
        "P01_01,00:00:08.50,00:00:09.00",
    ]
    Path("truth.csv").write_text("\n".join(lines) + "\n")
    (result,) = as_json(capsys, "P01_01.wav", "--detector", "replai", "--score", "truth.csv")
    narrow, wide = result["scores"]
    assert (narrow["num_moments"], narrow["num_truth"]) == (3, 3)
    assert narrow["span_recall"] == pytest.approx(2 / 3)
    assert narrow["idle_share"] == pytest.approx(1 / 3)
    assert (narrow["recall"], wide["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_truth_that_cannot_be_read_is_told_before_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    write_wav("a.wav", hits())
    Path("truth.txt").write_text("no labels")
    assert main(["moments", "a.wav", "--score", "truth.txt"]) == 1
    captured = capsys.readouterr()
    assert "truth.txt, line 1" in captured.err
    assert captured.out == ""


def test_rows_of_the_truth_that_cannot_be_used_are_named_and_the_others_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_wav("a.wav", hits())
    bad = "".join(f"1e{number}\tnan\thit\n" for number in range(25))
    Path("truth.txt").write_text(f"3.0\t3.0\thit\n{bad}7.0\t7.0\thit\n")
    assert main(["moments", "a.wav", "--min-score", "3", "--score", "truth.txt", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["scores"][0]["num_truth"] == 2
    told = [line for line in captured.err.splitlines() if "left out" in line]
    assert told[0] == "earmark moments: left out: truth.txt, line 2: not start, end and text separated by tabs: 'nan'"
    assert told[20:] == ["earmark moments: left out: 5 more of this kind"]


def test_a_file_whose_name_is_not_utf_8_is_done_like_any_other(capfd: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    write_wav(name, hits())
    Path("truth").mkdir()
    Path("truth", os.fsdecode(b"caf\xe9.txt")).write_text("3.0\t3.0\thit\n")
    made = ["--plot", "pages", "--clips", "clips", "--out", "out.eaf", "--score", "truth"]
    assert main(["moments", name, "--min-score", "3", *made]) == 0
    captured = capfd.readouterr()
    assert "caf%E9.wav: 2 moments" in captured.out
    assert [line.partition(" ")[0] for line in captured.err.splitlines()] == ["wrote"] * 4
    assert len(list(Path("clips").iterdir())) == 2
    assert "caf%E9.wav" in next(path for path in Path("pages").iterdir() if path.stem != "index").read_text()
    assert '<a href="caf%E9.html">caf%E9.wav</a>' in Path("pages/index.html").read_text()
