"""Detectors of moments on the sound of Audible Kitchen and on hits labelled by hand; what they cost.

    python benchmarks/moments.py [PART ..] [--media DIR] [--folder DIR] [--seeds 21 22] [--minutes 180]

Parts (all, where none is named): kitchen, real, cost, memory. `real` needs the folder of clips that the labels in
tests/labels are of. Kitchens are those of the preset `small` with pictures of 64x64 at 4 fps, since only sound counts.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import resample_poly

from earmark.kitchen import PRESETS, KitchenSize, make_kitchen
from earmark.media import SoundReader
from earmark.moments import DETECTORS, MomentStream
from earmark.moments.scoring import idle_share, read_spans, read_truth, score_onsets, span_recall

WHITE_LEVEL = 0.15  # root mean square: -16.5 dB re full scale
FAN_DB = -36.0  # re full scale: about the level of the kitchens' own sound
MOST_GAIN_DB, GAIN_SECONDS = 15.0, 4.0  # of a recorder that turns itself up and down
RATE = 48000  # of the kitchens, in Hz
LABELS = Path(__file__).resolve().parents[1] / "tests" / "labels"

Sound = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]
Found = list[tuple[float, float]]  # (seconds, score)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def find(source: Any, detector: str, min_score: float | None = None, sample_rate: int | None = None) -> Found:
    blocks = [source] if isinstance(source, np.ndarray) else source
    stream = MomentStream(blocks, detector=detector, min_score=min_score, sample_rate=sample_rate)
    return [(moment.time_seconds, moment.score) for moment in stream]


def best(found: Found, number: int) -> list[float]:
    """Return the times of the highest scores."""
    return sorted(seconds for seconds, _ in sorted(found, key=lambda pair: -pair[1])[:number])


def together(
    parts: Iterable[tuple[Iterable[float], Times]], window_seconds: float = 0.05
) -> tuple[float, float, float]:
    """Return F1, precision and recall of all videos together, laid one after the other, far apart."""
    moments: list[float] = []
    truth: list[float] = []
    for number, (times, onsets) in enumerate(parts):
        moments += [seconds + 1e4 * number for seconds in times]
        truth += [seconds + 1e4 * number for seconds in onsets]
    score = score_onsets(moments, truth, window_seconds=window_seconds)
    return score.f1, score.precision, score.recall


# --- Audible Kitchen ---


def kitchen(options: argparse.Namespace) -> None:
    """Score each detector at its own threshold, and at as many moments as there are onsets."""
    row(
        "level",
        "detector",
        "F1 50 ms",
        "F1 100 ms",
        "precision, recall 50 ms",
        "F1 at matched counts",
        "actions",
        "idle",
    )
    rng = np.random.default_rng(0)
    paths, truths, spans = kitchens(options, noise_db=6.0, babble_share=0.15)
    usual = [(heard(path), RATE) for path in paths]
    compare("usual: +6 dB, talk 15 %", usual, truths, spans)
    white = [(sound + WHITE_LEVEL * rng.standard_normal(len(sound), np.float32), RATE) for sound, _ in usual]
    paths, truths_of_loud, spans_of_loud = kitchens(options, noise_db=15.0, babble_share=0.6)
    loud = [(with_fan(heard(path), rng), RATE) for path in paths]
    compare("loud: +15 dB, talk 60 %, a fan", loud, truths_of_loud, spans_of_loud)
    hardest = [(with_changing_gain(sound, rng), RATE) for sound, _ in loud]
    compare("hardest: loud, gain that changes, clipping", hardest, truths_of_loud, spans_of_loud)
    compare("usual and white noise over many hits", white, truths, spans)
    compare("the same at 16 kHz", [(resample_poly(sound, 1, 3), 16000) for sound, _ in white], truths, spans)


def kitchens(
    options: argparse.Namespace, *, noise_db: float, babble_share: float
) -> tuple[list[Path], list[Times], list[Times]]:
    """Make kitchens and return their videos, audible onsets and spans of action."""
    sources, truths, spans = [], [], []
    for seed in options.seeds:
        folder = options.folder / f"noise_{noise_db:+.0f}_talk_{babble_share}_seed_{seed}"
        size = KitchenSize(3, 1, 120, width=64, height=64, fps=4)
        difficulty = replace(PRESETS["small"].difficulty, noise_db=noise_db, babble_share=babble_share)
        make_kitchen(folder, size=size, difficulty=difficulty, seed=seed, progress=False)
        onsets, actions = read_truth(folder / "events.parquet"), read_spans(folder / "events.parquet")
        for video in sorted(folder.glob("P*/videos/*.MP4")):
            sources.append(video)
            truths.append(onsets[video.stem])
            spans.append(actions[video.stem])
    return sources, truths, spans


def heard(path: Path) -> Sound:
    return np.concatenate(list(SoundReader(path)))


def with_fan(sound: Sound, rng: np.random.Generator) -> Sound:
    """Add steady pink noise, such as an extractor hood makes."""
    white = np.fft.rfft(rng.standard_normal(len(sound)))
    pink = np.fft.irfft(white / np.sqrt(np.maximum(np.arange(len(white)), 1)), len(sound))
    return (sound + 10 ** (FAN_DB / 20) * pink / pink.std()).astype(np.float32)


def with_changing_gain(sound: Sound, rng: np.random.Generator) -> Sound:
    """Turn the sound up and down, each time within half a second, and cut it off at full scale."""
    size = round(GAIN_SECONDS * RATE)
    gain_db = np.repeat(rng.uniform(-MOST_GAIN_DB, MOST_GAIN_DB, len(sound) // size + 1), size)[: len(sound)]
    return np.clip(sound * 10 ** (uniform_filter1d(gain_db, RATE // 2) / 20), -1, 1).astype(np.float32)


def compare(what: str, sources: list[tuple[Any, int | None]], truths: list[Times], spans: list[Times]) -> None:
    for name in DETECTORS:
        every = [find(source, name, 0.0, rate) for source, rate in sources]
        usual = [[seconds for seconds, _ in find(source, name, None, rate)] for source, rate in sources]
        f1, precision, recall = together(zip(usual, truths, strict=True))
        wide = together(zip(usual, truths, strict=True), 0.1)[0]
        matched = together((best(found, len(truth)), truth) for found, truth in zip(every, truths, strict=True))[0]
        heard = statistics.mean(span_recall(times, span) for times, span in zip(usual, spans, strict=True))
        idle = statistics.mean(idle_share(times, span) for times, span in zip(usual, spans, strict=True))
        numbers = (f"{f1:.3f}", f"{wide:.3f}", f"{precision:.3f}, {recall:.3f}", f"{matched:.3f}")
        row(what, name, *numbers, f"{heard:.3f}", f"{idle:.3f}")


# --- real clips ---


def real(options: argparse.Namespace) -> None:
    """Score on hits labelled by hand, at the detectors' own thresholds, at others, and at those of the other clips."""
    if not options.media.is_dir():
        print(f"no clips at {options.media}: real is left out (--media)", file=sys.stderr)
        return
    files = sorted(LABELS.glob("*.txt"))
    truths = [read_truth(file)[file.stem] for file in files]
    sources = [next(options.media.glob(f"{file.stem}.*")) for file in files]
    for name in DETECTORS:
        usual = [[seconds for seconds, _ in find(source, name)] for source in sources]
        for file, times, truth in zip(files, usual, truths, strict=True):
            score = score_onsets(times, truth, window_seconds=0.05)
            row(name, file.stem, f"{score.num_truth} onsets", f"{score.num_moments} moments", f"F1 {score.f1:.3f}")
        for window in (0.05, 0.1):
            f1, precision, recall = together(zip(usual, truths, strict=True), window)
            row(name, "all", f"{1000 * window:.0f} ms", f"P {precision:.3f}, R {recall:.3f}", f"F1 {f1:.3f}")
        every = [find(source, name, 0.0) for source in sources]
        matched = together((best(found, len(truth)), truth) for found, truth in zip(every, truths, strict=True))[0]
        row(name, "all, as many moments as onsets", f"F1 {matched:.3f}")
        curve = {f"{least:.1f}": f"{at(every, truths, least):.3f}" for least in thresholds(name)[::2]}
        row(name, "all, by least score", ", ".join(f"{least}: {f1}" for least, f1 in curve.items()))
        row(name, "each clip at the best threshold of the others", f"F1 {of_the_others(every, truths, name):.3f}")


def thresholds(name: str) -> Times:
    return np.arange(1.0, 4.05, 0.2) if name == "earmark" else np.arange(0.2, 2.05, 0.1)


def at(every: list[Found], truths: list[Times], least: float) -> float:
    return together(([s for s, score in found if score >= least], t) for found, t in zip(every, truths, strict=True))[0]


def of_the_others(every: list[Found], truths: list[Times], name: str) -> float:
    parts = []
    for left_out in range(len(every)):
        others = [number for number in range(len(every)) if number != left_out]
        found, truth = [every[n] for n in others], [truths[n] for n in others]
        least = max(thresholds(name), key=lambda least, f=found, t=truth: at(f, t, least))
        parts.append(([s for s, score in every[left_out] if score >= least], truths[left_out]))
    return together(parts)[0]


# --- cost ---


def cost(options: argparse.Namespace) -> None:
    """Time decoding alone and decoding with each detector, in turns, on one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = [("kitchen, AAC mono 48 kHz", kitchens(options, noise_db=6.0, babble_share=0.15)[0][0])]
        clip = options.media / "chopping.mp4"
        if clip.is_file():
            looped = Path(scratch, "chopping.mp4")
            command = ["ffmpeg", "-v", "error", "-stream_loop", "14", "-i", str(clip), "-c", "copy", str(looped)]
            subprocess.run(command, check=True)
            sources.append(("chopping x 15, AAC stereo 44.1 kHz", looped))
        for what, path in sources:
            ways: dict[str, Callable[[Path], float]] = {"decode": decode_alone}
            ways |= {name: lambda path, name=name: decode_and_find(path, name) for name in DETECTORS}
            rounds = [{way: timed(run, path) for way, run in ways.items()} for _ in range(options.rounds)]
            for name in DETECTORS:
                ratios = [times[name] / times["decode"] for times in rounds]
                fastest = min(times[name] for times in rounds) / min(times["decode"] for times in rounds)
                text = f"{fastest:.2f} x decode, fastest rounds; median {statistics.median(ratios):.2f}"
                rate = statistics.median(1 / times[name] for times in rounds)
                row(what, name, text, f"{rate:.0f} x real time")
            row(what, "decode alone", f"{statistics.median(1 / times['decode'] for times in rounds):.0f} x real time")


def timed(run: Callable[[Path], float], path: Path) -> float:
    """Return the seconds taken by a second of sound."""
    started = time.perf_counter()
    seconds = run(path)
    return (time.perf_counter() - started) / seconds


def decode_alone(path: Path) -> float:
    reader = SoundReader(path)
    for _ in reader:
        pass
    return reader.num_samples / reader.sample_rate


def decode_and_find(path: Path, detector: str) -> float:
    reader = SoundReader(path)
    finder = DETECTORS[detector](reader.sample_rate)
    for block in reader:
        finder.feed(block, copy=False)
    finder.finish()
    return reader.num_samples / reader.sample_rate


# --- memory ---

_PEAK = """
import sys
from dataclasses import replace
from pathlib import Path
from earmark.moments import MomentStream
number = sum(1 for _ in MomentStream(sys.argv[1], detector=sys.argv[2]))
(most,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(most.split()[1]) / 1024, number)
"""


def memory(options: argparse.Namespace) -> None:
    """Take the most memory of a process that searches 10 minutes and one that searches hours."""
    blocks = list(SoundReader(kitchens(options, noise_db=6.0, babble_share=0.15)[0][0]))
    sound = np.rint(32767 * np.concatenate(blocks)).astype(np.int16).tobytes()  # two minutes
    with tempfile.TemporaryDirectory() as scratch:
        for minutes in (10, options.minutes):
            path = Path(scratch, f"{minutes}.wav")
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 48000, 0, "NONE", ""))
                for _ in range(minutes // 2):
                    file.writeframesraw(sound)
            for name in DETECTORS:
                command = [sys.executable, "-c", _PEAK, str(path), name]
                peak, number = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                row(f"{minutes} minutes of wav, 48 kHz", name, f"{float(peak):.0f} MiB at most", f"{number} moments")


PARTS = {"kitchen": kitchen, "real": real, "cost": cost, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--media", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "media")
    parser.add_argument("--folder", type=Path, help="keep the kitchens here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22], help="of the kitchens")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=int, default=180, help="length of the long file, even")
    options = parser.parse_args()
    if options.minutes < 2 or options.minutes % 2:
        parser.error("--minutes must be even and at least 2: the file is made of two minutes over and over")
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        options.folder = options.folder or Path(scratch)
        for name in options.parts or PARTS:
            PARTS[name](options)


if __name__ == "__main__":
    main()
